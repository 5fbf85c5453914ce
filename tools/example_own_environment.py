"""Example: an environment of your own, with the interface of Gymnasium.

    python tools/example_own_environment.py [LOGDIR]

From the command line, with the folder of this file on PYTHONPATH:

    meta-impala train --environment=example_own_environment:Corridor-v0 --logdir=runs/corridor
"""

from __future__ import annotations

import sys
import tempfile

import gymnasium
import numpy as np

import meta_impala

LENGTH = 7


class Corridor(gymnasium.Env):
    """Seven cells in a row; the agent starts in the middle and is rewarded at the right end."""

    # Observations: a box of numbers or an image. Actions: whole numbers from 0.
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (LENGTH,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = LENGTH // 2
        return self.observation(), {}

    def step(self, action):
        self.cell += 1 if action == 1 else -1
        ends = self.cell in (0, LENGTH - 1)
        reward = float(self.cell == LENGTH - 1)
        return self.observation(), reward, ends, False, {}

    def observation(self):
        return np.eye(LENGTH, dtype=np.float32)[self.cell]


# `max_episode_steps` is a time limit: returns are bootstrapped from the state where it cuts.
gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=50)


def main(logdir: str) -> float:
    """Trains in it for a few seconds; returns the mean of 20 games."""
    config = meta_impala.preset("catch", environment="Corridor-v0", total_frames=20_000)
    meta_impala.make_trainer(config, logdir).run()
    return meta_impala.load(logdir).evaluate(episodes=20)["mean"]


if __name__ == "__main__":
    print("mean return:", main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
