"""`metrics.csv`: one line per row, each parsed on its own. No TensorFlow here.

The cells are numbers, so quotes mean nothing, and a line that is damaged (a flipped bit, NUL bytes,
a truncated end) loses no other line.
"""

from __future__ import annotations

import bisect
import collections
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meta_impala.config.metric_columns import PREFIXES, learned_columns
from meta_impala.errors import warn
from meta_impala.storage.files import read_bounded, unused_name, write_atomically, writing

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
    "bad_updates",
    "actor_restarts",
    "rss_mib",
    "cpu_seconds",
)

# What every table has a place for. What is learned besides has columns of its own, after these.
_LEARNED_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)

# A million rows.
MAX_BYTES = 2**28
_NUMBER = re.compile(r"-?(\d{1,40}(\.\d{0,40})?([eE][+-]?\d{1,3})?|inf|nan)", re.ASCII)
_FRAMES = re.compile(r"\d{1,18}", re.ASCII)


class Table(NamedTuple):
    """What could be read of a file of metrics.

    Attributes:
      rows: in the order of their frames; cells as text, by column.
      damaged: numbers of the lines that could not be read (the header is line 1).
      content: of the file, to be kept if something is damaged.
    """

    rows: list[dict[str, str]]
    damaged: list[int]
    content: bytes


def read_table(path: pathlib.Path) -> Table:
    """Reads a file of metrics, and reports what is damaged; a missing file is empty.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
      ValueError: if it is too large.
    """
    try:
        return parse_table(read_bounded(path, MAX_BYTES))
    except FileNotFoundError:
        return Table([], [], b"")


def parse_table(content: bytes) -> Table:
    """The same of a file's content."""
    # An editor may have saved it with other line ends.
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    torn = lines.pop()  # empty, unless a power cut left half a line
    damaged = [len(lines) + 1] if torn else []
    if not lines:
        return Table([], damaged, content)
    cells = [_cells(line) for line in lines[1:]]
    header, is_intact = _header(lines[0], cells)
    if not is_intact:
        damaged.append(1)
    numbered = []
    for number, row in enumerate(cells, start=2):
        named = dict(zip(header, row or (), strict=False))
        if row and len(row) == len(header) and _FRAMES.fullmatch(named.get("frames", "")):
            numbered.append((number, named))
        else:
            damaged.append(number)
    kept = _increasing([int(row["frames"]) for _, row in numbered])
    damaged += [number for i, (number, _) in enumerate(numbered) if i not in kept]
    rows = [row for i, (_, row) in enumerate(numbered) if i in kept]
    return Table(rows, sorted(damaged), content)


def read_metrics(path: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a `metrics.csv` that can be read, as text; none if there is no such file."""
    try:
        return read_table(path).rows
    except (OSError, ValueError):
        return []


def keep_damaged(path: pathlib.Path, content: bytes, damaged: Sequence[int], rows: int) -> None:
    """Keeps a table with damaged lines aside, as it was found, and says so.

    Args:
      path: of the table.
      content: of it.
      damaged: numbers of the lines that could not be read (the header is line 1).
      rows: how many rows could be read.

    Raises:
      RunFailed: if it cannot be kept.
    """
    aside = unused_name(path)
    with writing(aside):
        write_atomically(aside, content)
    warn(
        f"warning: {path}: {len(damaged)} of {rows + len(damaged)} lines are damaged and left out "
        f"({lines_named(damaged)}); the file is kept as {aside.name}"
    )


def left_out(path: pathlib.Path, numbers: Sequence[int]) -> str:
    """For messages: that the damaged lines of a table, which has some, are not used."""
    return f"{path}: {len(numbers)} damaged lines are left out ({lines_named(numbers)})"


def lines_named(numbers: Sequence[int]) -> str:
    """`line 3, 7`: the first five."""
    return f"line {', '.join(map(str, numbers[:5]))}{', …' * (len(numbers) > 5)}"


def header_line(others: Sequence[str] = ()) -> str:
    """The first line of a file.

    Args:
      others: columns after `COLUMNS`.
    """
    return ",".join((*COLUMNS, *others)) + "\n"


def line_of(cells: Mapping[str, str], others: Sequence[str] = ()) -> str:
    """A row as a line; a column that it does not have stays empty.

    Args:
      cells: text by column.
      others: columns after `COLUMNS`.
    """
    return ",".join(cells.get(name, "") for name in (*COLUMNS, *others)) + "\n"


def _cells(line: bytes) -> list[str] | None:
    """The cells of a line, or None if one of them is not a number."""
    try:
        cells = line.decode("ascii").split(",")
    except UnicodeDecodeError:
        return None
    return cells if all(not cell or _NUMBER.fullmatch(cell) for cell in cells) else None


def _header(line: bytes, rows: Sequence[list[str] | None]) -> tuple[list[str], bool]:
    """The names of the columns, and whether they are undamaged.

    A table of today's width whose header is mostly today's has today's columns. Otherwise (a table
    of an older version) a name with one wrong character, or two names whose comma was lost, are
    recognised by the columns that are missing.
    """
    names = line.decode("latin-1").split(",")
    missing = [name for name in COLUMNS if name not in names]
    if not missing:
        is_intact = len(set(names)) == len(names)  # every column once, in any order
        return names, is_intact and _are_learned({*names} - {*COLUMNS})
    widths = collections.Counter(len(row) for row in rows if row)
    is_todays_width = bool(widths) and widths.most_common(1)[0][0] == len(COLUMNS)
    if is_todays_width and len(missing) < len(COLUMNS) // 2:
        return list(COLUMNS), False
    mended: list[str] = []
    for name in names:
        mended += [name] if name in COLUMNS else _nearest(name, missing)
    return mended, mended == names


def _are_learned(names: set[str]) -> bool:
    """Whether these are `learned_columns` of something."""
    learned = [name for name in names if names.issuperset(prefix + name for prefix in PREFIXES)]
    return {*learned_columns(learned)} == names and all(map(_LEARNED_NAME.fullmatch, learned))


def _nearest(name: str, missing: Sequence[str]) -> list[str]:
    """The column, or the two columns, that a damaged name was; otherwise the name itself."""
    for column in missing:
        if len(column) == len(name) and sum(map(str.__ne__, column, name)) == 1:
            return [column]
        rest = name[len(column) + 1 :]
        if name.startswith(column) and rest in missing:
            return [column, rest]
    return [name]


def _increasing(frames: Sequence[int]) -> set[int]:
    """Indices of a longest increasing subsequence: what is left without the damaged counts."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(frames):
        place = bisect.bisect_left(tails, value)
        before.append(ends[place - 1] if place else -1)
        tails[place : place + 1] = [value]
        ends[place : place + 1] = [index]
    kept = set()
    index = ends[-1] if ends else -1
    while index >= 0:
        kept.add(index)
        index = before[index]
    return kept
