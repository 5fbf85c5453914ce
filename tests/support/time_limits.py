"""Tiny environments that end by a termination or by a time limit, and whose best return is 1.

support.time_limits:FixedTerm-v0     5 steps, paid on the last: the share of actions 1; terminal
support.time_limits:FixedTrunc-v0    the same, but the last step is a time limit
support.time_limits:Limit1-v0        a bandit: one step and the time limit
"""

import gymnasium
import numpy as np


class FixedTerm(gymnasium.Env):
    """`length` steps, paid on the last one; the observation is the time, into one buffer."""

    BY_LIMIT = False

    def __init__(self, length: int = 5) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._length = length
        self._buffer = np.zeros(3, np.float32)

    def _observation(self) -> np.ndarray:
        self._buffer[:] = self._time / 10
        return self._buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time, self._good = 0, 0
        return self._observation(), {}

    def step(self, action):
        self._time += 1
        self._good += int(action)
        last = self._time >= self._length
        reward = self._good / self._length if last else 0.0
        return self._observation(), reward, last and not self.BY_LIMIT, last and self.BY_LIMIT, {}


class FixedTrunc(FixedTerm):
    """The same task, cut and not ended."""

    BY_LIMIT = True


class Bandit(FixedTerm):
    """Pays the action; never ends by itself."""

    def step(self, action):
        self._time += 1
        return self._observation(), float(action), False, False, {}


for _name, _class, _limit in (
    ("FixedTerm-v0", FixedTerm, None),
    ("FixedTrunc-v0", FixedTrunc, None),
    ("Limit1-v0", Bandit, 1),
):
    gymnasium.register(id=_name, entry_point=_class, max_episode_steps=_limit)
