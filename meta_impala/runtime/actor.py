"""An actor: environments stepped as a batch, unrolls cut from their life, handed to the queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from meta_impala.agent import Policy, Snapshot
from meta_impala.algorithm.eta_schedule import EtaSchedule
from meta_impala.environments.base import BatchedEnvironment
from meta_impala.runtime.trajectory import Block, Episode, Unroll, split
from meta_impala.runtime.trajectory_queue import QueueClosed, TrajectoryQueue


def actor_seed(seed: int, updates: int, actor: int, num_envs: int) -> int:
    """Seed of the first environment of an actor that starts after so many learner updates.

    Environments i of an actor take seed + i, so the seeds of two actors lie `num_envs` apart.
    """
    state = np.random.SeedSequence([seed, updates]).generate_state(1)
    return int(state[0] % 2**29) + actor * num_envs


class Actor:
    """N environments and where they stand. Stateful, used by one thread at a time."""

    def __init__(
        self,
        index: int,
        environment: BatchedEnvironment,
        policy: Policy,
        unroll_length: int,
        eta_schedule: EtaSchedule,
    ) -> None:
        self.index = index
        self._environment = environment
        self._policy = policy
        self._eta_schedule = eta_schedule
        self._unroll_length = unroll_length

    def reset(self, seed: int, core_state_size: int) -> None:
        """Starts every environment anew, from seeds seed, seed + 1, …"""
        num_envs = self._environment.num_envs
        self._seed = seed
        self._calls = 0
        self._observations = self._environment.reset(seed)
        self._last_actions = np.zeros([num_envs], np.int32)
        self._rewards = np.zeros([num_envs], np.float32)
        self._terminations = np.zeros([num_envs], bool)
        self._truncations = np.zeros([num_envs], bool)
        self._core_state = np.zeros([num_envs, core_state_size], np.float32)

    def unroll(self, snapshot: Snapshot) -> Block:
        """Plays T steps with one snapshot.

        Returns:
          A block of all N environments.
        """
        length, num_envs = self._unroll_length, self._environment.num_envs
        # One η per environment for the whole unroll; it travels with it.
        fed, eta = self._eta_schedule.of_unroll(
            snapshot.eta.numpy(), num_envs, (self._seed, self._calls)
        )
        # Newly allocated every time: the learner owns what it was given.
        result = Unroll(
            observations=np.empty(
                [length + 1, *self._observations.shape], self._observations.dtype
            ),
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
                self._observations,
                self._last_actions,
                self._rewards,
                self._terminations | self._truncations,
                self._core_state,
                (self._seed, self._calls),
            )
            self._calls += 1
            step = self._environment.step(actions)
            result.behaviour_log_probs[row] = log_probs
            self._observations, self._last_actions = step.observations, actions
            self._rewards = step.rewards
            self._terminations, self._truncations = step.terminations, step.truncations
            self._record_arrival(result, row + 1)
            episodes += [
                Episode(float(step.episode_returns[i]), int(step.episode_frames[i]))
                for i in np.flatnonzero(step.episode_ends)
            ]
        return Block(result, snapshot.version, tuple(episodes), self.index)

    def _record_arrival(self, unroll: Unroll, row: int) -> None:
        unroll.observations[row] = self._observations
        unroll.last_actions[row] = self._last_actions
        unroll.rewards[row] = self._rewards
        unroll.terminations[row] = self._terminations
        unroll.truncations[row] = self._truncations

    def close(self) -> None:
        """Closes the environments."""
        self._environment.close()


class ActorThread(threading.Thread):
    """Runs an actor until the queue is closed; any exception closes the queue with it."""

    def __init__(
        self,
        actor: Actor,
        latest_snapshot: Callable[[], Snapshot],
        queue: TrajectoryQueue[Block],
        block_size: int,
        put_timeout: float,
    ) -> None:
        super().__init__(name=f"actor-{actor.index}", daemon=True)
        self._actor = actor
        self._latest_snapshot = latest_snapshot
        self._queue = queue
        self._block_size = block_size
        self._put_timeout = put_timeout

    def run(self) -> None:
        try:
            while True:
                # The newest snapshot, taken between two unrolls: never half an update.
                for block in split(self._actor.unroll(self._latest_snapshot()), self._block_size):
                    self._queue.put(block, self._put_timeout)
        except QueueClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run must hear of it
            self._queue.close(error)
