"""Costs of each part of the program on this machine: the measurements of `benchmark`.

A measurement is a number of windows; the median is reported. Costs are CPU time of
the whole process per agent step, which other work on the machine disturbs less than wall time.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
import tensorflow as tf

from meta_impala.actors.actor import Actor
from meta_impala.actors.making import actor_seed, make_environment
from meta_impala.actors.startup import make_actor
from meta_impala.actors.trajectory import Unroll, concatenate
from meta_impala.agent.policy import Policy, PolicyInputs, Snapshot
from meta_impala.benchmarks.operation_profile import milliseconds_by_operation
from meta_impala.config import (
    ActingSettings,
    ActorSettings,
    AgentSettings,
    Config,
    RunSettings,
    resolve,
    resolve_network,
)
from meta_impala.environments import Description, registry
from meta_impala.environments.atari import AtariEnvironment
from meta_impala.learner.learner import Learner
from meta_impala.learner.make_learner import make_learner, reserve_memory
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest
from meta_impala.system.tensorflow_setup import configure_tensorflow
from meta_impala.system.timing import RunStopwatches, Stopwatch
from meta_impala.training.trainer import Trainer

# (threads, environments) among which the best is searched.
CEILING_SHAPES = tuple((threads, count) for threads in (1, 2) for count in (8, 16, 32, 64))
QUICK_SHAPES = ((1, 16),)
_PROFILED_UPDATES = 5


class Effort(NamedTuple):
    """How long to measure: windows, seconds of each, and seconds of warm-up before."""

    windows: int
    seconds: float
    warm_up: float


class Cost(NamedTuple):
    """One row of the table.

    Attributes:
      frames_per_second: environment frames, by wall time.
      cpu_ms_per_agent_step: CPU time of all threads.
      peak_rss_mib: of the process that measured it.
      details: where the time goes, and how it was measured.
    """

    frames_per_second: float
    cpu_ms_per_agent_step: float
    peak_rss_mib: float
    details: dict[str, Any]


class _Sample(NamedTuple):
    agent_steps: float
    wall: float
    cpu: float


def _now(agent_steps: float) -> _Sample:
    return _Sample(agent_steps, time.perf_counter(), time.process_time())


def peak_rss_mib() -> float:
    """The peak memory of this process."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            (line,) = (line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        return psutil.Process().memory_info().rss / 2**20


def _cost(samples: list[_Sample], action_repeat: int, details: dict[str, Any]) -> Cost:
    pairs = list(zip(samples[:-1], samples[1:], strict=True))
    speeds = [(b.agent_steps - a.agent_steps) / (b.wall - a.wall) for a, b in pairs]
    costs = [1e3 * (b.cpu - a.cpu) / (b.agent_steps - a.agent_steps) for a, b in pairs]
    return Cost(
        frames_per_second=action_repeat * statistics.median(speeds),
        cpu_ms_per_agent_step=statistics.median(costs),
        peak_rss_mib=peak_rss_mib(),
        details=details,
    )


def _measure(work: Callable[[], int], effort: Effort) -> list[_Sample]:
    """Samples of repeated work that returns how many steps it was."""
    end = time.perf_counter() + effort.warm_up
    work()
    while time.perf_counter() < end:
        work()
    steps, samples = 0, [_now(0)]
    while len(samples) <= effort.windows:
        steps += work()
        if time.perf_counter() >= samples[-1].wall + effort.seconds:
            samples.append(_now(steps))
    return samples


def describe(config: Config) -> tuple[Config, Description]:
    """The config with its network chosen, and the environment's description."""
    config = resolve(config)
    description = registry.describe(
        config.environment, config.protocol, config.environment_arguments
    )
    return resolve_network(config, description.observation_shape), description


def environment(
    config: Config, effort: Effort, shapes: Sequence[tuple[int, int]] = CEILING_SHAPES
) -> Cost:
    """The upper limit: the emulator stepped with random actions, in its fastest shape.

    Returns:
      Its cost, with all shapes in `details`.
    """
    costs = [environment_of(config, count, threads, effort) for threads, count in shapes]
    fastest = max(costs, key=lambda cost: cost.frames_per_second)
    tried = [
        {**cost.details, "cpu_ms_per_agent_step": cost.cpu_ms_per_agent_step} for cost in costs
    ]
    return fastest._replace(details={**fastest.details, "shapes": tried})


