"""A run is its folder: config, status, metrics, checkpoints, evaluation. No TensorFlow here."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import time
from typing import Any

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import UserError

RUNNING, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replaces a file as a whole: a reader sees the old text or the new, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """The complete rows of a `metrics.csv`, as text; a torn last line is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    complete = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(complete))
    return [
        row for row in rows if None not in row and all(value is not None for value in row.values())
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
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.path / "tensorboard"

    def has_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config_path.exists()

    def prepare(self) -> None:
        """Makes the folder and checks that it can be written.

        Raises:
          UserError: if it is a file, or cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"--logdir={self.path}: is a file, or lies below one; must be a folder"
            ) from None
        except OSError as error:
            raise UserError(
                f"--logdir={self.path}: must be a folder that can be written ({error.strerror})"
            ) from None

    def load_config(self) -> Config:
        """The run's config.

        Raises:
          UserError: if there is none or it is damaged.
        """
        try:
            text = self.config_path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"--logdir={self.path}: must be the folder of a run (there is no config.json)"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config_path}: cannot be read ({error})") from None
        return config_lib.from_json(text, self.config_path)

    def save_config(self, config: Config) -> None:
        """Writes `config.json`."""
        write_atomically(self.config_path, config_lib.to_json(config))

    def read_status(self) -> dict[str, Any]:
        """`status.json`, or an empty dict if there is none that can be read."""
        try:
            status = json.loads(self.status_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, state: str, frames: int, **more: Any) -> None:
        """Says what the run is doing: `running`, `stopped` (on request), `finished` or `failed`."""
        status = {
            "state": state,
            "frames": frames,
            "pid": os.getpid(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **more,
        }
        write_atomically(self.status_path, json.dumps(status, indent=2) + "\n")
