"""The background of an Atari game: what its screen shows on average under random play.

Burda et al. 2018 (random network distillation, arXiv 1810.12894) measure the statistics of
observations with a random agent before training begins. Here a game's are a function of the game
alone: seeds, actions and length are fixed, so nothing needs to be saved with a network.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from meta_impala.environments.atari import AtariEnvironment

_COPIES, _STEPS = 2, 500


class Background(NamedTuple):
    """Attributes:
    mean: `[84, 84]` float32, of each pixel over time, in [0, 255].
    deviation: root of the mean squared deviation of all pixels from it, in the same unit; at
      least 1.
    """

    mean: np.ndarray
    deviation: float


@functools.cache
def background_of(game: str) -> Background:
    """Plays 1,000 random steps in two copies of the game; about a second, once in a process.

    Args:
      game: name in CamelCase, as in "MsPacman".
    """
    environment = AtariEnvironment(game, _COPIES, "impala")
    random = np.random.default_rng(0)
    try:
        environment.reset(0)
        steps = (
            environment.step(random.integers(environment.num_actions, size=_COPIES))
            for _ in range(_STEPS)
        )
        frames = np.stack([step.observations[:, -1] for step in steps])
    finally:
        environment.close()
    mean = frames.mean(axis=(0, 1))
    variance = float(np.mean(np.square(frames - mean)))
    return Background(np.asarray(mean, np.float32), max(1.0, variance**0.5))
