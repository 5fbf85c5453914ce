"""Metrics of a run: one table, written to `metrics.csv` and to TensorBoard."""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import tensorflow as tf
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams  # `api` imports Keras, too

from meta_impala import config as config_lib
from meta_impala.actors.trajectory import Episode
from meta_impala.config import Config
from meta_impala.config.metric_columns import learned_columns, of_all_heads
from meta_impala.errors import one_line, printable, warn
from meta_impala.learner.state import FIXED, Statistics
from meta_impala.learner.update_statistics import meta_columns
from meta_impala.storage.files import (
    append_whole,
    flush_open,
    make_folder,
    write_atomically,
    writing,
)
from meta_impala.storage.metrics_table import (
    COLUMNS,
    header_line,
    keep_damaged,
    line_of,
    read_table,
)
from meta_impala.storage.run_folder import RunFolder
from meta_impala.training.metric_tags import tag

# Columns in which two deterministic runs may differ: times, memory and queue fill.
NOT_REPRODUCIBLE = ("seconds", "frames_per_second", "queue_fill", "rss_mib", "cpu_seconds")

EPISODES_AVERAGED = 100

Row = Mapping[str, float]

_MARKDOWN = frozenset("\\`*_{}[]<>()#+-!|~")


class MetricsWriter:
    """Appends rows to `metrics.csv` and the TensorBoard log; continues existing files.

    Attributes:
      observers: are called with every row.
    """

    def __init__(
        self,
        csv_path: pathlib.Path,
        tensorboard: pathlib.Path,
        frames: int,
        learned: Iterable[str] = (),
    ) -> None:
        """Args:
        csv_path: of `metrics.csv`; rows after `frames` are cut from it.
        tensorboard: folder of the event files.
        frames: that the run continues from, 0 for a new one.
        learned: the meta-parameters that are learned, or vary otherwise, of all heads.

        Raises:
          RunFailed: here and in every method, if a file cannot be written.
        """
        self.observers: list[Callable[[Row], None]] = []
        self._path, self._frames = csv_path, frames
        self._others = learned_columns(learned)
        with writing(csv_path):
            kept = [row for row in _read_and_keep_damaged(csv_path) if int(row["frames"]) <= frames]
            lines = [line_of(row, self._others) for row in kept]
            write_atomically(csv_path, header_line(self._others) + "".join(lines))
            self._descriptor = os.open(
                csv_path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        with writing(tensorboard), _tensorflow_errors():
            _mark_start(tensorboard, frames)
            self._tensorboard = tf.summary.create_file_writer(str(tensorboard))

    def write(self, row: Row) -> None:
        """Writes one row; a value that is NaN becomes an empty cell."""
        cells = {}
        for name in (*COLUMNS, *self._others):
            value = row[name]
            is_whole = isinstance(value, int)
            cells[name] = str(value) if is_whole else "" if math.isnan(value) else f"{value:.8g}"
        with writing(self._path):
            append_whole(self._descriptor, line_of(cells, self._others).encode())
        with (
            writing(self._path.parent / "tensorboard"),
            _tensorflow_errors(),
            # NumPy's numbers: TensorFlow keeps every Python number that it was ever given, which
            # was 34 KB a row.
            self._tensorboard.as_default(step=tf.constant(np.int64(row["frames"]))),
        ):
            for name in cells:
                if name != "frames" and not math.isnan(row[name]):
                    tf.summary.scalar(tag(name), np.float32(row[name]))
            self._tensorboard.flush()
        for observer in self.observers:
            observer(row)

    def describe(self, config: Config) -> None:
        """Writes the run's settings for TensorBoard: as text, and for its HParams tab."""
        settings = json.loads(config_lib.to_json(config))
        rows = [f"| {name} | {_cell(value)} |" for name, value in settings.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *rows])
        plain = {
            name: value if isinstance(value, (bool, int, float, str)) else str(value)
            for name, value in settings.items()
        }
        with (
            writing(self._path.parent / "tensorboard"),
            _tensorflow_errors(),
            self._tensorboard.as_default(step=tf.constant(np.int64(self._frames))),
        ):
            tf.summary.text("config", table)
            hparams.hparams(plain, trial_id=_trial(self._path.parent))
            self._tensorboard.flush()

    def sync(self) -> None:
        """Syncs the rows to disk, for a power cut."""
        with writing(self._path):
            flush_open(self._descriptor, self._path)

    def close(self) -> None:
        """Closes both; errors of writing were reported before."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        with contextlib.suppress(OSError), _tensorflow_errors():
            self._tensorboard.close()


def open_metrics(folder: RunFolder, frames: int, config: Config) -> MetricsWriter:
    """The writer of a run that continues from `frames`; TensorBoard is told its settings.

    Raises:
      RunFailed: if a file cannot be written.
    """
    for path, is_gone in (
        (folder.metrics_path, not folder.has_metrics()),
        (folder.tensorboard, not folder.tensorboard.exists()),
    ):
        if frames and is_gone:
            warn(f"warning: {path} is gone; the rows before frame {frames:,} are lost")
    reported = of_all_heads(config.varied, config.auxiliary_heads)
    writer = MetricsWriter(folder.metrics_path, folder.tensorboard, frames, reported)
    writer.describe(config)
    return writer


def _trial(folder: pathlib.Path) -> str:
    """A readable name of the run for the HParams tab, where trials of one name become one row.

    TensorBoard's own is a hash of the settings: two runs that differ in none would be one.
    """
    path = str(folder.resolve())
    return f"{printable(folder.name)} {hashlib.sha256(os.fsencode(path)).hexdigest()[:6]}"


def _cell(value: object) -> str:
    """A setting in a Markdown table."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in text)


