"""How fast training on a cluster can be: a model of its parts, fitted to measurements.

Every part has a rate that it cannot exceed, in agent steps per second; the least of them is the
rate of the whole. One machine can measure CPU time and bytes; the rate of an accelerator and the
speed of a network are assumptions of the caller.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.analysis.curves import COLOURS, pyplot
from meta_impala.errors import UserError, one_line
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.results_folder import save_figure

FORMAT = "meta_impala scaling, version 1"
_MAX_BYTES = 2**24
_SMALLEST, _LARGEST = 1e-9, 1e18
# What a window may have none of; the costs are quotients of the others.
_MAY_BE_ZERO = ("versions", "receiver_cpu", "receiver_idle", "ray_cpu")


class Window(NamedTuple):
    """Counts of one window in which actors played and a receiver took their unrolls.

    Attributes:
      actors, nodes: how many.
      seconds: its length.
      unrolls, agent_steps: received.
      versions: weights put into the object store.
      actor_cpu, receiver_cpu, ray_cpu: CPU-seconds of all actors, of the receiving process, and of
        Ray's own processes.
      receiver_idle: CPUs that the receiver uses while nothing comes.
      unroll_bytes: of all unrolls, as sent.
      weights_bytes: of one version.
    """

    actors: int
    nodes: int
    seconds: float
    unrolls: int
    agent_steps: int
    versions: int
    actor_cpu: float
    receiver_cpu: float
    receiver_idle: float
    ray_cpu: float
    unroll_bytes: int
    weights_bytes: int


@dataclasses.dataclass(frozen=True)
class Model:
    """Costs of the parts.

    Attributes:
      actor_ms: CPU-ms of an actor per agent step.
      unroll_ms: CPU-ms of the receiver per unroll.
      version_ms: CPU-ms of the receiver per version of the weights.
      wait_ms_per_actor: CPU-ms of one poll of the pending unrolls, per actor.
      ray_ms: CPU-ms of Ray's processes per unroll, on all machines together.
      ray_idle: CPUs that Ray's processes of one node use when idle.
      bytes_per_step: of an unroll.
      weights_bytes: of one version.
      steps_per_unroll: T times the environments of an actor.
      unroll_length: T.
    """

    actor_ms: float
    unroll_ms: float
    version_ms: float
    wait_ms_per_actor: float
    ray_ms: float
    ray_idle: float
    bytes_per_step: float
    weights_bytes: float
    steps_per_unroll: int
    unroll_length: int


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Assumptions about a cluster.

    Attributes:
      actors: processes, one CPU each.
      learners: each with its share of the actors, a receiver and a network link of its own.
      learner_rate: agent steps per second that one of them can learn from.
      actors_per_node: on a machine.
      link: bytes per second from and to a learner's machine.
      batch_size: unrolls of one environment in a batch, of all learners together.
      unrolls_in_flight: per actor.
      environment_factor: cost of an agent step, relative to the measured one.
    """

    actors: int
    learners: int = 1
    learner_rate: float = 25_000.0
    actors_per_node: int = 64
    link: float = 1.25e9
    batch_size: int = 32
    unrolls_in_flight: int = 2
    environment_factor: float = 1.0


def read(path: pathlib.Path) -> tuple[list[Window], dict[int, float], dict[str, Any]]:
    """Windows, costs of waiting, and the settings of what `tools/scaling_plan.py measure` wrote.

    Raises:
      UserError: if the file cannot be read or is not a file of measurements that can be fitted.
    """
    try:
        content = read_json_object(path, _MAX_BYTES)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}")
        windows = [_window(window) for window in content["windows"]]
        if len(windows) < 2:
            raise ValueError(f"it has {len(windows)} windows; must have at least two")
        waits = {
            int(_quantity("waiting", int(count), 1)): _quantity("waiting", cost, _SMALLEST)
            for count, cost in content["waiting"].items()
        }
        if not waits:
            raise ValueError("waiting must have a cost")
        settings = {**content["settings"]}
        settings["unroll_length"] = int(_quantity("unroll_length", settings["unroll_length"], 1))
        return windows, waits, settings
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise UserError(f"{path}: must be a file of measurements ({one_line(error)})") from None


def _window(values: Mapping[str, Any]) -> Window:
    window = Window(
        **{
            name: _quantity(name, value, 0 if name in _MAY_BE_ZERO else _SMALLEST)
            for name, value in values.items()
        }
    )
    if window.agent_steps < window.unrolls:
        raise ValueError("agent_steps must be at least unrolls")
    return window


