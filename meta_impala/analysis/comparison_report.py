"""A comparison as a report: what the terminal shows, `report.md`, CSV files and pictures."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Sequence
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


# In an interval of `games_table`.
_ONE_SEED = "] * |"
_MARKS = re.compile(rf" \(([{''.join(comparison_lib.MARKS)}]+)\)")


def _with_footnotes(sections: Iterable[str]) -> str:
    """The sections that are not empty; after each, what the marks mean that it is the first to
    use."""
    parts: list[str] = []
    explained: set[str] = set()
    for section in filter(None, sections):
        parts.append(section)
        letters = {letter for mark in _MARKS.findall(section) for letter in mark} - explained
        lines = [f"({m}) {meaning}" for m, meaning in comparison_lib.MARKS.items() if m in letters]
        if _ONE_SEED in section:
            lines.append("* one seed: the interval is over its games, not over seeds")
        explained |= letters
        if lines:
            parts.append("; ".join(lines))
    return "\n\n".join(parts) + "\n"


def _section(*parts: str) -> str:
    return "\n\n".join(parts)


def terminal(comparison: Comparison) -> str:
    """The report as text for the terminal."""
    parts = [games_table(comparison)]
    if comparison.differences:
        title = "published scores [ours minus theirs]"
        parts.append(_section(title, differences_table(comparison)))
    if comparison.aggregates:
        title = f"published medians over all games, {comparison.starts}"
        parts += [
            _section("over games, human-normalised", aggregates_table(comparison)),
            _section(title, medians_table(comparison, every_start=False)),
        ]
    if comparison.atari_n:
        title = "median over 57 games, estimated (Atari-N)"
        parts.append(_section(title, atari_n_table(comparison)))
    for against in comparison.against_fixed:
        title = f"{against.adaptive} against the best fixed agent"
        parts.append(_section(title, against_fixed_text(against)))
    if comparison.improvements:
        title = f"improvement relative to {comparison.marked_baseline}"
        parts.append(_section(title, improvements_table(comparison)))
    if comparison.missing:
        parts.append("\n".join(["what is missing:", *(f"  {line}" for line in comparison.missing)]))
    if not statistics.rliable_is_installed():
        parts.append(statistics.INSTALL)
    return _with_footnotes(parts)


def markdown(comparison: Comparison, title: str, pictures: Sequence[str] = ()) -> str:
    """The report as Markdown.

    Args:
      comparison: its numbers.
      title: its heading.
      pictures: names of PNG files beside it.
    """
    parts = [f"# {title}", *_what_is_missing(comparison)]
    parts.append(_section("## Per game", games_table(comparison)))
    if comparison.differences:
        text = "Published scores; in brackets ours minus theirs:"
        parts.append(_section(text, differences_table(comparison)))
    if comparison.aggregates:
        text = (
            "Human-normalised, 100 % is a human. In brackets the 95 % interval of a bootstrap that "
            "redraws seeds within games (rliable; none with a single seed; too narrow with two or "
            "three seeds). Median and mean are of "
            "the games' means over seeds; the interquartile mean is over all runs; the "
            "optimality gap is how far the runs are below human, scores above human not counting."
        )
        table = aggregates_table(comparison, every_column=True)
        parts.append(_section("## Over games", text, table))
    if comparison.atari_n:
        text = (
            "Atari-N (Aitchison et al. 2022): a power law fitted to published agents, where it is "
            "off by up to a third. A secondary figure."
        )
        heading = "## The median over 57 games, estimated from a few"
        parts.append(_section(heading, text, atari_n_table(comparison)))
    for against in comparison.against_fixed:
        heading = f"## {against.adaptive} against the best fixed agent"
        parts.append(_section(heading, against_fixed_text(against)))
    if comparison.improvements:
        heading = f"## Improvement relative to {comparison.marked_baseline}"
        text = "(agent − baseline) / |max(human, baseline) − random|, as in Wang et al. 2016."
        parts.append(_section(heading, text, improvements_table(comparison)))
    parts += [f"![{pathlib.Path(picture).stem}]({picture})" for picture in pictures]
    if comparison.differences:
        count = len(comparison.differences)
        rows = f"{count:,} rows: see published.csv."
        table = every_difference_table(comparison) if count <= _MOST_ROWS else rows
        parts += [
            _section("## Published medians over all games", medians_table(comparison)),
            _section("## Every published score of these games", table),
        ]
    return _with_footnotes(parts)


def _what_is_missing(comparison: Comparison) -> list[str]:
    """The first paragraphs of the Markdown."""
    parts = ["## What is missing"] if comparison.missing else []
    count = len({row.game for row in comparison.games if row.game in ATARI_57})
    if 0 < count < limitations.PUBLISHED_GAMES:
        parts.append(
            f"**These are {count} of {limitations.PUBLISHED_GAMES} games: the aggregates below "
            "are not comparable with published ones over all games; the published agents are "
            "therefore aggregated over the same games, too.**"
        )
    parts.append("\n".join(f"* {line}" for line in comparison.missing))
    if not statistics.rliable_is_installed():
        parts.append(f"* {statistics.INSTALL}")
    return parts


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
        for name in figures.PICTURES - set(drawn):  # of an earlier comparison
            (out / name).unlink(missing_ok=True)
        write(compared, out, title, drawn)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return terminal(compared)
