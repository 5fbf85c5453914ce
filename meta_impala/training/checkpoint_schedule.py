"""When a run saves a checkpoint while it trains: by time, and by frames."""

from __future__ import annotations

import time


class CheckpointSchedule:
    """`--checkpoint_minutes` and `--checkpoint_frames`; 0 switches either off.

    Attributes:
      at_frames: whether the last update passed a multiple of the frames. A deterministic run saves
        no source there and restarts it instead, see `Trainer`.
    """

    def __init__(self, minutes: float, frames: int) -> None:
        """Args:
        minutes: between two checkpoints, of wall time.
        frames: between two checkpoints.
        """
        self._seconds, self._frames = 60.0 * minutes, frames
        self._clock = time.monotonic()
        self.at_frames = False

    def restart_clock(self) -> None:
        """The next checkpoint by time is due that many minutes from now."""
        self._clock = time.monotonic()

    def after_update(self, before: int, frames: int) -> None:
        """An update was made.

        Args:
          before: frames learned from before it.
          frames: frames learned from, with it.
        """
        interval = self._frames
        self.at_frames = interval > 0 and frames // interval > before // interval

    def is_due(self) -> bool:
        """Whether to save now."""
        return self.at_frames or 0 < self._seconds <= time.monotonic() - self._clock