def environment_of(config: Config, count: int, threads: int, effort: Effort) -> Cost:
    """A number of environments on a number of threads."""
    made = registry.make(
        config.environment,
        count,
        config.protocol,
        num_threads=threads,
        environment_kwargs=config.environment_arguments,
    )
    made.reset(config.seed)
    random = np.random.default_rng(config.seed)
    actions = random.integers(0, made.num_actions, (1024, count), np.int32)
    # The bare emulator, without this program's additions.
    stepped: Any = made.emulators if isinstance(made, AtariEnvironment) else made
    position = 0

    def work() -> int:
        nonlocal position
        stepped.step(actions[position])
        position = (position + 1) % len(actions)
        return count

    samples = _measure(work, effort)
    made.close()
    return _cost(samples, made.action_repeat, {"environments": count, "threads": threads})


def _actors(
    config: Config, learner: Learner, description: Description, stopwatches: RunStopwatches
) -> list[Actor]:
    policy = Policy(
        learner.state.network, config.part(AgentSettings), description, config.envs_per_actor
    )
    actors = []
    for index in range(config.num_actors):
        made = make_environment(config.part(RunSettings), config.part(ActorSettings))
        actor = make_actor(
            index, config.part(ActingSettings), policy, made, stopwatch=stopwatches.of_actor()
        )
        seed = actor_seed(config.seed, 0, index, config.envs_per_actor)
        actor.reset(seed, learner.state.network.settings.core_state_size)
        actors.append(actor)
    return actors


def environment_inference(config: Config, effort: Effort) -> Cost:
    """All actors playing, no learner."""
    configure_tensorflow(deterministic=config.deterministic)
    config, description = describe(config)
    learner = make_learner(config, description)
    snapshot, done, stop = learner.snapshot(), [0] * config.num_actors, threading.Event()
    stopwatches = RunStopwatches()
    actors = _actors(config, learner, description, stopwatches)

    def play(index: int) -> None:
        unroll = stopwatches.actors[index].timed("unroll", actors[index].unroll)
        while not stop.is_set():
            unroll(snapshot)
            done[index] += config.unroll_length * config.envs_per_actor

    threads = [threading.Thread(target=play, args=[i]) for i in range(config.num_actors)]
    for thread in threads:
        thread.start()
    samples: list[_Sample] = []
    for sample in _sample(lambda: sum(done), effort):
        if not samples:
            stopwatches.restart()
        samples.append(sample)
    details = {"actors": _shares(stopwatches)}
    stop.set()
    for thread in threads:
        thread.join()
    for actor in actors:
        actor.close()
    return _cost(samples, description.action_repeat, details)


def _sample(agent_steps: Callable[[], float], effort: Effort) -> Iterator[_Sample]:
    """Samples of the work of other threads, once it has started.

    Steps are counted by the unroll or the update; a sample is taken when one is counted, so that
    windows hold whole ones.
    """

    def as_one_is_counted() -> _Sample:
        before = agent_steps()
        while (now := agent_steps()) == before:
            time.sleep(0.002)
        return _now(now)

    as_one_is_counted()
    time.sleep(effort.warm_up)
    yield as_one_is_counted()
    for _ in range(effort.windows):
        time.sleep(effort.seconds)
        yield as_one_is_counted()


