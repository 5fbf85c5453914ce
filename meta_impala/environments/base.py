"""The one interface to environments: a batch of N, stepped together.

An implementation returns what its simulator did (`Transition`); the bookkeeping that everything
else relies on (checked actions and seeds, episode returns and lengths in frames, which flag wins)
is written here, once. Rewards are never clipped here: the learner clips, and the reported returns
are of the raw rewards.
"""

import abc
from typing import NamedTuple

import numpy as np

from meta_impala.errors import RunFailed, UserError

# The emulator keeps its seed in a signed 32-bit integer.
SEED_LIMIT = 2**31


class UnknownEnvironmentError(UserError, ValueError):
    """No environment has this name; the message lists the nearest names."""


class UnsupportedEnvironmentError(UserError, ValueError):
    """The environment exists but cannot be used here; the message is one line that says why."""


class EnvironmentFailed(RunFailed):
    """A running environment raised, or returned an invalid result; the message is one line."""


class Step(NamedTuple):
    """What one action in each of N environments led to. The arrays belong to the caller.

    Attributes:
      observations: [N, ...] what the next action is chosen from. After an episode's end it is the
        first observation of the next episode.
      rewards: [N] float32, as the environment gave them (not clipped).
      terminations: [N] bool, the *learner's* terminal: the state arrived in has discount 0. Under
        the Atari protocol "impala" a lost life is one too, though the game continues.
      truncations: [N] bool, the episode was cut by a time limit, so the state arrived in still has
        a value. Never True together with `terminations`. In an `Unroll` the flag is one row
        later, after the row of the final observation.
      final_observations: [N, ...] the last observation of the episodes that ended, zeros in the
        other rows; None if no episode ended.
      episode_ends: [N] bool, a full game ended on this step (game over or time limit).
      episode_returns: [N] float64, undiscounted raw return of the game that ended; 0 where none
        did.
      episode_frames: [N] int64, its length in environment frames (agent steps × action repeat); 0
        where none ended.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    final_observations: np.ndarray | None
    episode_ends: np.ndarray
    episode_returns: np.ndarray
    episode_frames: np.ndarray


class Transition(NamedTuple):
    """What an implementation reports of one step, before the bookkeeping.

    The fields are as in `Step`, except that `rewards` may have any numeric dtype, the rows of
    `final_observations` where nothing ended may hold anything, and `terminations` and `truncations`
    may both be True (termination wins).
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    final_observations: np.ndarray | None
    episode_ends: np.ndarray


