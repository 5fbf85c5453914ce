"""η as a function of frames: a step function and a straight line. No TensorFlow here."""

from __future__ import annotations

import bisect
import dataclasses


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """η as a step function of frames; the last values are held.

    Attributes:
      frames: increasing; values[i] holds from frames[i] on, and values[0] from the start.
      values: of η, in whatever order of names.
    """

    frames: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]

    def __call__(self, frames: int) -> tuple[float, ...]:
        """η at this number of frames."""
        return self.values[max(0, bisect.bisect_right(self.frames, frames) - 1)]


@dataclasses.dataclass(frozen=True)
class Line:
    """η linear in frames, constant after the end.

    Attributes:
      start, end: of η, in whatever order of names.
      total_frames: where the end is reached.
    """

    start: tuple[float, ...]
    end: tuple[float, ...]
    total_frames: int

    def __call__(self, frames: int) -> tuple[float, ...]:
        """η at this number of frames."""
        share = min(1.0, max(0.0, frames / self.total_frames))
        return tuple(a + share * (b - a) for a, b in zip(self.start, self.end, strict=True))
