"""The floor of a machine: the least CPU time that an agent step can cost here.

floor = the emulator alone, at its cheapest shape
      + operations of the network / rate of a large matrix product (float32, on one core).

The floor is below what any program reaches: it moves no memory, converts nothing, does no
bookkeeping, and layers of a network are smaller than a large product. Beside it stands the same
with the time that TensorFlow's kernels take for the layers, measured alone (`network_kernels`):
what a program that runs only these kernels reaches.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from meta_impala.agent.builders import drawn_eta_of, make_network
from meta_impala.agent.policy import Policy
from meta_impala.benchmarks import network_kernels, network_operations
from meta_impala.benchmarks.network_operations import Passes
from meta_impala.benchmarks.throughput import describe
from meta_impala.config import AgentSettings, Config
from meta_impala.system import huge_pages
from meta_impala.system.processors import processors
from meta_impala.system.tensorflow_setup import configure_tensorflow

_SIDE = 1536  # of the matrices: 28 MB in all, beyond every cache but the last
_WINDOWS = 5
_RESERVED = 2**29


class Rate(NamedTuple):
    """Rate of a large float32 product of matrices, in 10⁹ operations per second of CPU time.

    Attributes:
      one_core: while the other cores are free.
      all_cores: of one core while every core does the same.
    """

    one_core: float
    all_cores: float


def _rate(threads: int, seconds: float) -> float:
    matrix = tf.random.stateless_normal([_SIDE, _SIDE], seed=[0, 0])
    products = [0] * threads
    end = time.perf_counter() + seconds

    def multiply(index: int) -> None:
        while time.perf_counter() < end:
            tf.linalg.matmul(matrix, matrix).numpy()
            products[index] += 1

    workers = [threading.Thread(target=multiply, args=[index]) for index in range(threads)]
    before = time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return 2e-9 * _SIDE**3 * sum(products) / (time.process_time() - before)


def rate_of_products(seconds: float) -> Rate:
    """The median of some windows, with one thread in every operation.

    Args:
      seconds: of a window.
    """
    _rate(1, 0.2)  # its first call also makes oneDNN's plan
    one, every = [], []
    for _ in range(_WINDOWS):
        one.append(_rate(1, seconds))
        every.append(_rate(processors(), seconds))
    return Rate(statistics.median(one), statistics.median(every))


def machine(configs: Mapping[str, Config], seconds: float) -> dict[str, Any]:
    """Rate of the machine, and what the network takes; in a process of its own.

    Args:
      configs: `meta`, of the program with the meta-gradient, and if asked for `plain`.
      seconds: of a window.

    Returns:
      `gigaflops_one_core`, `gigaflops_all_cores`, `sample_reuse`, and per agent step of a batch, of
      `inference`, `inference_plain`, `update_plain` and `update_meta` as far as they are known:
      `operations_per_agent_step` and `kernel_ms_per_agent_step`, CPU time of TensorFlow's kernels
      alone. `no_update_meta` says why there is no `update_meta`; it is empty if there is.
    """
    # One thread in an operation, whatever the machine: the rate is of a core.
    configure_tensorflow(deterministic=configs["meta"].deterministic)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    huge_pages.reserve(_RESERVED)  # as for an update
    rate = rate_of_products(seconds)
    operations: dict[str, float] = {}
    kernels: dict[str, float] = {}
    known: dict[tuple[int, Passes], Passes] = {}
    for kind, config in configs.items():
        acting, learning = _passes(config, known, seconds)
        operations |= _parts(kind, acting[0], learning[0], config)
        kernels |= _parts(kind, acting[1], learning[1], config)
    return {
        "gigaflops_one_core": rate.one_core,
        "gigaflops_all_cores": rate.all_cores,
        "sample_reuse": configs["meta"].sample_reuse,
        "operations_per_agent_step": operations,
        "kernel_ms_per_agent_step": kernels,
        "no_update_meta": network_operations.why_not_counted(configs["meta"]),
    }


def _passes(
    config: Config, known: dict[tuple[int, Passes], Passes], seconds: float
) -> list[tuple[Passes, Passes]]:
    """Operations and kernels' CPU-ms per state: of the policy that acts, and of the learner.

    Kernels that are `known` for as many states and operations are not measured again.
    """
    config, description = describe(config)
    settings = config.part(AgentSettings)
    network = make_network(settings, description)
    is_one_eta = not config.eta_is_per_state and not drawn_eta_of(settings).is_drawn
    found = []
    for states, one_eta in (
        (config.envs_per_actor, False),
        (config.batch_size * (config.unroll_length + 1), is_one_eta),
    ):
        policy = Policy(network, settings, description, states)
        in_graph = network_operations.contractions(
            policy, len(network.trainable_variables), one_eta=one_eta
        )
        counted = network_operations.count(in_graph, states)
        if (states, counted) not in known:
            known[states, counted] = network_kernels.measure(in_graph, states, seconds)
        found.append((counted, known[states, counted]))
    return found


def _parts(kind: str, acting: Passes, learning: Passes, config: Config) -> dict[str, float]:
    """Of an agent step, from the passes of a state; what is not counted is left out."""
    if kind == "plain":
        update = network_operations.of_update(learning, config, meta=False)
        return {"inference_plain": acting.forward, "update_plain": update}
    parts = {"inference": acting.forward}
    if not network_operations.why_not_counted(config):
        parts["update_meta"] = network_operations.of_update(learning, config, meta=True)
    return parts


def roofline(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The floor beside what was measured, in CPU-ms per agent step.

    Args:
      machine: as `machine` returns it.
      rows: of the benchmark, of the same run; parts whose rows are missing are left out.

    Returns:
      `machine` and `parts`: name -> `floor`, `kernels` (the floor with the network's time in
      TensorFlow's kernels), `measured`, `share_of_roofline` (floor / measured), and
      `attainable_share` (floor / kernels). `without_floor` names the rows that have none.
    """
    cost = {row["name"]: row["cpu_ms_per_agent_step"] for row in rows}
    kernels = machine["kernel_ms_per_agent_step"]
    floors = {
        name: 1e-6 * operations / machine["gigaflops_one_core"]
        for name, operations in machine["operations_per_agent_step"].items()
    }
    parts, without_floor = {}, []

    def add(name: str, measured: float | None, environment: float | None, *of: str) -> None:
        """A part: the emulator's time, and that of some parts of the network."""
        if measured is None or environment is None:
            return
        if not floors.keys() >= set(of):
            without_floor.append(name)
            return
        floor = environment + sum(floors[part] for part in of)
        attainable = environment + sum(kernels[part] for part in of)
        parts[name] = {
            "floor": floor,
            "kernels": attainable,
            "measured": measured,
            "share_of_roofline": floor / measured if measured > 0 else None,
            "attainable_share": floor / attainable,
        }

    emulator = _cheapest(rows)
    playing = cost.get("environment_inference")
    add("emulator", cost.get("environment"), emulator)
    add("inference", _less(playing, emulator), 0.0, "inference")
    add("emulator and inference", playing, emulator, "inference")
    for name, measured in cost.items():
        if name.startswith("learner_"):
            add(name, measured, 0.0, "update_plain" if name == "learner_plain" else "update_meta")
        if name.startswith("program_"):
            is_plain = name == "program_plain"
            # Frames of a batch count once, whatever the number of updates on it.
            updates = ["update_plain" if is_plain else "update_meta"] * machine["sample_reuse"]
            acting = "inference_plain" if is_plain else "inference"
            add(name, measured, emulator, acting, *updates)
    return {**machine, "parts": parts, "without_floor": without_floor}


