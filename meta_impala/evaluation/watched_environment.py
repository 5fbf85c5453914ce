"""The environment that is watched: it shows itself, or, if it cannot, its observations are drawn.

No TensorFlow here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from meta_impala.config.image_layout import image_shape, is_channels_first
from meta_impala.environments import UnsupportedEnvironmentError, registry
from meta_impala.environments.base import Transition, WrappedEnvironment
from meta_impala.evaluation.video import RecordedEnvironment

_FRAMES_PER_SECOND = 10.0
# Between two planes, in cells.
_GAP = 1
_GAP_COLOUR = 64


def picture_of(observation: np.ndarray) -> np.ndarray:
    """Draws an observation.

    Args:
      observation: an image of 3 channels is shown as it is; of other images the planes are drawn
        side by side, in grey. Anything else is one row of cells, grey from its smallest to its
        largest number.

    Returns:
      `[H, W, 3]` uint8.
    """
    shape = image_shape(observation.shape)
    if shape is None:
        return _grey(_stretched(observation.reshape(1, -1)))
    planes = _planes(observation)
    if planes.dtype != np.uint8:
        in_range = planes.min() >= 0.0 and planes.max() <= 1.0
        planes = np.rint(planes * 255.0).astype(np.uint8) if in_range else _stretched(planes)
    if shape[2] == 3:
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    gap = np.full((shape[0], _GAP), _GAP_COLOUR, np.uint8)
    row = [part for plane in planes for part in (gap, plane)][1:]
    return _grey(np.concatenate(row, axis=1))


def _planes(observation: np.ndarray) -> np.ndarray:
    """An image in any layout as `[C, H, W]`."""
    if observation.ndim == 2:
        return observation[np.newaxis]
    if not is_channels_first(observation.shape[-3:]):
        observation = np.moveaxis(observation, -1, -3)
    return observation.reshape(-1, *observation.shape[-2:])


def _stretched(numbers: np.ndarray) -> np.ndarray:
    numbers = np.nan_to_num(np.asarray(numbers, np.float64))
    low, high = numbers.min(), numbers.max()
    share = (numbers - low) / (high - low) if high > low else np.zeros_like(numbers)
    return np.rint(share * 255.0).astype(np.uint8)


def _grey(plane: np.ndarray) -> np.ndarray:
    return np.repeat(plane[:, :, np.newaxis], 3, axis=2)


class DrawnEnvironment(WrappedEnvironment):
    """One environment whose observations are drawn; the same interface as `RecordedEnvironment`.

    Attributes:
      frames_per_second: at which the game is shown.
      on_picture: called with `[H, W, 3]` uint8, one per agent step.
    """

    frames_per_second = _FRAMES_PER_SECOND

    def __init__(
        self, name: str, protocol: str, environment_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Args:
        name, protocol, environment_kwargs: as for `registry.make`.
        """
        super().__init__(registry.make(name, 1, protocol, environment_kwargs=environment_kwargs))
        self.on_picture: Callable[[np.ndarray], None] = lambda picture: None

    def action_meanings(self) -> list[str]:
        """Names of the actions; empty, for none are known."""
        return []

    def _restart(self, seed: int) -> np.ndarray:
        observations = super()._restart(seed)
        self.on_picture(picture_of(observations[0]))
        return observations

    def _advance(self, actions: np.ndarray) -> Transition:
        transition = super()._advance(actions)
        last = transition.observations
        if transition.episode_ends[0] and transition.final_observations is not None:
            last = transition.final_observations
        self.on_picture(picture_of(last[0]))
        return transition


WatchedEnvironment = RecordedEnvironment | DrawnEnvironment


def make_watched(
    name: str, protocol: str, seed: int, environment_kwargs: Mapping[str, Any] | None = None
) -> WatchedEnvironment:
    """One environment that hands a picture of every step to its `on_picture`.

    Args:
      name, protocol, environment_kwargs: as for `registry.make`.
      seed: of its games.

    Raises:
      UnknownEnvironmentError, UnsupportedEnvironmentError: as `registry.make`.
    """
    try:
        with warnings.catch_warnings():
            # Gymnasium warns of what is tried here: to render what may not be able to.
            warnings.simplefilter("ignore", UserWarning)
            return RecordedEnvironment(name, protocol, seed, environment_kwargs, of_one_size=False)
    except UnsupportedEnvironmentError:
        return DrawnEnvironment(name, protocol, environment_kwargs)
