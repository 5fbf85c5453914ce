"""Sends the rows of `metrics.csv` to Weights & Biases too (`--wandb_project`; extra `wandb`).

Its environment variables apply, for example `WANDB_MODE=offline`. An error is printed once and
never ends a run. The id of the record is kept in the run folder
(`wandb/record_id`), so a continued run, also one that a scheduler has requeued, continues the same
record.

Nothing that was sent can be cut. Rows of a part of the run that a kill has lost stay in the record,
so every row has the frames that its start continued from: a row above those of a later start is of
a lost part.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import UserError, one_line, warn
from meta_impala.storage.files import make_folder, read_bounded, write_atomically
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.ending import ForeignCodeThread
from meta_impala.training.metric_tags import tag

# What every chart is drawn against.
_STEP = "frames"
_START = "start"
# A scheduler kills a run soon after its stop signal.
_SECONDS_TO_FINISH = 20.0
# What the service accepts as an id; `/` or `..` would lead its files out of the folder.
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ID_BYTES = 1000


def check(config: Config) -> None:
    """Checks that the package is installed if the settings need it.

    Raises:
      UserError: if the package is not installed.
    """
    if config.wandb_project and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"--wandb_project={config.wandb_project}: needs wandb, which is missing: pip install "
            "'meta_impala[wandb]'"
        )


class WeightsAndBiases:
    """A record of a run at Weights & Biases."""

    def __init__(self, config: Config, folder: RunFolder, frames: int) -> None:
        """Begins the record, or continues the one of this folder; its files are in `wandb/`.

        Args:
          config: of the run.
          folder: of the run.
          frames: that this start continues from.
        """
        self._start = frames
        self._run: Any = None
        try:
            import wandb

            self._run = wandb.init(
                project=config.wandb_project,
                name=folder.path.name,
                id=record_id(folder),
                resume="allow",
                dir=str(folder.path),
                config=json.loads(config_lib.to_json(config)),
                settings=wandb.Settings(
                    console="off", silent=True, save_code=False, disable_git=True
                ),
            )
            self._run.define_metric("*", step_metric=_STEP)
        except Exception as error:  # noqa: BLE001 - network, account, disk: none of it is the run's
            self._give_up(error)

    def log(self, row: Mapping[str, float]) -> None:
        """Sends a row of metrics; values that are NaN are left out."""
        if self._run is None:
            return
        try:
            self._run.log(
                {_START: self._start}
                | {
                    name if name == _STEP else tag(name): value
                    for name, value in row.items()
                    if not math.isnan(value)
                }
            )
        except Exception as error:  # noqa: BLE001
            self._give_up(error)

    def close(self) -> None:
        """Ends the record; what is not sent within 20 s is left to `wandb sync`."""
        run, self._run = self._run, None
        if run is None:
            return
        thread = _Finish(run)
        thread.start()
        thread.join(_SECONDS_TO_FINISH)
        if thread.is_alive():
            self._give_up(f"not everything was sent within {_SECONDS_TO_FINISH:g} s")
        elif thread.error is not None:
            self._give_up(thread.error)

    def _give_up(self, error: Exception | str) -> None:
        self._run = None
        reason = " ".join(str(error).split())
        warn(f"warning: Weights & Biases: {reason}; the run continues without it")


class _Finish(ForeignCodeThread):
    """Ends a record, which waits for the network."""

    def __init__(self, run: Any) -> None:
        super().__init__("wandb-finish")
        self.error: Exception | None = None
        self._run = run

    def run(self) -> None:
        try:
            self._run.finish()
        except Exception as error:  # noqa: BLE001
            self.error = error


def record_id(folder: RunFolder) -> str:
    """The id of the folder's record, made at the first start, and where the file is damaged."""
    path = folder.path / "wandb" / "record_id"
    try:
        found = read_bounded(path, _MAX_ID_BYTES).decode("utf-8").strip()
        if _ID.fullmatch(found):
            return found
        warn(f"warning: {path}: is damaged; this run gets a new record at Weights & Biases")
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = one_line(error)
        warn(f"warning: {path}: {reason}; this run gets a new record at Weights & Biases")
    made = uuid.uuid4().hex
    make_folder(path.parent)
    write_atomically(path, f"{made}\n")
    return made
