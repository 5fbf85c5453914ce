"""The progress of a run on the terminal."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Sequence

import tqdm

from meta_impala.config.hyper_parameters import GAMMA, LAMBDA, TABLE
from meta_impala.config.metric_columns import row_and_head
from meta_impala.training.metrics import Row, hours


def _symbol(name: str) -> str:
    """Of a meta-parameter, and of which head if it is not the one that acts."""
    row, head = row_and_head(name)
    return TABLE[row].symbol if head == 1 else f"{TABLE[row].symbol}[{head}]"


class Progress:
    """A progress bar on a terminal; elsewhere a plain line, at most one every 30 seconds."""

    SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, total_frames: int, frames: int, learned: Sequence[str] = ()) -> None:
        self._shown = dict.fromkeys((GAMMA, LAMBDA, *learned))
        self._is_terminal = sys.stderr.isatty()
        self._last_line = -math.inf
        self._bar = tqdm.tqdm(
            total=total_frames,
            initial=frames,
            unit="frames",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._is_terminal,
        )

    def update(self, row: Row, total_frames: int, *, last: bool = False) -> None:
        """Shows a row: frames, speed, return, γ, λ, what else is learned, and the time left."""
        with contextlib.suppress(OSError):  # the terminal may be gone; the run continues
            self._show(row, total_frames, last)

    def _show(self, row: Row, total_frames: int, last: bool) -> None:
        returned = row["episode_return"]
        text = "–" if math.isnan(returned) else f"{returned:.2f}"
        eta = " ".join(
            f"{_symbol(name)} {row[name]:{'.4f' if name in (GAMMA, LAMBDA) else '.4g'}}"
            for name in self._shown
        )
        if self._is_terminal:
            self._bar.set_postfix_str(f"return {text} {eta}", refresh=False)
            self._bar.update(row["frames"] - self._bar.n)
            return
        now = time.monotonic()
        if not last and now - self._last_line < self.SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        speed = row["frames_per_second"]
        left = hours(max(0.0, total_frames - row["frames"]) / max(speed, 1e-9))
        print(
            f"{row['frames']:>11,} frames  {speed:>7,.0f} frames/s  return {text}  {eta}  "
            f"{left} left",
            flush=True,
        )

    def close(self) -> None:
        """Ends the bar."""
        with contextlib.suppress(OSError):
            self._bar.close()
