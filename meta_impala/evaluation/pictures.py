"""Converts what an environment renders to RGB pictures, for a video all of one size."""

from __future__ import annotations

from typing import Any

import numpy as np

from meta_impala.environments import UnsupportedEnvironmentError


class Pictures:
    """Brings every picture of an environment to `[H, W, 3]` uint8."""

    def __init__(self, env_id: str, *, of_one_size: bool = True) -> None:
        """Args:
        env_id: of the environment.
        of_one_size: whether a picture that differs in size from the first is refused.
        """
        self._env_id = env_id
        self._of_one_size = of_one_size
        self._size: tuple[int, int] | None = None

    def rgb(self, rendered: Any) -> np.ndarray:
        """A picture.

        Args:
          rendered: what `render()` returned: `[H, W, 3]`, `[H, W, 4]` (the last plane, its opacity,
            is dropped), `[H, W, 1]` or `[H, W]` (grey). Integers are from 0 to 255; bools and
            floats from 0 to 1 are scaled to that.

        Raises:
          UnsupportedEnvironmentError: it is not a picture, or it differs in size from the ones
            before and may not.
        """
        try:
            picture = np.asarray(rendered)
        except ValueError:  # a list of pictures of several sizes
            raise self._refusal(f"returned a {type(rendered).__name__}, must be an array") from None
        if picture.ndim == 2:
            picture = picture[:, :, np.newaxis]
        if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or 0 in picture.shape:
            raise self._refusal(
                f"returned {_kind(rendered, picture)}, must be an array [height, width, 3]"
            )
        picture = self._bytes(picture)
        if picture.shape[2] == 1:
            picture = np.repeat(picture, 3, axis=2)
        size = picture.shape[0], picture.shape[1]
        if self._size is None:
            self._size = size
        if self._of_one_size and size != self._size:
            before, now = (f"{height}×{width}" for height, width in (self._size, size))
            raise self._refusal(f"returned a picture of {now} after one of {before}, must be alike")
        return picture[:, :, :3]

    def _bytes(self, picture: np.ndarray) -> np.ndarray:
        kind = picture.dtype.kind
        if picture.dtype == np.uint8:
            return picture
        largest = 1 if kind in "bf" else 255
        # NaN is not in the range either.
        if kind not in "biuf" or not ((picture >= 0) & (picture <= largest)).all():
            raise self._refusal(
                f"returned a picture of dtype {picture.dtype}, must be integers from 0 to 255 or "
                "floats from 0 to 1"
            )
        return np.rint(picture * (255.0 / largest)).astype(np.uint8)

    def _refusal(self, what: str) -> UnsupportedEnvironmentError:
        return UnsupportedEnvironmentError(
            f"{self._env_id} cannot be recorded: its render() {what}"
        )


def _kind(rendered: Any, picture: np.ndarray) -> str:
    if not isinstance(rendered, np.ndarray):
        return f"a {type(rendered).__name__}"
    return f"an array of shape {list(picture.shape)}"
