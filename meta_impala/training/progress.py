"""The progress of a run on the terminal."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Sequence

import tqdm

from meta_impala.config.hyper_parameters import GAMMA, LAMBDA, TABLE
from meta_impala.config.metric_columns import row_and_head
from meta_impala.errors import tell
from meta_impala.training.metrics import Row

# By the least columns of a terminal that they are for. "elapsed<left", as tqdm's users know it.
_FORMATS = {
    110: "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
    "{rate_noinv_fmt}{postfix}]",
    78: "{percentage:3.0f}% of {total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]",
    0: "{percentage:3.0f}% [{elapsed}<{remaining}{postfix}]",
}
_NARROW = 78
_COLUMNS = 80  # of a terminal that does not say


class _Bar(tqdm.tqdm):
    """A bar that says less on a narrow terminal, and never wraps.

    Attributes:
      narrow: what follows the time left where there is no room for more than one number.
    """

    narrow = ""
    nrows: int | None

    def __str__(self) -> str:
        state = self.format_dict  # asks for the columns anew
        columns = state["ncols"] if (state["ncols"] or 0) > 0 else _COLUMNS
        state["bar_format"] = next(form for least, form in _FORMATS.items() if columns >= least)
        if columns < _NARROW:
            state["postfix"] = self.narrow
        return str(self.format_meter(**(state | {"ncols": columns})))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Also on a terminal that does not say its size, where tqdm would show nothing."""
        if self.nrows is not None and self.nrows < 1:
            self.nrows = None
        return bool(super().display(msg, pos))


def hours(seconds: float) -> str:
    """Hours, minutes and seconds; hours may exceed 24."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _symbol(name: str) -> str:
    """Of a meta-parameter, and of which head if it is not the one that acts."""
    row, head = row_and_head(name)
    return TABLE[row].symbol if head == 1 else f"{TABLE[row].symbol}[{head}]"


class Progress:
    """A bar that ticks every second on a terminal; elsewhere a line of a row, at most one in 30 s.

    What it says between two rows of metrics comes from a thread of its own: the first update takes
    long, since TensorFlow builds its graph, and so does a row on a slow machine.
    """

    SECONDS_BETWEEN_LINES = 30.0
    SECONDS_OF_SILENCE = 60.0
    SECONDS_BETWEEN_TICKS = 1.0

    def __init__(self, total_frames: int, frames: int, learned: Sequence[str] = ()) -> None:
        self._shown = dict.fromkeys((GAMMA, LAMBDA, *learned))
        self._is_terminal = sys.stderr.isatty()
        self._frames = self._frames_at_start = self._frames_of_line = frames
        self._last_row, self._last_line = -math.inf, time.monotonic()
        self._lock = threading.Lock()
        self._bar = _Bar(
            total=total_frames,
            initial=frames,
            unit=" frames",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._is_terminal,
        )
        self._say("building the first update", "starting")
        self._is_closed = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticking.start()

    def advance(self, frames: int) -> None:
        """Notes how far the run is, after every update; shown at the next tick."""
        if self._frames == self._frames_at_start:
            self._say("")
        self._frames = frames

    def update(self, row: Row, total_frames: int, *, last: bool = False) -> None:
        """Shows a row: frames, speed, return, γ, λ, what else is learned, and the time left."""
        self._frames = int(row["frames"])
        with self._lock, contextlib.suppress(OSError):  # the terminal may be gone; the run goes on
            self._show(row, total_frames, last)

    def _say(self, text: str, narrow: str | None = None) -> None:
        """Sets what the bar says after the speed."""
        self._bar.narrow = text if narrow is None else narrow
        if self._is_terminal:
            self._bar.set_postfix_str(text, refresh=False)

    def _tick(self) -> None:
        while not self._is_closed.wait(self.SECONDS_BETWEEN_TICKS):
            with self._lock, contextlib.suppress(OSError):
                if self._is_terminal:
                    self._bar.update(self._frames - self._bar.n)
                    self._bar.refresh()
                else:
                    self._print_between_rows()

    def _print_between_rows(self) -> None:
        now = time.monotonic()
        seconds = now - self._last_line
        if seconds < self.SECONDS_OF_SILENCE:
            return
        if self._frames == self._frames_at_start:
            what = "building the first update"
        else:
            what = f"{(self._frames - self._frames_of_line) / seconds:>7,.0f} frames/s"
        self._last_line, self._frames_of_line = now, self._frames
        tell(f"{self._frames:>11,} frames  {what}")

    def _show(self, row: Row, total_frames: int, last: bool) -> None:
        returned = row["episode_return"]
        text = "–" if math.isnan(returned) else f"{returned:.2f}"
        eta = " ".join(
            f"{_symbol(name)} {row[name]:{'.4f' if name in (GAMMA, LAMBDA) else '.4g'}}"
            for name in self._shown
        )
        if self._is_terminal:
            self._say(f"return {text} {eta}", f"return {text}")
            self._bar.update(row["frames"] - self._bar.n)
            return
        now = time.monotonic()
        if not last and now - self._last_row < self.SECONDS_BETWEEN_LINES:
            return
        self._last_row = self._last_line = now
        self._frames_of_line = self._frames
        speed = row["frames_per_second"]
        left = hours(max(0.0, total_frames - row["frames"]) / max(speed, 1e-9))
        tell(
            f"{row['frames']:>11,} frames  {speed:>7,.0f} frames/s  return {text}  {eta}  "
            f"{left} left"
        )

    def close(self) -> None:
        """Ends the bar."""
        self._is_closed.set()
        self._ticking.join()
        with contextlib.suppress(OSError):
            if self._is_terminal:
                self._bar.update(self._frames - self._bar.n)
            self._bar.close()