def _cheapest(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """CPU-ms of a step of the emulator in its cheapest shape."""
    for row in rows:
        if row["name"] == "environment":
            return min(shape["cpu_ms_per_agent_step"] for shape in row["details"]["shapes"])
    return None


def _less(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part


_WORDS = {
    "emulator": "the emulator, in the shape that plays most frames",
    "inference": "choosing actions and assembling unrolls",
    "emulator and inference": "actors without a learner",
    "learner_plain": "an update, nothing learned of η",
    "learner_nested_tapes": "an update with the meta-gradient, nested tapes",
    "learner_reverse_over_forward": "an update with the meta-gradient, reverse over forward",
    "program_plain": "the program, nothing learned of η",
    "program_meta": "the program with the meta-gradient",
}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table in words."""
    one, every = found["gigaflops_one_core"], found["gigaflops_all_cores"]
    text = [
        "The least that this machine can do, and what it takes (CPU-ms per agent step).",
        f"A large float32 product runs at {one:.0f} GFLOP/s on one core ({every:.0f} while all "
        "cores compute); the floor of the network is its operations at the first rate.",
        "kernels: the floor with the time of TensorFlow's kernels for the network's convolutions "
        "and products, each alone; share: floor / takes; most: floor / kernels.",
        f"{'':58} {'floor':>8} {'kernels':>8} {'takes':>8} {'share':>7} {'most':>7}",
    ]
    for name, part in found["parts"].items():
        share = part["share_of_roofline"]
        text.append(
            f"{_WORDS[name]:58} {part['floor']:8.4f} {part['kernels']:8.4f} "
            f"{part['measured']:8.4f} {'–' if share is None else f'{share:.2f}':>7} "
            f"{part['attainable_share']:7.2f}"
        )
    if found["without_floor"]:
        text.append(
            f"without a floor: {', '.join(found['without_floor'])} ({found['no_update_meta']})"
        )
    return text
