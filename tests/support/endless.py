"""An environment whose episodes never end, and which has no time limit."""

import gymnasium
import numpy as np


class Endless(gymnasium.Env):
    """Rewards 1 a step, for ever."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        return np.ones(3, np.float32), 1.0, False, False, {}


gymnasium.register("support/Endless-v0", Endless)