def _quantity(name: str, value: Any, least: float) -> Any:
    """A number of a measurement; raises ValueError if it is none."""
    if type(value) not in (int, float) or not least <= value < _LARGEST:
        raise ValueError(f"{name} must be a number of at least {least:g}")
    return value


def fit(windows: Sequence[Window], waiting: Mapping[int, float], unroll_length: int) -> Model:
    """The model by least squares; costs cannot be negative.

    Args:
      windows: at least two, of different versions per unroll and of different nodes.
      waiting: number of pending unrolls -> CPU-ms of one poll.
      unroll_length: T of the windows.
    """
    from scipy.optimize import nnls

    def solve(columns: Sequence[Sequence[float]], values: Sequence[float]) -> np.ndarray:
        # In units of the window's own unrolls, so that each window weighs the same.
        scale = np.array([window.unrolls for window in windows], float)
        matrix = np.array(columns, float).T / scale[:, None]
        return nnls(matrix, np.array(values, float) / scale)[0]

    steps = sum(window.agent_steps for window in windows)
    unrolls = [window.unrolls for window in windows]
    receiver = solve(
        [unrolls, [w.versions for w in windows]],
        [max(0.0, w.receiver_cpu - w.receiver_idle * w.seconds) for w in windows],
    )
    ray = solve([unrolls, [w.nodes * w.seconds for w in windows]], [w.ray_cpu for w in windows])
    counts = np.array(sorted(waiting), float)
    costs = np.array([waiting[int(count)] for count in counts])
    return Model(
        actor_ms=1e3 * sum(window.actor_cpu for window in windows) / steps,
        unroll_ms=1e3 * receiver[0],
        version_ms=1e3 * receiver[1],
        wait_ms_per_actor=float(counts @ costs / (counts @ counts)),
        ray_ms=1e3 * ray[0],
        ray_idle=float(ray[1]),
        bytes_per_step=sum(window.unroll_bytes for window in windows) / steps,
        weights_bytes=windows[-1].weights_bytes,
        steps_per_unroll=windows[0].agent_steps // windows[0].unrolls,
        unroll_length=unroll_length,
    )


def limits(model: Model, cluster: Cluster) -> dict[str, float]:
    """Agent steps per second that each part of a cluster allows, of all learners together."""
    learners, steps = cluster.learners, model.steps_per_unroll
    actors = cluster.actors / learners  # of one learner
    nodes = max(1.0, actors / cluster.actors_per_node)
    batch_steps = cluster.batch_size / learners * model.unroll_length
    # As if every poll found one unroll; a busy receiver finds several.
    receiver_ms = (
        model.unroll_ms
        + model.wait_ms_per_actor * actors
        + model.version_ms * min(1.0, steps / batch_steps)
    ) / steps
    # Every node fetches a version at most once, and only for an unroll that it is asked for.
    fetches_per_step = min(1.0 / steps, nodes / batch_steps)
    return {
        "actors": cluster.actors * 1e3 / (model.actor_ms * cluster.environment_factor),
        "learner": learners * cluster.learner_rate,
        "receiver": learners * 1e3 / receiver_ms,
        "network in (unrolls)": learners * cluster.link / model.bytes_per_step,
        "network out (weights)": learners * cluster.link / (fetches_per_step * model.weights_bytes),
    }


def policy_lag(model: Model, cluster: Cluster) -> float:
    """Mean number of updates between the request of an unroll and its use.

    All earlier requests come before it, whatever the bottleneck: in between are all pending
    unrolls, and the batch ahead.
    """
    environments = model.steps_per_unroll / model.unroll_length
    under_way = cluster.actors * cluster.unrolls_in_flight * environments
    return under_way / cluster.batch_size + 2.0


def weights_kept(model: Model, cluster: Cluster) -> float:
    """Bytes of old weights in the object store: a pending unroll keeps its version alive."""
    under_way = cluster.actors * cluster.unrolls_in_flight
    return min(under_way, policy_lag(model, cluster)) * model.weights_bytes


def useful_actors(model: Model, cluster: Cluster) -> int:
    """The number of actors beyond which more only increase the policy lag."""
    others = [rate for name, rate in limits(model, cluster).items() if name != "actors"]
    return int(np.ceil(min(others) * model.actor_ms * cluster.environment_factor / 1e3))


