"""A comparison as a report: what the terminal shows, `report.md`, CSV files and pictures."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from importlib.resources.abc import Traversable

from meta_impala.analysis import comparison as comparison_lib
from meta_impala.analysis import figures, limitations, statistics
from meta_impala.analysis.comparison import Comparison
from meta_impala.analysis.comparison_csv import csv_files
from meta_impala.analysis.comparison_tables import (
    against_fixed_text,
    aggregates_table,
    atari_n_table,
    differences_table,
    every_difference_table,
    games_table,
    improvements_table,
    medians_table,
)
from meta_impala.analysis.results import Results
from meta_impala.environments import ATARI_57
from meta_impala.errors import UserError
from meta_impala.published import tables as published
from meta_impala.storage.files import write_atomically

_MOST_ROWS = 500  # of the long table in the Markdown; the CSV file has them all


def _legend(comparison: Comparison) -> str:
    used = {letter for d in comparison.differences for letter in d.marks}
    used |= set(comparison.baseline_marks)
    lines = [f"({m}) {meaning}" for m, meaning in comparison_lib.MARKS.items() if m in used]
    if any(row.interval and row.interval.over == "games" for row in comparison.games):
        lines.append("* one seed: the interval is over its games, not over seeds")
    return "; ".join(lines)


def terminal(comparison: Comparison) -> str:
    """The report as text for the terminal."""
    parts = [games_table(comparison)]
    if comparison.differences:
        parts += ["published scores [ours minus theirs]", differences_table(comparison)]
    parts.append(_legend(comparison))
    if comparison.aggregates:
        parts += ["over games, human-normalised", aggregates_table(comparison)]
        parts.append(f"published medians over all games, {comparison.starts}")
        parts.append(medians_table(comparison, every_start=False))
    if comparison.atari_n:
        parts += ["median over 57 games, estimated (Atari-N)", atari_n_table(comparison)]
    for against in comparison.against_fixed:
        parts += [f"{against.adaptive} against the best fixed agent", against_fixed_text(against)]
    if comparison.improvements:
        parts.append(f"improvement relative to {comparison.marked_baseline}")
        parts.append(improvements_table(comparison))
    if comparison.missing:
        parts.append("\n".join(["what is missing:", *(f"  {line}" for line in comparison.missing)]))
    if not statistics.rliable_is_installed():
        parts.append(statistics.INSTALL)
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(comparison: Comparison, title: str, pictures: Sequence[str] = ()) -> str:
    """The report as Markdown.

    Args:
      comparison: its numbers.
      title: its heading.
      pictures: names of PNG files beside it.
    """
    count = len({row.game for row in comparison.games if row.game in ATARI_57})
    parts = [f"# {title}"]
    if comparison.missing:
        parts.append("## What is missing")
    if 0 < count < limitations.PUBLISHED_GAMES:
        parts.append(
            f"**These are {count} of {limitations.PUBLISHED_GAMES} games: the aggregates below "
            "are not comparable with published ones over all games; the published agents are "
            "therefore aggregated over the same games, too.**"
        )
    parts.append("\n".join(f"* {line}" for line in comparison.missing))
    if not statistics.rliable_is_installed():
        parts.append(f"* {statistics.INSTALL}")
    parts += ["## Per game", games_table(comparison)]
    if comparison.differences:
        parts += ["Published scores; in brackets ours minus theirs:", differences_table(comparison)]
    parts.append(_legend(comparison))
    if comparison.aggregates:
        parts += [
            "## Over games",
            "Human-normalised, 100 % is a human. In brackets the 95 % interval of a bootstrap that "
            "redraws seeds within games (rliable; none with a single seed; too narrow with two or "
            "three seeds). Median and mean are of "
            "the games' means over seeds; the interquartile mean is over all runs; the "
            "optimality gap is how far the runs are below human, scores above human not counting.",
            aggregates_table(comparison, every_column=True),
        ]
    if comparison.atari_n:
        parts += [
            "## The median over 57 games, estimated from a few",
            "Atari-N (Aitchison et al. 2022): a power law fitted to published agents, where it is "
            "off by up to a third. A secondary figure.",
            atari_n_table(comparison),
        ]
    for against in comparison.against_fixed:
        parts += [f"## {against.adaptive} against the best fixed agent"]
        parts.append(against_fixed_text(against))
    if comparison.improvements:
        parts += [
            f"## Improvement relative to {comparison.marked_baseline}",
            "(agent − baseline) / |max(human, baseline) − random|, as in Wang et al. 2016.",
            improvements_table(comparison),
        ]
    parts += [f"![{pathlib.Path(picture).stem}]({picture})" for picture in pictures]
    if comparison.differences:
        parts += [
            "## Published medians over all games",
            medians_table(comparison),
            "## Every published score of these games",
            every_difference_table(comparison)
            if len(comparison.differences) <= _MOST_ROWS
            else f"{len(comparison.differences):,} rows: see published.csv.",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(
    comparison: Comparison, folder: pathlib.Path, title: str, pictures: Sequence[str]
) -> list[pathlib.Path]:
    """Writes `report.md` and the CSV files to a folder that exists; returns their paths."""
    texts = {"report.md": markdown(comparison, title, pictures), **csv_files(comparison)}
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def make(
    found: Results,
    out: pathlib.Path,
    baseline: str | None,
    title: str,
    *,
    tables: Traversable = published.FOLDER,
    pictures: bool = True,
) -> str:
    """Compares results and writes the report to a folder, which is made.

    Returns:
      What the terminal shows.

    Raises:
      UserError: if there is nothing to compare, or the folder cannot be written.
    """
    compared = comparison_lib.compare(
        found, published.read_columns(tables), published.read_medians(tables), baseline
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = figures.draw_all(compared, out) if pictures else []
        write(compared, out, title, drawn)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return terminal(compared)
