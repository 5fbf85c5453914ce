"""A run is its folder: config, status, metrics, checkpoints, evaluation. No TensorFlow here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import stat
import time
from typing import Any

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import RunFailed, UserError, one_line, printable, text_of
from meta_impala.storage import nearby_runs
from meta_impala.storage import trust as trust_lib
from meta_impala.storage.files import (
    make_folder,
    read_bounded,
    remove_empty,
    write_atomically,
    writing,
)
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.manifest import REPLACED
from meta_impala.storage.results_folder import refuse_links
from meta_impala.storage.trust import Trust

RUNNING, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"

# Far above any config or status; bounds what a hostile file can make us read.
_MAX_JSON_BYTES = 2**20

# What training writes in a run folder. A link in its place would lead out of the folder.
_FILES = (
    "config.json",
    "status.json",
    "metrics.csv",
    "lock",
    "stacks.txt",
    "evaluation.json",
    "population.json",
    "eta_schedule.csv",
    "evaluations.csv",
    "population.csv",
)
_WRITTEN_ASIDE = (
    "config.json",
    "status.json",
    "metrics.csv",
    "evaluations.csv",
    "eta_schedule.csv",
    "stacks.txt",
    "writable",
    ".lock-candidate",
)
_FOLDERS = ("checkpoints", "checkpoints_best", "tensorboard", "bad_updates", "wandb", "members")

_CHECKPOINT = re.compile(r"frames-\d{1,18}", re.ASCII)
_MAX_COUNT = 2**63


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_checkpoint(value: Any) -> bool:
    return isinstance(value, str) and _CHECKPOINT.fullmatch(value) is not None


# Entries of `status.json` that are read again, and their types.
_STATUS = {
    "state": _is_text,
    "frames": _is_count,
    "frames_of_best": _is_count,
    "checkpoint": _is_checkpoint,
    "reason": _is_text,
}


class RunFolder:
    """The names of the files of a run.

    Attributes:
      path: absolute, since an environment may change the working directory.
    """

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        """Raises UserError if no folder can have that name, or it is empty."""
        if not str(logdir).strip():  # it would be the working directory
            raise UserError(f"--logdir={logdir}: must be a path")
        try:
            self.path = pathlib.Path(os.path.abspath(pathlib.Path(logdir).expanduser()))
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                os.lstat(self.path)  # too long, with a NUL character, a circle of links
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"--logdir={logdir}: {one_line(error)}; must be a folder") from None
        self._made: list[pathlib.Path] = []

    @property
    def config_path(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def status_path(self) -> pathlib.Path:
        return self.path / "status.json"

    @property
    def metrics_path(self) -> pathlib.Path:
        return self.path / "metrics.csv"

    @property
    def evaluation_path(self) -> pathlib.Path:
        return self.path / "evaluation.json"

    @property
    def population_path(self) -> pathlib.Path:
        return self.path / "population.json"

    @property
    def members(self) -> pathlib.Path:
        """Folder of the members of a population."""
        return self.path / "members"

    @property
    def eta_schedule_path(self) -> pathlib.Path:
        return self.path / "eta_schedule.csv"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def best_checkpoint(self) -> pathlib.Path:
        """Folder of the checkpoint with the best evaluation while training."""
        return self.path / "checkpoints_best"

    @property
    def evaluations_path(self) -> pathlib.Path:
        return self.path / "evaluations.csv"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.path / "tensorboard"

    def has_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_path.exists()

    def has_population(self) -> bool:
        """Whether a population was started here."""
        return self.population_path.exists() or self.members.is_dir()

    def has_checkpoint(self) -> bool:
        """Whether there is anything that may be a checkpoint."""
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = os.listdir(self.checkpoints)
        return any(name.removeprefix(REPLACED).startswith("frames-") for name in names)

    def refuse_vanished_checkpoints(self) -> None:
        """For a folder without checkpoints: none is to be waited for, and a new start would cut the
        metrics of a run that was saved.

        Raises:
          UserError: if its status names a checkpoint.
        """
        name = self.read_status().get("checkpoint")
        if name:
            raise UserError(
                f"{self.checkpoints}: holds no checkpoint, but {name} was saved there; restore it, "
                "or use another folder"
            )

    def has_metrics(self) -> bool:
        """Whether there is a `metrics.csv` that is not empty; training begins with its header."""
        try:
            return self.metrics_path.stat().st_size > 0
        except OSError:
            return False

    @property
    def bad_updates(self) -> pathlib.Path:
        return self.path / "bad_updates"

    def write_stacks(self, text: str) -> pathlib.Path | None:
        """Writes `stacks.txt`; returns its path, or None if it cannot be written."""
        path = self.path / "stacks.txt"
        try:
            write_atomically(path, text)
        except OSError:
            return None
        return path

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: if it is a file, cannot be made or written, or what training writes in it is
            something else there (a symbolic link, a named pipe, ...).
        """
        try:
            self._made = make_folder(self.path, parents=True)
            self._refuse_special_files()
            probe = self.path / f".writable.{os.getpid()}"
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC))
            probe.unlink(missing_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"--logdir={self.path}: is a file, or is below one; must be a folder"
            ) from None
        except OSError as error:
            self.undo_prepare()
            raise UserError(
                f"--logdir={self.path}: must be a folder that can be written ({one_line(error)})"
            ) from None

    def _refuse_special_files(self) -> None:
        kinds = [(name, stat.S_ISREG, "a regular file") for name in _FILES]
        kinds += [(name, stat.S_ISDIR, "a folder") for name in _FOLDERS]
        for name, is_kind, kind in kinds:
            try:
                mode = os.lstat(self.path / name).st_mode
            except FileNotFoundError:
                continue
            if not is_kind(mode):
                what = "is a symbolic link; " if stat.S_ISLNK(mode) else ""
                raise UserError(f"{self.path / name}: {what}must be {kind} of this run folder")
        for path in sorted(self.members.glob("*")):  # each a run folder, or Tune's
            refuse_links(path, self.path)

    def undo_prepare(self) -> None:
        """Removes the folders that `prepare` made, if they are empty: for a refused start."""
        remove_empty(self._made)

    def clean(self) -> None:
        """Removes what a killed trainer left half-written; for the holder of the lock only."""
        for name in _WRITTEN_ASIDE:
            for leftover in self.path.glob(f".{name}.*"):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    def as_trained(self, config: Config) -> Config:
        """A config of `load_config` with the number of learners that the run had.

        Its addresses are theirs: this is for what is said of the run, not for what is made from it.
        """
        saved = config_lib.saved_addresses(self._config_text(), self.config_path)
        addresses = saved.get("learner_addresses")
        return dataclasses.replace(
            config, learner_addresses=addresses if isinstance(addresses, str) else ""
        )

    def load_config(self, trust: Trust = trust_lib.NOBODY) -> Config:
        """The run's config.

        Args:
          trust: whose modules it may name.

        Raises:
          UserError: if there is none, it is damaged, or it names a module that is not trusted.
        """
        config = config_lib.from_json(self._config_text(), self.config_path)
        trust_lib.refuse_modules(config, self.config_path, trust)
        return config

    def _config_text(self) -> str:
        try:
            return read_bounded(self.config_path, _MAX_JSON_BYTES).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            why = "there is no config.json"
            if not self.path.is_dir():
                why = "it is a file" if self.path.exists() else "there is no such folder"
            raise UserError(
                f"{self.path}: must be the folder of a run ({why}){nearby_runs.hint(self.path)}"
            ) from None
        except (OSError, ValueError) as error:  # also UnicodeDecodeError
            raise UserError(f"{self.config_path}: cannot be read ({one_line(error)})") from None

    def save_config(self, config: Config) -> None:
        """Writes `config.json`. Raises RunFailed if it cannot be written."""
        with writing(self.config_path):
            write_atomically(self.config_path, config_lib.to_json(config))

    def read_status(self) -> dict[str, Any]:
        """`status.json`, without entries of the wrong type; empty if it cannot be read."""
        try:
            status = read_json_object(self.status_path, _MAX_JSON_BYTES)
        except (OSError, ValueError):
            return {}
        return {
            name: value
            for name, value in status.items()
            if name not in _STATUS or _STATUS[name](value)
        }

    def write_failure(self, error: BaseException, **more: Any) -> None:
        """Writes `failed` and the reason, and `stopped` for a KeyboardInterrupt; other entries are
        kept. Never raises an OSError."""
        reason = printable(
            error if isinstance(error, RunFailed) else f"{type(error).__name__}: {text_of(error)}"
        )
        with contextlib.suppress(RunFailed):  # the first error is the one to show
            if isinstance(error, KeyboardInterrupt):
                self.write_status(STOPPED, **(self._progress() | more))
                return
            self.write_status(FAILED, **(self._progress() | more), reason=reason)

    def write_stopped(self) -> int:
        """Writes `stopped`, and otherwise the status as it was; returns its frames."""
        progress = self._progress()
        self.write_status(STOPPED, **progress)
        return progress["frames"]

    def _progress(self) -> dict[str, Any]:
        status = self.read_status()
        progress: dict[str, Any] = {"frames": status.get("frames", 0)}
        return progress | {name: status[name] for name in ["checkpoint"] if name in status}

    def write_status(self, state: str, frames: int, **more: Any) -> None:
        """Writes the state of the run: `running`, `stopped` (on request), `finished` or `failed`.

        Raises:
          RunFailed: if it cannot be written (unless it is `failed` that is being written).
        """
        status = {
            "state": state,
            "frames": frames,
            "pid": os.getpid(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **more,
        }
        text = json.dumps(status, indent=2) + "\n"
        try:
            with writing(self.status_path):
                write_atomically(self.status_path, text)
        except RunFailed:
            if state != FAILED:
                raise
            # The disk may be full, and the status must still become "failed":
            # written over the old text, it needs no room.
            with contextlib.suppress(OSError):
                _overwrite(self.status_path, text)


def _overwrite(path: pathlib.Path, text: str) -> None:
    """Writes JSON over a file in one call, filled up with spaces so that no old text is left.

    If it is longer, and there is no room for that, the old text stays.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            before = os.pread(descriptor, status.st_size, 0)
            content = text.encode().ljust(len(before))
            if os.pwrite(descriptor, content, 0) != len(content):
                os.pwrite(descriptor, before, 0)
                os.ftruncate(descriptor, len(before))
    finally:
        os.close(descriptor)