def table(model: Model, clusters: Sequence[Cluster]) -> str:
    """The predictions for each cluster, as Markdown."""
    rows = [
        "| actors | learners | agent step costs | steps/s | what saturates first "
        "| policy lag, updates | old weights kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for cluster in clusters:
        rates = limits(model, cluster)
        narrowest = min(rates, key=lambda name: rates[name])
        rate = rates[narrowest]
        rows.append(
            f"| {cluster.actors:,} | {cluster.learners} | ×{cluster.environment_factor:g} "
            f"| {rate:,.0f} | {narrowest} | {policy_lag(model, cluster):,.0f} "
            f"| {weights_kept(model, cluster) / 1e9:.2g} GB |"
        )
    return "\n".join(rows)


def plot(
    model: Model, windows: Sequence[Window], clusters: Sequence[Cluster], out: pathlib.Path
) -> None:
    """Draws the fit, and the limits of a cluster against its number of actors, as a PNG.

    Args:
      model: fitted.
      windows: that it was fitted to.
      clusters: one panel of limits for each; their number of actors is not used.
      out: the file.

    Raises:
      UserError: if matplotlib is not installed.
    """
    plots = pyplot()
    lines_of_panels = -(-(1 + len(clusters)) // 2)
    figure, axes = plots.subplots(lines_of_panels, 2, figsize=(9.5, 4.2 * lines_of_panels))
    axes = axes.flatten()
    for unused in axes[1 + len(clusters) :]:
        unused.set_visible(False)
    _plot_fit(axes[0], model, windows)
    numbers = np.geomspace(1, 20_000, 200)
    for index, (axis, cluster) in enumerate(zip(axes[1:], clusters, strict=False)):
        curves: dict[str, list[float]] = {}
        for number in numbers:
            at = dataclasses.replace(cluster, actors=float(number))  # type: ignore[arg-type]
            for name, rate in limits(model, at).items():
                curves.setdefault(name, []).append(rate)
        lines = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
        for (name, rates), colour, line in zip(curves.items(), COLOURS, lines, strict=False):
            axis.loglog(numbers, rates, color=colour, linestyle=line, label=name, linewidth=1.6)
        least = np.min(list(curves.values()), axis=0)
        axis.fill_between(numbers, least, 1, color="#000000", alpha=0.08)
        axis.set_ylim(1e2, 1e9)
        axis.set_xlim(1, 20_000)
        word = "accelerator" if cluster.learners == 1 else "accelerators"
        slow = "" if cluster.environment_factor == 1 else f", steps ×{cluster.environment_factor:g}"
        axis.set_title(f"{cluster.learners} {word}{slow}", fontsize=10)
        axis.set_xlabel("actor processes")
        axis.set_ylabel("agent steps per second, at most")
        axis.grid(alpha=0.3)
        if index == 0:
            axis.legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    save_figure(figure, out, dpi=110)
    plots.close(figure)


def _plot_fit(axis: Any, model: Model, windows: Sequence[Window]) -> None:
    """Measured and fitted CPU time per agent step."""
    steps = np.array([window.agent_steps for window in windows], float)
    unrolls, versions = ([getattr(w, name) for w in windows] for name in ("unrolls", "versions"))
    node_seconds = np.array([window.nodes * window.seconds for window in windows])
    parts = (
        ("actors", "actor_cpu", model.actor_ms * steps),
        (
            "receiver",
            "receiver_cpu",
            model.unroll_ms * np.array(unrolls)
            + model.version_ms * np.array(versions)
            + 1e3 * np.array([window.receiver_idle * window.seconds for window in windows]),
        ),
        ("Ray", "ray_cpu", model.ray_ms * np.array(unrolls) + 1e3 * model.ray_idle * node_seconds),
    )
    places = np.arange(len(windows))
    for (name, field, fitted), colour, mark in zip(parts, COLOURS, "osD", strict=False):
        measured = 1e3 * np.array([getattr(window, field) for window in windows])
        axis.plot(places, measured / steps, mark, color=colour, label=name)
        axis.plot(places, fitted / steps, color=colour, linewidth=1, alpha=0.8)
    axis.set_yscale("log")
    axis.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1.0], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    axis.set_yticks([], minor=True)
    axis.set_xticks(places, [f"{w.actors}/{w.nodes}" for w in windows], rotation=60, fontsize=8)
    axis.set_xlabel("actor processes / nodes")
    axis.set_ylabel("CPU-ms per agent step")
    axis.set_title("measured (marks) and fitted (lines)", fontsize=10)
    axis.legend(frameon=False, fontsize=8, loc="center right")
    axis.grid(alpha=0.3)