class _RandomPolicy:
    """Random actions, in the place of an actor's policy: no network is needed for its unrolls."""

    def __init__(self, num_actions: int, seed: int) -> None:
        self._num_actions = num_actions
        self._random = np.random.default_rng(seed)

    def __call__(
        self, parameters: Sequence[tf.Tensor], eta: np.ndarray, inputs: PolicyInputs
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        count = len(inputs.last_actions)
        actions = self._random.integers(0, self._num_actions, count, np.int32)
        log_probs = np.full(count, -np.log(self._num_actions), np.float32)
        return actions, log_probs, inputs.core_state


_ENVIRONMENTS_OF_BATCHES = 4


def _batches(config: Config, snapshot: Snapshot, core_state_size: int) -> list[Unroll]:
    """Two batches of the game, from as few environments as possible: they take long to make."""
    count = math.gcd(config.batch_size, _ENVIRONMENTS_OF_BATCHES)
    made = registry.make(
        config.environment, count, config.protocol, environment_kwargs=config.environment_arguments
    )
    policy = _RandomPolicy(made.num_actions, config.seed)
    actor = make_actor(0, config.part(ActingSettings), policy, made)
    actor.reset(config.seed, core_state_size)
    batches = []
    for _ in range(2):
        blocks = [actor.unroll(snapshot) for _ in range(config.batch_size // count)]
        batches.append(Unroll(*map(tf.constant, concatenate(blocks))))
    actor.close()
    return batches


def learner_update(config: Config, effort: Effort, *, profiled: bool = False) -> Cost:
    """The learner alone, on unrolls of the game; with the profile of an update, if asked for."""
    configure_tensorflow(deterministic=config.deterministic)
    config, description = describe(config)
    reserve_memory(config, description)
    learner = make_learner(config, description)
    core_state_size = learner.state.network.settings.core_state_size
    batches = _batches(config, learner.snapshot(), core_state_size)
    updates = 0

    def work() -> int:
        """The updates of one meta step."""
        nonlocal updates
        for _ in range(config.inner_steps):
            ahead = [batches[(updates + k) % 2] for k in range(1, config.bootstrap_steps + 1)]
            learner.update(batches[updates % 2], ahead, updates, 0)
            updates += 1
        return config.inner_steps * config.batch_size * config.unroll_length

    samples = _measure(work, effort)
    cost = _cost(samples, description.action_repeat, {"updates": updates})
    if profiled:  # last: the profiler's own memory is not the learner's
        profile = milliseconds_by_operation(work, _PROFILED_UPDATES)
        cost = cost._replace(details={**cost.details, "operations_ms": profile})
    return cost


# Ended by the measurement.
_ENDLESS = 10**12


def _shares(stopwatches: RunStopwatches) -> dict[str, float]:
    """Mean shares of the actors' time; the rest of an unroll is bookkeeping."""
    mean = {"environment": 0.0, "inference": 0.0}  # the order in which they are said
    for stopwatch in stopwatches.actors:
        for name, share in stopwatch.shares().items():
            mean[name] = mean.get(name, 0.0) + share / len(stopwatches.actors)
    unroll = mean.pop("unroll", 0.0)
    mean["assembling"] = max(0.0, unroll - mean["environment"] - mean["inference"])
    mean["waiting"] = max(0.0, 1.0 - unroll)
    return mean


def program(config: Config, effort: Effort) -> Cost:
    """The whole program, in its own run folder."""
    configure_tensorflow(deterministic=config.deterministic)
    endless = dataclasses.replace(config, checkpoint_minutes=0.0, total_frames=_ENDLESS)
    config, description = describe(endless)
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(path)
        folder.prepare()
        folder.save_config(config)
        stop, stopwatches = StopRequest(), RunStopwatches()
        trainer = Trainer(config, description, folder, stop, stopwatches=stopwatches)
        samples: list[_Sample] = []

        def watch() -> None:
            steps = _sample(lambda: trainer.frames / description.action_repeat, effort)
            for sample in steps:
                if not samples:
                    stopwatches.restart()
                samples.append(sample)
            details["learner"] = _learner_shares(stopwatches.learner)
            details["actors"] = _shares(stopwatches)
            details["policy_lag"] = trainer.policy_lag
            stop.request("the end of the measurement")

        details: dict[str, Any] = {}
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        trainer.run()
        watcher.join()
    return _cost(samples, description.action_repeat, details)


def _learner_shares(stopwatch: Stopwatch) -> dict[str, float]:
    shares = stopwatch.shares()
    waiting = shares.get("waiting", 0.0)
    assembling = max(0.0, shares.get("next batch", 0.0) - waiting)
    update = shares.get("update", 0.0)
    return {
        "update": update,
        "assembling": assembling,
        "waiting": waiting,
        "other": max(0.0, 1.0 - update - assembling - waiting),
    }