class BatchedEnvironment(abc.ABC):
    """N copies of one environment, stepped together; those whose episode ends restart at once.

    Attributes:
      num_envs: N.
      num_actions: actions are the integers 0 to `num_actions - 1`.
      observation_shape: the shape of one observation, without N.
      observation_dtype: uint8 or float32.
      action_repeat: environment frames per agent step.
    """

    def __init__(
        self,
        num_envs: int,
        num_actions: int,
        observation_shape: tuple[int, ...],
        observation_dtype: np.dtype,
        action_repeat: int,
    ) -> None:
        self.num_envs = num_envs
        self.num_actions = num_actions
        self.observation_shape = observation_shape
        self.observation_dtype = observation_dtype
        self.action_repeat = action_repeat
        self._returns = np.zeros(num_envs, np.float64)
        self._frames = np.zeros(num_envs, np.int64)
        self._running = False

    def reset(self, seed: int) -> np.ndarray:
        """Starts new episodes everywhere; environment i is seeded with `seed + i`.

        Two batches share no seed if their seeds are at least `num_envs` apart.

        Args:
          seed: from 0 to 2³¹ − N.

        Returns:
          The first observations, [N, ...].

        Raises:
          ValueError: the seed is out of range.
          RuntimeError: the environment was closed.
        """
        if not 0 <= seed <= SEED_LIMIT - self.num_envs:
            raise ValueError(
                f"seed is {seed}, but {self.num_envs} environments seeded with seed + i need one "
                f"from 0 to {SEED_LIMIT - self.num_envs}"
            )
        observations = self._restart(int(seed))
        self._returns[:] = 0
        self._frames[:] = 0
        self._running = True
        return observations

    def step(self, actions: np.ndarray, waiting: np.ndarray | None = None) -> Step:
        """Takes one action in every environment that is not waiting.

        Args:
          actions: [N] of an integer dtype, each from 0 to `num_actions - 1`.
          waiting: [N] bool, environments whose episode ended on the last step and that are to stay
            at their next episode's first observation: no reward, no end. None for none.

        Returns:
          What they led to, counted from the last `reset`.

        Raises:
          ValueError: the actions have the wrong shape or dtype, or one is out of range.
          RuntimeError: called before `reset`, or after `close`.
        """
        if not self._running:
            raise RuntimeError(
                "call reset(seed) before step(actions); a closed environment stays closed"
            )
        actions = self._checked(actions)
        if waiting is None or not waiting.any():
            transition = self._advance(actions)
        else:
            transition = self._advance_others(actions, waiting)

        self._returns += transition.rewards
        self._frames += self.action_repeat if waiting is None else self.action_repeat * ~waiting
        ends = transition.episode_ends
        final_observations = transition.final_observations if ends.any() else None
        if final_observations is not None:
            # The emulator leaves uninitialised memory in these rows: zeros keep rollouts
            # reproducible.
            final_observations[~ends] = 0
        step = Step(
            observations=transition.observations,
            rewards=transition.rewards.astype(np.float32),
            terminations=transition.terminations,
            truncations=transition.truncations & ~transition.terminations,
            final_observations=final_observations,
            episode_ends=ends,
            episode_returns=np.where(ends, self._returns, 0.0),
            episode_frames=np.where(ends, self._frames, 0),
        )
        self._returns[ends] = 0
        self._frames[ends] = 0
        return step

    def close(self) -> None:
        """Frees the simulators; closing twice is allowed."""
        self._running = False

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """Returns the actions as int64 [N]; refuses what a simulator might choke on (Atari would
        hang)."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise ValueError(
                f"actions must be integers of shape ({self.num_envs},), one per environment; got "
                f"{actions.dtype} of shape {actions.shape}"
            )
        refused = (actions < 0) | (actions >= self.num_actions)
        if refused.any():
            index = int(np.flatnonzero(refused)[0])
            raise ValueError(
                f"action {actions[index]} of environment {index} is out of range: this environment "
                f"has actions 0 to {self.num_actions - 1}"
            )
        return actions.astype(np.int64)

    def _advance_others(self, actions: np.ndarray, waiting: np.ndarray) -> Transition:
        """The same for the environments that are not waiting; the others show the first
        observation of an episode, with reward 0 and no end. Needed for training."""
        raise NotImplementedError(f"{type(self).__name__} cannot let an environment wait")

    @abc.abstractmethod
    def _restart(self, seed: int) -> np.ndarray:
        """Resets the simulators, the i-th with `seed + i`; returns the first observations, [N,
        ...]."""

    @abc.abstractmethod
    def _advance(self, actions: np.ndarray) -> Transition:
        """Steps the simulators with checked int64 actions [N], restarting those whose episode
        ends."""


class WrappedEnvironment(BatchedEnvironment):
    """Plays another environment and is closed with it; a subclass looks at what passes through."""

    def __init__(self, inner: BatchedEnvironment) -> None:
        super().__init__(
            inner.num_envs,
            inner.num_actions,
            inner.observation_shape,
            inner.observation_dtype,
            inner.action_repeat,
        )
        self._inner = inner

    def close(self) -> None:
        super().close()
        self._inner.close()

    def _restart(self, seed: int) -> np.ndarray:
        return self._inner._restart(seed)

    def _advance(self, actions: np.ndarray) -> Transition:
        return self._inner._advance(actions)


def check_num_envs(num_envs: int) -> None:
    """Raises ValueError unless `num_envs` is at least 1."""
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; an environment batch holds at least 1")
