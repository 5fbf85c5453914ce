"""The published scores: the agent of each column, and the medians computed from them.

The tables are data of the package, in `meta_impala/published/`. `sources.csv` has a row for every
column of every table: what it means and where it was read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.resources
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable

import numpy as np

from meta_impala.errors import UserError, one_line
from meta_impala.evaluation import scores
from meta_impala.storage.csv_rows import rows_by_name
from meta_impala.storage.files import read_bounded

_MAX_BYTES = 2**22
FOLDER: Traversable = importlib.resources.files("meta_impala") / "published"
SCORE_TABLES = (
    "impala.csv", "others.csv", "reimpl.csv", "discorl2025.csv", "slmlab_a2c_ppo.csv",
)  # fmt: skip
# How evaluation games begin, as in `sources.csv`.
NO_OP, HUMAN_STARTS, STICKY = "no-op", "human starts", "sticky actions"


def constants_for(starts: str) -> str:
    """Which human and random scores normalise: those of no-op starts for sticky actions too, since
    none were published for them."""
    return "human_start" if starts == HUMAN_STARTS else "noop"


@dataclasses.dataclass(frozen=True)
class Column:
    """One published agent: its mean raw score per game, and how that was measured.

    Attributes:
      name: of the column, as in the table.
      agent: readable name.
      starts: `no-op`, `human starts`, `sticky actions`, `normal`, or empty if not stated.
      frames: environment frames of training per game; None if not stated.
      evaluation: `final policy, 200 games`, `best in training`, `training return`, or empty.
      source: where it was read.
      by_game: game in CamelCase -> mean raw score.
    """

    name: str
    agent: str
    starts: str
    frames: int | None
    evaluation: str
    source: str
    by_game: Mapping[str, float]

    def human_normalised(self, games: Sequence[str] | None = None) -> dict[str, float]:
        """Human-normalised scores of the games (of all that were published)."""
        constants = constants_for(self.starts)
        chosen = self.by_game if games is None else [g for g in games if g in self.by_game]
        normalised = {
            game: scores.human_normalised(game, self.by_game[game], constants) for game in chosen
        }
        return {game: score for game, score in normalised.items() if score is not None}


@dataclasses.dataclass(frozen=True)
class PublishedMedian:
    """A row of `medians.csv`; percent, None where nothing was published."""

    agent: str
    starts: str
    discount: str
    median: float | None
    median_text: str
    source: str


def _text(path: Traversable) -> str:
    if isinstance(path, pathlib.Path):  # it may be the user's: a pipe, a device
        return read_bounded(path, _MAX_BYTES).decode("utf-8")
    return path.read_text(encoding="utf-8")


def read_table(path: Traversable) -> list[dict[str, str]]:
    """The rows of a published table; its first line, a comment, names the source.

    Raises:
      UserError: if it cannot be read.
    """
    try:
        return rows_by_name(_text(path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({one_line(error)}); must be a published table, as in {FOLDER}"
        ) from None


@contextlib.contextmanager
def _tables_of(folder: Traversable) -> Iterator[None]:
    """Turns what a table with other columns, or with other text, leads to into a UserError."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        reason = one_line(error)
        raise UserError(
            f"{folder}: its tables are damaged ({reason}); must be published tables, as in {FOLDER}"
        ) from None


def read_columns(folder: Traversable = FOLDER) -> dict[str, Column]:
    """Every column of per-game mean scores, by name, in the order of the tables.

    Columns of standard deviations are left out.

    Raises:
      UserError: if a table cannot be read, or has a column that `sources.csv` does not know.
    """
    with _tables_of(folder):
        sources = {(row["file"], row["column"]): row for row in read_table(folder / "sources.csv")}
        columns = {}
        for table in SCORE_TABLES:
            rows = read_table(folder / table)
            for name in rows[0]:
                if (table, name) not in sources:
                    raise UserError(f"{folder / 'sources.csv'}: has no row for {name} of {table}")
                source = sources[table, name]
                if not source["agent"]:
                    continue
                columns[name] = Column(
                    name=name,
                    agent=source["agent"],
                    starts=source["starts"],
                    frames=int(source["frames"]) if source["frames"] else None,
                    evaluation=source["evaluation"],
                    source=source["source"],
                    by_game={row["game"]: float(row[name]) for row in rows if row[name]},
                )
        return columns


def read_medians(folder: Traversable = FOLDER) -> list[PublishedMedian]:
    """The published medians of 57 games, in the order of the table.

    Raises:
      UserError: if the table cannot be read.
    """
    with _tables_of(folder):
        medians = []
        for row in read_table(folder / "medians.csv"):
            text = row["median_pct"]
            # "about 165" was read off a figure.
            number = text.removeprefix("about ")
            medians.append(
                PublishedMedian(
                    agent=row["agent"],
                    starts=row["starts"],
                    discount=row["discount"],
                    median=float(number) if number else None,
                    median_text=text,
                    source=row["source"],
                )
            )
        return medians


def median_percent(column: Column, games: Sequence[str] | None = None) -> float | None:
    """Median human-normalised score in percent, over the games given or all; None if none was
    published."""
    normalised = column.human_normalised(games)
    return 100.0 * float(np.median(list(normalised.values()))) if normalised else None