def _mark_start(folder: pathlib.Path, frames: int) -> None:
    """Makes TensorBoard ignore what earlier event files have after `frames`.

    It takes that from the second mark on: the first is the run's own start.
    """
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    events = [
        event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"),
        event_pb2.Event(wall_time=time.time(), step=frames + 1, session_log=log),
    ]
    # Files are read in the order of their names: after the older ones, before that of this start.
    make_folder(folder)
    path = folder / f"events.out.tfevents.{int(time.time())}.-start.{os.getpid()}"
    with tf.io.TFRecordWriter(str(path)) as file:
        for event in events:
            file.write(event.SerializeToString())


def _read_and_keep_damaged(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of the file. If lines are damaged there is a warning, and the file is kept aside.

    Raises:
      OSError: if it cannot be read, or is too large.
      RunFailed: if it cannot be kept.
    """
    try:
        rows, damaged, content = read_table(path)
    except ValueError as error:
        raise OSError(errno.EFBIG, str(error)) from None
    if damaged:
        keep_damaged(path, content, damaged, len(rows))
    return rows


@contextlib.contextmanager
def _tensorflow_errors() -> Iterator[None]:
    """Turns TensorFlow's errors of writing a file into OSError."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(one_line(error)) from error


class MetricsWindow:
    """Collects the metrics between two rows, and makes a row of them.

    Statistics of updates are means over the window, without those that were not applied; those of
    meta steps are means over the updates that have one (with several inner steps, not before the
    first, and not where it was not applied);
    `episode_return` and `episode_frames` are means over the last 100 games (empty before the first
    has ended), the return over those with a finite one. `cpu_seconds` is the CPU time of the
    trainer's processes so far: all threads, nothing of Ray actors; of a command's processes from
    their start on, imports included, of a calling program from `make_trainer` on. All of it goes
    into checkpoints, so that a continued run writes the rows that it would have written without the
    stop.
    """

    def __init__(
        self,
        frames: int,
        saved: Mapping[str, Any] | None = None,
        learned: Sequence[str] = (),
        cpu_start: float = 0.0,
    ) -> None:
        """Args:
        frames: that the run continues from.
        saved: from `state`.
        learned: the meta-parameters that are learned, or vary otherwise, of all heads.
        cpu_start: CPU seconds of this process that do not count.
        """
        saved = saved or {}
        self._start = self._window_start = time.monotonic()
        self._window_frames = frames
        self._process = psutil.Process()
        self._seconds_before = float(saved.get("seconds", 0.0))
        self._cpu_before = float(saved.get("cpu_seconds", 0.0)) - cpu_start
        # Older versions kept those that are not finite too.
        finite = [number for number in saved.get("returns", ()) if math.isfinite(number)]
        self._returns = collections.deque[float](finite, EPISODES_AVERAGED)
        self._lengths = collections.deque[int](saved.get("lengths", ()), EPISODES_AVERAGED)
        self._episodes = int(saved.get("episodes", 0))
        self._bad_updates = int(saved.get("bad_updates", 0))
        self._said_left_out = False
        # Of the open window; sums, so that memory does not grow with --log_frames.
        self._updates = int(saved.get("updates", 0))
        self._applied = int(saved.get("applied", 0))
        # Of these, the updates whose statistics of a meta step are known.
        self._meta_known = int(saved.get("meta_known", self._applied))
        self._lags = float(saved.get("lags", 0.0))
        self._fills = float(saved.get("fills", 0.0))
        names = (*FIXED, *learned_columns(learned))
        self._sums = {name: saved.get("sums", {}).get(name, 0.0) for name in names}
        self._last = {name: saved.get("last", {}).get(name, math.nan) for name in names}
        self._values = [name for name in learned_columns(learned) if name in set(learned)]
        self._of_meta = frozenset(meta_columns(learned))

    @property
    def policy_lag(self) -> float:
        """Mean policy lag of the updates since the last row, NaN before the first."""
        return self._lags / self._updates if self._updates else math.nan

    @property
    def episode_return(self) -> float:
        """Mean raw return of the last 100 games with a finite one, NaN before the first."""
        return sum(self._returns) / len(self._returns) if self._returns else math.nan

    def state(self) -> dict[str, Any]:
        """The window as JSON, to continue from."""
        return {
            "seconds": self._seconds_before + time.monotonic() - self._start,
            "cpu_seconds": self._cpu_before + time.process_time(),
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "episodes": self._episodes,
            "bad_updates": self._bad_updates,
            "updates": self._updates,
            "applied": self._applied,
            "meta_known": self._meta_known,
            "lags": self._lags,
            "fills": self._fills,
            "sums": self._sums,
            "last": self._last,
        }

    def add(
        self,
        statistics: Statistics,
        episodes: Iterable[Episode],
        policy_lag: float,
        queue_fill: float,
    ) -> None:
        """Adds one learner update; what was not applied adds nothing to the statistics."""
        self._updates += 1
        self._lags += policy_lag
        self._fills += queue_fill
        is_meta_bad = statistics.meta_applied == 0.0
        if not statistics.applied or is_meta_bad:
            self._bad_updates += 1
        if statistics.applied:
            # J' of what was applied is finite: NaN says that no meta step was made yet.
            is_meta_known = not (is_meta_bad or math.isnan(statistics.meta_loss))
            self._applied += 1
            self._meta_known += is_meta_known
            self._last = statistics.numbers()
            for name, value in self._last.items():
                if is_meta_known or name not in self._of_meta:
                    self._sums[name] += value
        for episode in episodes:
            self._episodes += 1
            self._lengths.append(episode.frames)
            if math.isfinite(episode.episode_return):
                self._returns.append(episode.episode_return)
            else:
                self._say_left_out(episode.episode_return)

    def _say_left_out(self, episode_return: float) -> None:
        if not self._said_left_out:
            self._said_left_out = True
            warn(
                f"warning: the return of a game is {episode_return}, since a reward was not "
                "finite: such games are left out of episode_return"
            )

    def row(
        self, frames: int, updates: int, learning_rate: float, actor_restarts: int
    ) -> dict[str, float]:
        """The row of everything added since the last one; starts a new window."""
        now = time.monotonic()
        elapsed = max(now - self._window_start, 1e-9)
        row: dict[str, float] = {}
        for name, value in self._sums.items():
            count = self._meta_known if name in self._of_meta else self._applied
            row[name] = value / count if count else math.nan
        # η is the value at the row, not a mean over the window.
        row["gamma"] = self._last["gamma"]
        row["lambda"] = self._last["lambda_"]
        row.update({name: self._last[name] for name in self._values})
        del row["lambda_"]
        row.update(
            frames=frames,
            updates=updates,
            seconds=self._seconds_before + now - self._start,
            frames_per_second=(frames - self._window_frames) / elapsed,
            episodes=self._episodes,
            episode_return=self.episode_return,
            episode_frames=(sum(self._lengths) / len(self._lengths) if self._lengths else math.nan),
            policy_lag=self._lags / self._updates,
            queue_fill=self._fills / self._updates,
            learning_rate=learning_rate,
            bad_updates=self._bad_updates,
            actor_restarts=actor_restarts,
            rss_mib=self._process.memory_info().rss / 2**20,
            cpu_seconds=self._cpu_before + time.process_time(),
        )
        self._window_start, self._window_frames = now, frames
        self._updates = self._applied = self._meta_known = 0
        self._lags = self._fills = 0.0
        self._sums = dict.fromkeys(self._sums, 0.0)
        return row
