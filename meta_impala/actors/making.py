"""Environments of an actor: made, seeded, and for the first actor started early. No TensorFlow.

An emulator takes 0.1 to 0.2 s to make, which holds Python's lock, and as long to start, which does
not. So the first actor's are made before TensorFlow is imported, and start while it is.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from meta_impala.config import ActorSettings, RunSettings
from meta_impala.environments import BatchedEnvironment, registry
from meta_impala.system.ending import ForeignCodeThread, ended_program


def actor_seed(seed: int, updates: int, actor: int, num_envs: int, restarts: int = 0) -> int:
    """Seed of the first environment of an actor that starts after `updates` learner updates.

    Environments i of an actor take seed + i, so the seeds of two actors are `num_envs` apart.
    `restarts` distinguishes starts after the same update.
    """
    entropy = [seed, updates, restarts] if restarts else [seed, updates]
    state = np.random.SeedSequence(entropy).generate_state(1)
    return int(state[0] % 2**29) + actor * num_envs


def make_environment(run: RunSettings, actors: ActorSettings) -> BatchedEnvironment:
    """The environments of one actor; the settings are resolved."""
    return registry.make(
        run.environment,
        actors.envs_per_actor,
        run.protocol,
        num_threads=actors.env_threads,
        environment_kwargs=run.environment_arguments,
    )


class EarlyEnvironment:
    """Environments that are made here, and started in a thread with a seed that is expected.

    `reset` waits for that thread if it is given the same seed, and is the environment's own
    otherwise; everything else is the environment's.
    """

    def __init__(self, environment: BatchedEnvironment, seed: int | None) -> None:
        """Args:
        environment: to be closed with this.
        seed: to start it with; None if it is not known yet.
        """
        self._environment = environment
        self.step = environment.step
        self._seed = seed
        self._observations: np.ndarray | None = None
        self._error: BaseException | None = None
        self._thread = ForeignCodeThread("early start of actor-0")
        if seed is not None:
            self._thread.run = self._start  # type: ignore[method-assign]
            self._thread.start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def as_environment(self) -> BatchedEnvironment:
        """Itself, for those that take an environment."""
        return cast(BatchedEnvironment, self)

    def _start(self) -> None:
        assert self._seed is not None
        try:
            self._observations = self._environment.reset(self._seed)
        except BaseException as error:  # noqa: BLE001 - raised again by `reset`
            self._error = error

    def reset(self, seed: int) -> np.ndarray:
        """As `BatchedEnvironment.reset`."""
        if self._thread.ident is not None:
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error if isinstance(error, Exception) else ended_program(error) from error
        observations, self._observations = self._observations, None
        if observations is not None and seed == self._seed:
            return observations
        return self._environment.reset(seed)

    def close(self) -> None:
        """As `BatchedEnvironment.close`; not while it is starting."""
        if self._thread.ident is not None:
            self._thread.join()
        self._environment.close()


def early_environment(
    run: RunSettings, actors: ActorSettings, *, is_new: bool
) -> EarlyEnvironment | None:
    """The first actor's environments, if making them early is worth it: emulators in threads.

    Args:
      run, actors: resolved.
      is_new: whether the run begins; where a continued one stands is not known yet.
    """
    if actors.actors != "threads" or registry.resolve(run.environment).game is None:
        return None
    seed = actor_seed(run.seed, 0, 0, actors.envs_per_actor) if is_new else None
    return EarlyEnvironment(make_environment(run, actors), seed)
