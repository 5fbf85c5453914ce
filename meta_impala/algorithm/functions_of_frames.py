"""γ and λ as functions of frames: a step function and a straight line. No TensorFlow here."""

from __future__ import annotations

import bisect
import dataclasses


@dataclasses.dataclass(frozen=True)
class StepFunction:
    """γ and λ as a step function of frames; the last values are held.

    Attributes:
      frames: increasing; values[i] holds from frames[i] on, and values[0] from the start.
      values: (γ, λ) each.
    """

    frames: tuple[int, ...]
    values: tuple[tuple[float, float], ...]

    def __call__(self, frames: int) -> tuple[float, float]:
        """(γ, λ) at this number of frames."""
        return self.values[max(0, bisect.bisect_right(self.frames, frames) - 1)]


@dataclasses.dataclass(frozen=True)
class Line:
    """γ and λ linear in frames, constant after the end.

    Attributes:
      start, end: (γ, λ).
      total_frames: where the end is reached.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    total_frames: int

    def __call__(self, frames: int) -> tuple[float, float]:
        """(γ, λ) at this number of frames."""
        share = min(1.0, max(0.0, frames / self.total_frames))
        gamma, lambda_ = (a + share * (b - a) for a, b in zip(self.start, self.end, strict=True))
        return gamma, lambda_
