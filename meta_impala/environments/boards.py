"""Pictures of small boards, for the tasks that come with the program."""

import numpy as np

_PIXELS_PER_CELL = 16


def picture(board: np.ndarray) -> np.ndarray:
    """A board `[R, C]` of numbers in [0, 1] as a grey image `[16 R, 16 C, 3]` uint8."""
    cell = np.full((_PIXELS_PER_CELL, _PIXELS_PER_CELL), 255.0)
    pixels = np.kron(np.clip(board, 0.0, 1.0), cell).astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, axis=2)
