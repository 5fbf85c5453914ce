"""Which axes of an observation are height, width and channels.

Gymnasium's spaces do not tell. Images come as `[H, W]`, `[H, W, C]`, `[C, H, W]` (stacked grey
frames), or, stacked, as `[S, H, W, C]` or `[S, C, H, W]`; the S frames count as channels.

The rule for three axes. If exactly two neighbouring axes are equal, these are the sides: 8×8×20 is
an image of 20 channels, and so is 20×8×8. Otherwise the channels are last, as in 210×160×3, unless
the first axis is shorter than the last one and the last two are closer (by their ratio) than
the first two, as in 3×210×160; 6×8×20 is an image of 20 channels.
"""

from __future__ import annotations

from collections.abc import Sequence


def is_channels_first(shape: Sequence[int]) -> bool:
    """Whether an image of this shape is `[C, H, W]`; False if it has not three axes."""
    if len(shape) != 3:
        return False
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return middle == last
    return first < last and _ratio(middle, last) < _ratio(first, middle)


def image_shape(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Height, width and channels of an observation; None if it is not an image."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) not in (3, 4):
        return None
    first, middle, last = shape[-3:]
    height, width, channels = (
        (middle, last, first) if is_channels_first(shape[-3:]) else (first, middle, last)
    )
    return height, width, channels * (shape[0] if len(shape) == 4 else 1)


def _ratio(one: int, other: int) -> float:
    """The ratio of the longer to the shorter side."""
    return max(one, other) / max(1, min(one, other))
