"""Environments that nothing can be learned in, each for a reason of its own."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np


class _Broken(gymnasium.Env):
    """Uninformative observations; games of eight steps; the rewards are drawn."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    length: int | None = 8
    rewards: tuple[float, ...] = (0.0, 1.0)

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def _observation(self) -> np.ndarray:
        return self.np_random.random(4).astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        return self._observation(), {}

    def step(self, action):
        self._time += 1
        reward = float(self.np_random.choice(self.rewards))
        return self._observation(), reward, self._time == self.length, False, {}


class Endless(_Broken):
    """No game ends."""

    length = None


class NoReward(_Broken):
    """Every reward is 0."""

    rewards = (0.0,)


class Sizes(_Broken):
    """Rewards of many sizes, all above 1."""

    rewards = (5.0, 50.0, 500.0)


class Tiny(_Broken):
    """Rewards that are worth less than an entropy bonus."""

    rewards = (0.0, 1e-4)


class NotFinite(_Broken):
    """Now and then a reward is no number."""

    rewards = (*(0.0, 1.0) * 200, float("nan"))


class Talking(_Broken):
    """It prints, as some simulators do, and so does its library in C."""

    def __init__(self) -> None:
        super().__init__()
        print("talks when it is made")
        os.write(1, b"a library talks\n")

    def step(self, action):
        print("talks at every step")
        return super().step(action)


for _kind in (Endless, NoReward, Sizes, Tiny, NotFinite, Talking):
    gymnasium.register(id=f"{_kind.__name__}-v0", entry_point=_kind)
# Ends by its time limit only.
gymnasium.register(id="Limited-v0", entry_point=Endless, max_episode_steps=20)
