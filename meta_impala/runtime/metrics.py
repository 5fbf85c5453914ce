"""Metrics of a run: one table, written to `metrics.csv` and to TensorBoard, and a progress line."""

from __future__ import annotations

import collections
import contextlib
import csv
import io
import math
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping

import psutil
import tensorflow as tf
import tqdm

from meta_impala.runtime.learner import Statistics
from meta_impala.runtime.run_folder import read_metrics, write_atomically
from meta_impala.runtime.trajectory import Episode

COLUMNS = (
    "frames",
    "updates",
    "seconds",
    "frames_per_second",
    "episodes",
    "episode_return",
    "episode_frames",
    "gamma",
    "lambda",
    "meta_gradient_norm",
    "meta_gradient_gamma",
    "meta_gradient_lambda",
    "x_step_gamma",
    "x_step_lambda",
    "meta_loss",
    "inner_loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "gradient_norm",
    "clip_coefficient",
    "rho_clipped_share",
    "policy_lag",
    "learning_rate",
    "queue_fill",
    "rss_mib",
)
# What two deterministic runs may differ in: times, memory and queue fill.
NOT_REPRODUCIBLE = ("seconds", "frames_per_second", "queue_fill", "rss_mib")
EPISODES_AVERAGED = 100

Row = Mapping[str, float]


class MetricsWriter:
    """Appends rows to `metrics.csv` and the TensorBoard log; continues what it finds."""

    def __init__(self, csv_path: pathlib.Path, tensorboard: pathlib.Path, frames: int) -> None:
        """Args:
        csv_path: of `metrics.csv`; rows after `frames` are cut from it.
        tensorboard: folder of the event files.
        frames: that the run continues from, 0 for a new one.
        """
        kept = [row for row in read_metrics(csv_path) if int(row["frames"]) <= frames]
        self.seconds_before = float(kept[-1]["seconds"]) if kept else 0.0
        self.episodes_before = int(kept[-1]["episodes"]) if kept else 0
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({name: row.get(name, "") for name in COLUMNS} for row in kept)
        write_atomically(csv_path, buffer.getvalue())
        self._file = open(csv_path, "a", encoding="utf-8", newline="")  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
        self._tensorboard = tf.summary.create_file_writer(str(tensorboard))

    def write(self, row: Row) -> None:
        """Writes one row; a value that is NaN becomes an empty cell."""
        cells = {}
        for name in COLUMNS:
            value = row[name]
            is_whole = isinstance(value, int)
            cells[name] = str(value) if is_whole else "" if math.isnan(value) else f"{value:.8g}"
        self._writer.writerow(cells)
        self._file.flush()
        with self._tensorboard.as_default(step=int(row["frames"])):
            for name in COLUMNS:
                if name != "frames" and not math.isnan(row[name]):
                    tf.summary.scalar(name, float(row[name]))
        self._tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._tensorboard.close()


class MetricsWindow:
    """Collects what happens between two rows, and makes a row of it.

    Statistics of updates are means over the window; `episode_return` and `episode_frames` are
    means over the last 100 games (empty before the first has ended).
    """

    def __init__(self, frames: int, seconds_before: float, episodes_before: int) -> None:
        self._returns: collections.deque[float] = collections.deque(maxlen=EPISODES_AVERAGED)
        self._lengths: collections.deque[int] = collections.deque(maxlen=EPISODES_AVERAGED)
        self._episodes = episodes_before
        self._seconds_before = seconds_before
        self._start = self._window_start = time.monotonic()
        self._window_frames = frames
        self._process = psutil.Process()
        self._statistics: list[Statistics] = []
        self._lags: list[float] = []
        self._fills: list[float] = []

    @property
    def episode_return(self) -> float:
        """Mean raw return of the last 100 games, NaN before the first."""
        return sum(self._returns) / len(self._returns) if self._returns else math.nan

    def add(
        self,
        statistics: Statistics,
        episodes: Iterable[Episode],
        policy_lag: float,
        queue_fill: float,
    ) -> None:
        """Adds one learner update."""
        self._statistics.append(statistics)
        self._lags.append(policy_lag)
        self._fills.append(queue_fill)
        for episode in episodes:
            self._episodes += 1
            self._returns.append(episode.episode_return)
            self._lengths.append(episode.frames)

    def row(self, frames: int, updates: int, learning_rate: float) -> dict[str, float]:
        """The row of everything added since the last one; starts a new window."""
        now = time.monotonic()
        elapsed = max(now - self._window_start, 1e-9)
        count = len(self._statistics)
        means = Statistics(*(sum(values) / count for values in zip(*self._statistics, strict=True)))
        row: dict[str, float] = means._asdict()
        row["lambda"] = row.pop("lambda_")
        row.update(
            frames=frames,
            updates=updates,
            seconds=self._seconds_before + now - self._start,
            frames_per_second=(frames - self._window_frames) / elapsed,
            episodes=self._episodes,
            episode_return=self.episode_return,
            episode_frames=(sum(self._lengths) / len(self._lengths) if self._lengths else math.nan),
            policy_lag=sum(self._lags) / count,
            queue_fill=sum(self._fills) / count,
            learning_rate=learning_rate,
            rss_mib=self._process.memory_info().rss / 2**20,
        )
        # η is reported as it stands at the row, not as a mean of the window.
        row["gamma"] = self._statistics[-1].gamma
        row["lambda"] = self._statistics[-1].lambda_
        self._window_start, self._window_frames = now, frames
        self._statistics, self._lags, self._fills = [], [], []
        return row


class Progress:
    """What the user watches: a bar on a terminal, a plain line now and then elsewhere."""

    SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, total_frames: int, frames: int) -> None:
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
        """Shows a row: frames, speed, return, γ, λ and the time left."""
        with contextlib.suppress(OSError):  # the terminal may be gone; the run goes on
            self._show(row, total_frames, last)

    def _show(self, row: Row, total_frames: int, last: bool) -> None:
        returned = row["episode_return"]
        text = "–" if math.isnan(returned) else f"{returned:.2f}"
        eta = f"γ {row['gamma']:.4f} λ {row['lambda']:.4f}"
        if self._is_terminal:
            self._bar.set_postfix_str(f"return {text} {eta}", refresh=False)
            self._bar.update(row["frames"] - self._bar.n)
            return
        now = time.monotonic()
        if not last and now - self._last_line < self.SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        speed = row["frames_per_second"]
        left = time.strftime(
            "%H:%M:%S", time.gmtime(max(0.0, total_frames - row["frames"]) / max(speed, 1e-9))
        )
        print(
            f"{row['frames']:>11,} frames  {speed:>7,.0f} frames/s  return {text}  {eta}  "
            f"{left} left",
            flush=True,
        )

    def close(self) -> None:
        """Ends the bar."""
        with contextlib.suppress(OSError):
            self._bar.close()
