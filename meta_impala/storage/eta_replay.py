"""η of another run as a step function of frames (`--eta_schedule=replay`).

What is replayed are the columns that `--meta_parameters` names; a file without one of them is
refused.

The file that the user names is read once, when the run begins (`pin`, `keep`). From then on the
run reads its own copy, `eta_schedule.csv`, whose SHA-256 stands in its config. The file may be made
by hand: three columns are enough (`_plain`). No TensorFlow here.

A row of a `metrics.csv` reports the η of the last update before it. It holds from the frames at
which that update began: with a row for every update the replay is exact (to the eight digits of the
file), with fewer rows each value comes in when the other run had it, and is held until the next
row's. With `--sample_reuse` all updates on a batch begin at the same frames, so that the values of
the last of them hold for the batch; the other run is taken to have the `--sample_reuse` of this
one, as far as its counts of updates allow.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from meta_impala.algorithm.functions_of_frames import StepFunction
from meta_impala.config import Config
from meta_impala.config.fields import MAX_FRAMES
from meta_impala.config.hyper_parameters import (
    GAMMA,
    LAMBDA,
    allowed_without_learning,
    stops_learning,
)
from meta_impala.config.text import normalized, shown
from meta_impala.errors import UserError, one_line
from meta_impala.storage import metrics_table
from meta_impala.storage.files import read_bounded, write_atomically, writing
from meta_impala.storage.run_folder import RunFolder

# Columns of whole numbers that are read.
_COUNTS = (b"frames", b"updates")
# Damaged lines that are named in a message.
_MOST_LINES = 3
# The file has eight digits: a learned value at an end of its range may be rounded beyond it.
_ROUNDING = 1e-6


def pin(config: Config) -> Config:
    """The config of a run to begin, with the absolute path of its file and its SHA-256.

    Call it before code of the environment runs, which may change the working directory. The path
    stays as it is if no setting can hold the absolute one (a folder whose name does not print).

    Args:
      config: resolved; one that replays nothing is returned unchanged.

    Raises:
      UserError: if the file cannot be read, is damaged, or is not the one of
        `--eta_schedule_sha256`.
    """
    if config.eta_schedule != "replay":
        return config
    path, digest = config.eta_schedule_file, _digest(_original(config))
    with contextlib.suppress(ValueError):
        path = normalized(str(_absolute(path)))
    return dataclasses.replace(config, eta_schedule_file=path, eta_schedule_sha256=digest)


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


def read(folder: RunFolder, config: Config) -> bytes:
    """The copy; before the run begins, the file that will be copied. Raises UserError as both."""
    try:
        return read_copy(folder, config)
    except UserError:
        if folder.has_run():
            raise
        return _original(config)


def load(folder: RunFolder, config: Config) -> StepFunction | None:
    """η of what `read` gives, in the order of `Config.varied`; None if the run replays nothing.

    Raises:
      UserError: if the copy is missing, changed or damaged.
    """
    if config.eta_schedule != "replay":
        return None
    return _parse(read(folder, config), str(folder.eta_schedule_path), config)


def _original(config: Config) -> bytes:
    """The content of `--eta_schedule_file`, checked."""
    given = f"--eta_schedule_file={shown(config.eta_schedule_file)}"
    try:
        content = read_bounded(_absolute(config.eta_schedule_file), metrics_table.MAX_BYTES)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{given}: cannot be read ({one_line(error)}); must be the metrics.csv of a run"
        ) from None
    _refuse_unclear(content, given)
    _parse(content, given, config)
    if config.eta_schedule_sha256 not in ("", _digest(content)):
        raise UserError(
            f"{given}: has the SHA-256 {_digest(content)}; must be that of "
            f"--eta_schedule_sha256={config.eta_schedule_sha256}"
        )
    return content


def _absolute(path: str) -> pathlib.Path:
    return pathlib.Path(path).expanduser().absolute()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parse(content: bytes, source: str, config: Config) -> StepFunction:
    """The step function of a file. Raises UserError, naming the source."""
    table, names = metrics_table.parse_table(_plain(content)), config.varied
    needed = ("frames", *names)
    listed = ", ".join(needed)
    if table.damaged:
        lines = ", ".join(map(str, table.damaged[:_MOST_LINES]))
        more = ", ..." if len(table.damaged) > _MOST_LINES else ""
        raise UserError(
            f"{source}: line {lines}{more} is damaged; must be a whole metrics.csv, numbers with "
            f"nothing but commas between them, with columns {listed}"
        )
    for name in needed:
        if table.rows and name not in table.rows[0]:
            raise UserError(
                f"{source}: has no column {name}; must be the metrics.csv of a run with all of "
                f"--meta_parameters={config.meta_parameters}"
            )
    # Before the first update that was applied, η is empty.
    rows = [row for row in table.rows if all(row[name] for name in needed)]
    if not rows:
        raise UserError(f"{source}: has no row with {listed}; must be the metrics.csv of a run")
    for name in names:
        _check_column(rows, name, source, config)
    values = tuple(tuple(float(row[name]) for name in names) for row in rows)
    return StepFunction(_starts(table.rows, rows, config.sample_reuse), values)


def _cells(content: bytes) -> list[list[bytes]]:
    """The lines of a file without byte order mark and line ends; the last may lack its own."""
    content = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return [line.split(b",") for line in content.rstrip(b"\n").split(b"\n")]


def _plain(content: bytes) -> bytes:
    """A file as the program writes one, from what a person or another program has written.

    Counts that are spelled as floats, such as 1e3, are spelled in digits. A last line without its
    end counts if it has all its cells; in a run's own table it would be taken for half-written.
    """
    rows = _cells(content)
    for line, place, number in _counts_as_floats(rows):
        if _is_count(number):
            rows[line][place] = b"%d" % int(number)
    return b"".join(b",".join(cells) + b"\n" for cells in rows)


def _refuse_unclear(content: bytes, source: str) -> None:
    """Refuses what a file may not have where a run begins; copies of older versions may have it.

    Args:
      content: of the file.
      source: of it, for messages.

    Raises:
      UserError: if two columns have one name, or a count is a number that is not whole.
    """
    rows = _cells(content)
    header = rows[0]
    for name, count in collections.Counter(header).items():
        if name and count > 1:
            shown_name = shown(name.decode("latin-1"))
            raise UserError(f"{source}: has {count} columns {shown_name}; must be one")
    for line, place, number in _counts_as_floats(rows):
        if not _is_count(number):
            raise UserError(
                f"{source}: line {line + 1}: {header[place].decode()} is "
                f"{shown(rows[line][place].decode())}; must be a whole number up to {MAX_FRAMES}"
            )


def _counts_as_floats(rows: Sequence[Sequence[bytes]]) -> Iterator[tuple[int, int, float]]:
    """Row, place in it and number of every count that is not spelled in digits."""
    for place in [place for place, name in enumerate(rows[0]) if name in _COUNTS]:
        for line, cells in enumerate(rows[1:], start=1):
            number = _number(cells[place]) if place < len(cells) else None
            if number is not None:
                yield line, place, number


def _number(cell: bytes) -> float | None:
    """The number of a cell that is not spelled in digits; None for one that is, and for no number.

    What is no number is left to the table to report, and so is a space, which a digit may become.
    """
    if cell.isdigit() or cell != cell.strip():
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _is_count(number: float) -> bool:
    return number.is_integer() and 0 <= number <= MAX_FRAMES


def _check_column(
    rows: Sequence[Mapping[str, str]], name: str, source: str, config: Config
) -> None:
    """Every value of a column is one that the row of the table may have."""
    low, high = allowed_without_learning(config, name)
    is_discount = name in (GAMMA, LAMBDA)
    rounding = 0.0 if is_discount else _ROUNDING * high
    for row in rows:
        if not low - rounding <= float(row[name]) <= high + rounding:
            whose = "" if is_discount else f", the range of {name} (--meta_parameter_ranges)"
            raise UserError(
                f"{source}: {name} after {row['frames']} frames is {row[name]}; must be in "
                f"[{low:g}, {high:g}]{whose}"
            )
        if stops_learning(name, float(row[name])):
            raise UserError(
                f"{source}: {name} after {row['frames']} frames is {row[name]}; must be above 0, "
                "or nothing would be learned"
            )


def _starts(
    all_rows: Sequence[Mapping[str, str]], rows: Sequence[Mapping[str, str]], reuse: int
) -> tuple[int, ...]:
    """From which frames on the values of each row hold: see the top of this file."""
    starts = {}
    frames, updates = 0, 0
    # A row follows the last update on a batch: with this reuse all counts are multiples of it.
    counts = [row["updates"] for row in all_rows if row.get("updates", "").isdecimal()]
    reuse = math.gcd(reuse, *map(int, counts))
    for row in all_rows:
        then, before = int(row["frames"]), frames
        count = row.get("updates", "")
        made = int(count) - updates if count.isdecimal() else 0
        # The frames of one batch, if they are alike; all batches but the last came before.
        starts[then] = then - round((then - before) * reuse / made) if made > 0 else then
        frames, updates = then, updates + max(made, 0)
    return tuple(starts[int(row["frames"])] for row in rows)
