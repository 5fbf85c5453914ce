"""Measures what actors on Ray cost on this machine, and predicts what a cluster does.

    python tools/scaling_plan.py measure --out=scaling.json
    python tools/scaling_plan.py plan --out=scaling.png scaling.json
    python tools/scaling_plan.py transport Pong Seaquest Breakout

`measure` plays real Pong with 1 to 8 actor processes, on one and on several simulated nodes, all on
this machine's loopback device. `plan` fits the model, prints it with its predictions, and draws
both. The rate of a learner and the speed of the network are assumptions, and flags. `transport`
prints what the ways to send observations cost.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import time
from typing import Any

from absl import flags

from meta_impala import command
from meta_impala.benchmarks import scaling
from meta_impala.config import Config, resolve, resolve_network
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import MAX_COUNT, define_float
from meta_impala.environments import (
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import UserError
from meta_impala.storage.files import write_atomically
from meta_impala.storage.results_folder import check_file
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.tensorflow_import import import_tensorflow
from meta_impala.system.user_path import define_path, user_path

_WAITS = (100, 1_000, 10_000)

FLAGS = flags.FLAGS

POSITIONAL = "measure | plan FILE | transport GAME ..."


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "File to write: measurements (JSON) or the plot (PNG).")
    define_float("seconds", 12.0, "Length of a window of measurement.", low=1, high=3600)
    flags.DEFINE_string("environment", "Pong", "What is played.")
    define_list("shapes", ["1x1", "2x1", "4x1", "8x1", "8x4"], "ACTORSxNODES, …")
    flags.DEFINE_list("publish_every", ["2", "40"], "Unrolls per version of the weights.")
    define_float(
        "learner_rate",
        25_000.0,
        "Agent steps per second of one accelerator: an assumption.",
        low=1,
        high=10**9,
    )
    define_float(
        "gigabits", 10.0, "Link of a learner's machine, per second.", low=1e-3, high=MAX_COUNT
    )
    define_float(
        "slow",
        100.0,
        "Cost of a step in a slow environment, as a multiple of the measured one.",
        low=1e-3,
        high=MAX_COUNT,
    )


def _shapes() -> list[tuple[int, int]]:
    shapes = []
    for text in FLAGS.shapes:
        match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text, re.ASCII)
        # Otherwise a node has no room for its share of the actors, and they are waited for.
        if match is None or int(match[1]) % int(match[2]):
            raise UserError(
                f"--shapes={text}: must be ACTORSxNODES with as many actors on each node, for "
                "example 8x4"
            )
        shapes.append((int(match[1]), int(match[2])))
    return shapes


def _measure() -> None:
    shapes = _shapes()
    publish_every = tuple(command.whole_numbers("publish_every", FLAGS.publish_every, least=1))
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # loopback addresses stay what they are
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    config = resolve(Config(environment=FLAGS.environment, meta_parameters="gamma,lambda"))
    try:
        description = registry.describe(
            config.environment, config.protocol, config.environment_arguments
        )
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"--environment={config.environment}: {error}") from None
    import_tensorflow()
    from meta_impala.benchmarks import ray_throughput as ray_benchmark
    from meta_impala.system.tensorflow_setup import configure_tensorflow

    configure_tensorflow(deterministic=config.deterministic)
    config = resolve_network(config, description.observation_shape)
    windows: list[scaling.Window] = []
    loads = [os.getloadavg()[0]]
    for actors, nodes in shapes:
        found = ray_benchmark.measure(
            dataclasses.replace(config, num_actors=actors),
            description,
            nodes=nodes,
            publish_every=publish_every,
            seconds=FLAGS.seconds,
        )
        loads.append(os.getloadavg()[0])
        for window in found:
            command.say(str(window))
        windows += found
    content: dict[str, Any] = {
        "format": scaling.FORMAT,
        "settings": {
            "environment": config.environment,
            "network": config.network,
            "envs_per_actor": config.envs_per_actor,
            "unroll_length": config.unroll_length,
            "cores": os.cpu_count(),
            "load": loads,
            "time": time.strftime("%Y-%m-%d"),
        },
        "windows": [window._asdict() for window in windows],
        "waiting": ray_benchmark.waiting_costs(_WAITS),
    }
    write_atomically(pathlib.Path(FLAGS.out), json.dumps(content, indent=1) + "\n")
    command.say(f"wrote {FLAGS.out}")


def _plan(path: str) -> None:
    windows, waiting, settings = scaling.read(pathlib.Path(path))
    model = scaling.fit(windows, waiting, settings["unroll_length"])
    command.say(f"measured: {settings}")
    for name, value in dataclasses.asdict(model).items():
        command.say(f"  {name:>18} {value:.6g}")
    cases = [
        scaling.Cluster(
            actors=0,
            learners=learners,
            learner_rate=FLAGS.learner_rate,
            link=FLAGS.gigabits * 1e9 / 8,
            environment_factor=factor,
        )
        for learners, factor in ((1, 1.0), (8, 1.0), (8, FLAGS.slow))
    ]
    clusters = [
        dataclasses.replace(case, actors=actors)
        for case in [*cases[:1], dataclasses.replace(cases[0], environment_factor=FLAGS.slow)]
        + cases[1:]
        for actors in (100, 1_000, 10_000)
    ]
    command.say(scaling.table(model, clusters))
    for case in cases:
        useful = scaling.useful_actors(model, dataclasses.replace(case, actors=1_000))
        command.say(
            f"{case.learners} learners, steps ×{case.environment_factor:g}: "
            f"more than {useful:,} actors do not help"
        )
    scaling.plot(model, windows, cases, pathlib.Path(FLAGS.out))
    command.say(f"wrote {FLAGS.out}")


def _transport(games: list[str]) -> None:
    for game in games:
        registry.resolve(game)
    from meta_impala.benchmarks import wire_cost as transport_benchmark

    command.say("| game | observations as | bytes per frame | send, CPU-ms per step | receive |")
    command.say("|---|---|---|---|---|")
    for game in games:
        for form in transport_benchmark.forms(game):
            command.say(
                f"| {game} | {form.name} | {form.num_bytes / 4:,.0f} | {form.send_ms:.3f} "
                f"| {form.receive_ms:.3f} |"
            )


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if arguments[:1] == ["transport"] and arguments[1:]:
        _transport(arguments[1:])
    elif not FLAGS.out:
        raise UserError("--out: must be given, the file to write")
    elif arguments == ["measure"]:
        check_file(pathlib.Path(FLAGS.out), "out", ".json")
        raise_on_interrupt()  # Ray's processes have to be ended
        _measure()
    elif len(arguments) == 2 and arguments[0] == "plan":
        check_file(pathlib.Path(FLAGS.out), "out", ".png")
        _plan(str(user_path(arguments[1])))
    else:
        raise UserError("give measure, plan FILE, or transport GAME …")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
