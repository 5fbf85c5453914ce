"""γ and λ of another run as a step function of frames (`--eta_schedule=replay`).

The file that the user names is read once, when the run begins (`pin`, `keep`). From then on the
run reads its own copy, `eta_schedule.csv`, whose SHA-256 stands in its config. No TensorFlow here.

A row of a `metrics.csv` reports the γ and λ of the last update before it. They hold from the frames
at which that update began: with a row for every update the replay is exact, with fewer rows each
value comes in when the other run had it, and is held until the next row's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.config import Config
from meta_impala.config.text import shown
from meta_impala.errors import UserError, one_line
from meta_impala.storage import metrics_table
from meta_impala.storage.files import read_bounded, write_atomically, writing
from meta_impala.storage.run_folder import RunFolder

_NEEDED = ("frames", "gamma", "lambda")
# Damaged lines that are named in a message.
_MOST_LINES = 3


def pin(config: Config) -> Config:
    """The config of a run to begin, with the SHA-256 of its file; unchanged if it replays nothing.

    Raises:
      UserError: if the file cannot be read, is damaged, or is not the one of
        `--eta_schedule_sha256`.
    """
    if config.eta_schedule != "replay":
        return config
    return dataclasses.replace(config, eta_schedule_sha256=_digest(_original(config)))


def keep(folder: RunFolder, config: Config) -> None:
    """Copies the file of a pinned config into the folder of a run that begins.

    Raises:
      UserError: as `pin`.
      RunFailed: if the copy cannot be written.
    """
    if config.eta_schedule == "replay" and not folder.has_run():
        write_copy(folder, _original(config))


def write_copy(folder: RunFolder, content: bytes) -> None:
    """Writes the copy. Raises RunFailed if it cannot be written."""
    with writing(folder.eta_schedule_path):
        write_atomically(folder.eta_schedule_path, content)


def read_copy(folder: RunFolder, config: Config) -> bytes:
    """The copy, as it was when the run began. Raises UserError if it is missing or changed."""
    path = folder.eta_schedule_path
    try:
        content = read_bounded(path, metrics_table.MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error)}); must be the copy of "
            f"{shown(config.eta_schedule_file)} that this run replays"
        ) from None
    if _digest(content) != config.eta_schedule_sha256:
        raise UserError(
            f"{path}: has changed since the run began; its SHA-256 must be "
            f"{config.eta_schedule_sha256} (--eta_schedule_sha256)"
        )
    return content


def load(folder: RunFolder, config: Config) -> StepFunction | None:
    """γ and λ of the run's copy; None if the run replays nothing.

    Raises:
      UserError: if the copy is missing, changed or damaged.
    """
    if config.eta_schedule != "replay":
        return None
    return _parse(read_copy(folder, config), str(folder.eta_schedule_path))


def _original(config: Config) -> bytes:
    """The content of `--eta_schedule_file`, checked."""
    given = f"--eta_schedule_file={shown(config.eta_schedule_file)}"
    try:
        path = pathlib.Path(config.eta_schedule_file).expanduser()
        content = read_bounded(path, metrics_table.MAX_BYTES)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{given}: cannot be read ({one_line(error)}); must be the metrics.csv of a run"
        ) from None
    _parse(content, given)
    if config.eta_schedule_sha256 not in ("", _digest(content)):
        raise UserError(
            f"{given}: has the SHA-256 {_digest(content)}; must be that of "
            f"--eta_schedule_sha256={config.eta_schedule_sha256}"
        )
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parse(content: bytes, source: str) -> StepFunction:
    """The step function of a file. Raises UserError, naming the source."""
    table = metrics_table.parse_table(content)
    if table.damaged:
        lines = ", ".join(map(str, table.damaged[:_MOST_LINES]))
        more = ", ..." if len(table.damaged) > _MOST_LINES else ""
        raise UserError(
            f"{source}: line {lines}{more} is damaged; must be a whole metrics.csv with columns "
            "frames, gamma and lambda"
        )
    # Before the first update that was applied, γ and λ are empty.
    rows = [row for row in table.rows if all(row.get(name) for name in _NEEDED)]
    if not rows:
        raise UserError(
            f"{source}: has no row with frames, gamma and lambda; must be the metrics.csv of a run"
        )
    values = tuple((float(row["gamma"]), float(row["lambda"])) for row in rows)
    for row, pair in zip(rows, values, strict=True):
        if not all(0.0 <= value <= 1.0 for value in pair):
            raise UserError(
                f"{source}: gamma and lambda after {row['frames']} frames are {row['gamma']} and "
                f"{row['lambda']}; must be in [0, 1]"
            )
    return StepFunction(_starts(table.rows, rows), values)


def _starts(
    all_rows: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, str]]
) -> tuple[int, ...]:
    """From which frames on the values of each row hold: see the top of this file."""
    starts = {}
    frames, updates = 0, 0
    for row in all_rows:
        then, before = int(row["frames"]), frames
        count = row.get("updates", "")
        made = int(count) - updates if count.isdecimal() else 0
        # The frames of one update, if they are alike; all updates but the last came before.
        starts[then] = then - round((then - before) / made) if made > 0 else then
        frames, updates = then, updates + max(made, 0)
    return tuple(starts[int(row["frames"])] for row in rows)
