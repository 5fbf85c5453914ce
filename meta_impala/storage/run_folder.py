"""A run is its folder: config, status, metrics, checkpoints, evaluation. No TensorFlow here."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import os
import pathlib
import sys
import time
from typing import Any

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.files import read_bounded, write_atomically, writing

RUNNING, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"

# No config, status or manifest comes near; what a hostile file may make us read.
_MAX_JSON_BYTES = 2**20


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """The complete rows of a `metrics.csv`, as text; a torn last line is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(complete))
    return [
        row
        for row in rows
        if None not in row
        and all(value is not None for value in row.values())
        and row.get("frames", "").isdecimal()
    ]


class RunFolder:
    """The names of the files of a run."""

    def __init__(self, logdir: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(logdir).expanduser()

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
        """Whether a run was begun here."""
        return self.config_path.exists()

    def has_checkpoint(self) -> bool:
        """Whether there is anything that may be a checkpoint."""
        return any(self.checkpoints.glob("frames-*"))

    @property
    def bad_updates(self) -> pathlib.Path:
        return self.path / "bad_updates"

    @property
    def stacks_path(self) -> pathlib.Path:
        return self.path / "stacks.txt"

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: if it is a file, or cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"--logdir={self.path}: is a file, or lies below one; must be a folder"
            ) from None
        except OSError as error:
            raise UserError(
                f"--logdir={self.path}: must be a folder that can be written ({error.strerror})"
            ) from None

    def clean(self) -> None:
        """Removes what a killed trainer left half-written; for the holder of the lock only."""
        for name in ("config.json", "status.json", "metrics.csv", "evaluations.csv", "writable"):
            for leftover in self.path.glob(f".{name}.*"):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    def load_config(self) -> Config:
        """The run's config.

        Raises:
          UserError: if there is none, it is damaged, or its environment is code in this folder.
        """
        try:
            text = read_bounded(self.config_path, _MAX_JSON_BYTES).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"--logdir={self.path}: must be the folder of a run (there is no config.json)"
            ) from None
        except (OSError, ValueError) as error:  # also UnicodeDecodeError
            raise UserError(f"{self.config_path}: cannot be read ({error})") from None
        config = config_lib.from_json(text, self.config_path)
        self.refuse_own_code(config.environment)
        return config

    def refuse_own_code(self, environment: str) -> None:
        """Before the environment of its config is looked for, which imports the module it names.

        A run folder from elsewhere may have brought a module of its own, and importing `a.b.c` runs
        `a` and `a.b` too, whether there is an `a.b.c` or not.

        Raises:
          UserError: if a part of the module lies in this folder.
        """
        parts = environment.rpartition(":")[0].split(".")
        inside = self.path.resolve()
        for entry in sys.path:
            place = pathlib.Path(entry or ".")
            for part in filter(None, parts):
                found = [place / part, *place.glob(f"{glob.escape(part)}.*")]
                place = place / part
                if any(one.exists() and one.resolve().is_relative_to(inside) for one in found):
                    raise UserError(
                        f"{self.config_path}: --environment={environment}: names code that lies "
                        "in the run folder; must be a module elsewhere"
                    )

    def save_config(self, config: Config) -> None:
        """Writes `config.json`. Raises RunFailed if it cannot be written."""
        with writing(self.config_path):
            write_atomically(self.config_path, config_lib.to_json(config))

    def read_status(self) -> dict[str, Any]:
        """`status.json`, or an empty dict if there is none that can be read."""
        try:
            status = json.loads(read_bounded(self.status_path, _MAX_JSON_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_failure(self, error: BaseException, **more: Any) -> None:
        """Says `failed` and why; never raises an OSError. What is not given stays as it was."""
        reason = str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(RunFailed):  # the first error is the one to show
            self.write_status(FAILED, **(self._progress() | more), reason=reason)

    def write_stopped(self) -> int:
        """Says `stopped`, where the run was before; returns its frames."""
        progress = self._progress()
        self.write_status(STOPPED, **progress)
        return progress["frames"]

    def _progress(self) -> dict[str, Any]:
        status = self.read_status()
        frames = status.get("frames")
        progress: dict[str, Any] = {"frames": frames if isinstance(frames, int) else 0}
        return progress | {name: status[name] for name in ["checkpoint"] if name in status}

    def write_status(self, state: str, frames: int, **more: Any) -> None:
        """Says what the run is doing: `running`, `stopped` (on request), `finished` or `failed`.

        Raises:
          RunFailed: if it cannot be written (and this is not what it says anyway).
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
            # The disk is full, perhaps, which must not keep the status from saying "failed":
            # written over the old text, it needs no room.
            with contextlib.suppress(OSError), open(self.status_path, "r+b", buffering=0) as file:
                content = text.encode()
                file.write(content)
                file.truncate(len(content))
