"""An actor: steps a batch of environments and emits fixed-length unrolls.

Truncation is handled here. The last transition of an episode that a time limit cut bootstraps from
V(final observation). So the final observation is a separate state of the unroll, and the step from
it to the next episode's first observation has weight 0 (`learner/batch.py` turns the flag
`truncations` into `step_mask` 0). The environment waits for that step, so a truncation costs one
row of the unroll; no other event costs a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np

from meta_impala.actors.trajectory import Block, Episode, Unroll
from meta_impala.agent.policy import PolicyFn, PolicyInputs, Snapshot
from meta_impala.agent.shared_arrays import empty
from meta_impala.algorithm.eta_schedule import NO_DRAWS, EtaSchedule
from meta_impala.environments.base import BatchedEnvironment, Step
from meta_impala.errors import RunFailed


class Actor:
    """N environments and their state. Used by one thread at a time.

    Attributes:
      steps: made so far; the watchdog checks that it grows.
    """

    def __init__(
        self,
        index: int,
        environment: BatchedEnvironment,
        policy: PolicyFn,
        unroll_length: int,
        *,
        eta_schedule: EtaSchedule = NO_DRAWS,
        keep_actions: bool = False,
    ) -> None:
        """Args:
        index: of the actor.
        environment: is closed with the actor.
        policy: for `environment.num_envs` environments.
        unroll_length: T.
        eta_schedule: chooses the η of each unroll.
        keep_actions: whether actions since `reset` are kept for `state`.
        """
        self.index = index
        self.steps = 0
        self._environment = environment
        self._policy = policy
        self._eta_schedule = eta_schedule
        self._unroll_length = unroll_length
        self._keep_actions = keep_actions
        self._action_dtype = np.uint16 if environment.num_actions <= 2**16 else np.uint32

    def reset(self, seed: int, core_state_size: int) -> None:
        """Resets every environment, with seeds seed, seed + 1, …"""
        num_envs = self._environment.num_envs
        self._seed = seed
        self._calls = 0
        self._actions = bytearray()
        self._observations = self._environment.reset(seed)
        self._last_actions = np.zeros([num_envs], np.int32)
        self._rewards = np.zeros([num_envs], np.float32)
        self._terminations = np.zeros([num_envs], bool)
        self._truncations = np.zeros([num_envs], bool)
        # Environments that show the final observation of a truncated episode.
        self._at_final = np.zeros([num_envs], bool)
        self._core_state = np.zeros([num_envs, core_state_size], np.float32)

    @property
    def num_envs(self) -> int:
        """N."""
        return self._environment.num_envs

    def unroll(self, snapshot: Snapshot) -> Block:
        """Plays T steps with one snapshot.

        Returns:
          A block of all N environments.
        """
        length, num_envs = self._unroll_length, self._environment.num_envs
        # After an observation that is not finite the core would stay NaN until the episode's end.
        sound = np.isfinite(self._core_state).all(axis=1, keepdims=True)
        if not sound.all():
            self._core_state = np.where(sound, self._core_state, np.float32(0.0))
        # One η per environment for the whole unroll; it travels with it.
        fed, eta = snapshot.eta.values.numpy(), np.zeros([num_envs, 2], np.float32)
        if not snapshot.eta.per_state:
            fed, eta = self._eta_schedule.of_unroll(fed, num_envs, (self._seed, self._calls))
        # Newly allocated every time: the learner owns what it was given.
        result = Unroll(
            observations=empty((length + 1, *self._observations.shape), self._observations.dtype),
            last_actions=np.empty([length + 1, num_envs], np.int32),
            rewards=np.empty([length + 1, num_envs], np.float32),
            terminations=np.empty([length + 1, num_envs], bool),
            truncations=np.empty([length + 1, num_envs], bool),
            behaviour_log_probs=np.empty([length, num_envs], np.float32),
            core_state=self._core_state,
            eta=eta,
        )
        episodes: list[Episode] = []
        self._record_arrival(result, 0)
        for row in range(length):
            actions, log_probs, self._core_state = self._policy(
                snapshot.parameters,
                fed,
                PolicyInputs(
                    result.observations[row],  # the same values, in memory that needs no copy
                    self._last_actions,
                    self._rewards,
                    self._terminations | self._truncations,
                    self._core_state,
                    (self._seed, self._calls),
                ),
            )
            step = self._step(actions)
            result.behaviour_log_probs[row] = log_probs
            self._record_arrival(result, row + 1)
            episodes += [
                Episode(float(step.episode_returns[i]), int(step.episode_frames[i]))
                for i in np.flatnonzero(step.episode_ends)
            ]
        return Block(result, snapshot.version, tuple(episodes), self.index)

    def _step(self, actions: np.ndarray) -> Step:
        self._calls += 1
        step = self._environment.step(actions, waiting=self._at_final)
        self.steps += 1
        if self._keep_actions:
            self._actions += actions.astype(self._action_dtype).tobytes()
        # Those that waited arrive at their next episode's first observation.
        self._truncations, self._at_final = self._at_final, step.truncations
        self._observations, self._last_actions = step.observations, actions
        if self._at_final.any():
            assert step.final_observations is not None, "an episode ended"
            self._observations = step.observations.copy()
            self._observations[self._at_final] = step.final_observations[self._at_final]
        self._rewards, self._terminations = step.rewards, step.terminations
        return step

    def _record_arrival(self, unroll: Unroll, row: int) -> None:
        unroll.observations[row] = self._observations
        unroll.last_actions[row] = self._last_actions
        unroll.rewards[row] = self._rewards
        unroll.terminations[row] = self._terminations
        unroll.truncations[row] = self._truncations

    def replace_environment(
        self, make_environment: Callable[[], BatchedEnvironment], seed: int
    ) -> None:
        """Continues with new environments, with seeds seed, seed + 1, …"""
        with contextlib.suppress(Exception):  # it is broken
            self._environment.close()
        self._environment = make_environment()
        self.reset(seed, self._core_state.shape[1])

    def state(self) -> dict[str, np.ndarray]:
        """The actor's state between two unrolls, as `replay` needs it."""
        actions = np.frombuffer(bytes(self._actions), self._action_dtype)
        return {
            "seed": np.array([self._seed], np.int64),
            "actions": actions.reshape([self._calls, self._environment.num_envs]),
            "core_state": self._core_state,
            "observations": self._observations,
        }

    def replay(self, state: Mapping[str, np.ndarray], should_stop: Callable[[], bool]) -> bool:
        """Restores `state` by the same seed and the same actions.

        Emulators cannot save their state, but the same actions lead to it again.

        Returns:
          Whether it is restored: False if `should_stop` was true on the way.

        Raises:
          RunFailed: if the same actions led to other observations.
        """
        self.reset(int(state["seed"][0]), state["core_state"].shape[1])
        for actions in state["actions"]:
            if should_stop():
                return False
            self._step(actions.astype(np.int32))
        self._core_state = state["core_state"]
        if not np.array_equal(self._observations, state["observations"], equal_nan=True):
            raise RunFailed(
                "the same seed and actions did not lead to the same observations again: this "
                "environment cannot be continued with --deterministic"
            )
        return True

    def close(self) -> None:
        """Closes the environments."""
        self._environment.close()
