"""A comparison as text: what the terminal shows, Markdown, and CSV files."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from meta_impala.analysis import comparison as comparison_lib
from meta_impala.analysis import figures, published, statistics
from meta_impala.analysis.comparison import Comparison, Difference, GameRow
from meta_impala.analysis.results import Results
from meta_impala.analysis.statistics import Aggregate
from meta_impala.environments import ATARI_57
from meta_impala.errors import UserError
from meta_impala.storage.files import write_atomically

# Published columns of the tables that people read; the CSV files and the long table have all.
SHOWN = ("impala_deep_noop_200m", "impala_shallow_noop_200m", "rainbow_noop", "apex_noop")
SHOWN_HUMAN_STARTS = ("a3c_lstm_human_start", "rainbow_human_start", "apex_human_start")
SHOWN_STICKY = (
    "cleanba_impala_1A100_10cpu_mean",
    "monobeast_torchbeast_1A100_10cpu_mean",
    "moolib_impala_1A100_10cpu_mean",
)
_ABSENT = "–"
_MOST_ROWS = 500  # of the long table in the Markdown; the CSV file has them all


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, so that it reads in a terminal too; numbers right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    is_text = [i == 0 or header[i] in _TEXT_COLUMNS for i in range(len(header))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = "|".join(
        "-" * (w + 2) if text else "-" * (w + 1) + ":"
        for w, text in zip(widths, is_text, strict=True)
    )
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


_TEXT_COLUMNS = frozenset({"agent", "starts", "best fixed", "published agent", "source", "variant"})


def raw(value: float | None) -> str:
    """A raw score."""
    if value is None:
        return _ABSENT
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


def percent(value: float | None) -> str:
    """A human-normalised score; 100 % is a human."""
    return _ABSENT if value is None else f"{100 * value:,.1f} %"


def _aggregate(aggregate: Aggregate | None) -> str:
    if aggregate is None:
        return _ABSENT
    text = percent(aggregate.value)
    if aggregate.low is None or aggregate.high is None:
        return text
    return f"{text} [{100 * aggregate.low:,.1f}, {100 * aggregate.high:,.1f}]"


def _interval(interval: statistics.Interval | None) -> str:
    if interval is None:
        return _ABSENT
    star = "" if interval.over == "seeds" else " *"
    return f"[{raw(interval.low)}, {raw(interval.high)}]{star}"


def _shown_columns(comparison: Comparison) -> list[str]:
    by_starts = {published.HUMAN_STARTS: SHOWN_HUMAN_STARTS, published.STICKY: SHOWN_STICKY}
    wanted = by_starts.get(comparison.starts, SHOWN)
    present = {difference.column.name for difference in comparison.differences}
    return [name for name in wanted if name in present]


def _marked(difference: Difference) -> str:
    return f" ({difference.marks})" if difference.marks else ""


def games_table(comparison: Comparison) -> str:
    """Per game: our mean and interval, random, human, human-normalised score."""
    header = ["game", "variant", "seeds", "mean", "95 % interval", "random", "human", "normalised"]
    rows = [
        [
            row.name,
            row.variant,
            str(len(row.seeds)),
            raw(row.mean),
            _interval(row.interval),
            raw(row.random),
            raw(row.human),
            percent(row.human_normalised),
        ]
        for row in _by_game(comparison)
    ]
    return table(header, rows)


def _by_game(comparison: Comparison) -> list[GameRow]:
    return sorted(comparison.games, key=lambda row: row.name)


def differences_table(comparison: Comparison) -> str:
    """Per game: our mean against the published columns that are shown; ours minus theirs in
    brackets."""
    shown = _shown_columns(comparison)
    agents = {d.column.name: d.column.agent for d in comparison.differences}
    by_cell = {(d.variant, d.game, d.column.name): d for d in comparison.differences}
    rows = []
    for row in _by_game(comparison):
        found = [by_cell.get((row.variant, row.name, name)) for name in shown]
        cells = [
            f"{raw(d.published)} [{'+' * (d.difference > 0)}{raw(d.difference)}]{_marked(d)}"
            if d
            else _ABSENT
            for d in found
        ]
        if any(found):
            rows.append([row.name, row.variant, raw(row.mean), *cells])
    return table(["game", "variant", "mean", *(agents[name] for name in shown)], rows)


def every_difference_table(comparison: Comparison) -> str:
    """Every variant and game against every published column."""
    header = ["game", "variant", "published agent", "starts", "score", "difference", "normalised"]
    rows = [
        [
            d.game,
            d.variant,
            d.column.agent + _marked(d),
            d.column.starts or "not stated",
            raw(d.published),
            raw(d.difference),
            percent(d.human_normalised_difference),
        ]
        for d in sorted(comparison.differences, key=lambda d: d.game)
    ]
    return table(header, rows)


def aggregates_table(comparison: Comparison, *, every_column: bool = False) -> str:
    """Aggregates of ours and of published agents over the same games."""
    shown = _shown_columns(comparison)
    header = ["agent", "starts", "games", "seeds", "median", "mean", "interquartile mean"]
    rows = []
    for row in comparison.aggregates:
        if row.what == "published, all games":
            continue
        if row.column and not every_column and row.column not in shown:
            continue
        mark = f" ({row.marks})" if row.marks else ""
        agent = f"{row.agent}, published{mark}" if row.column else row.agent
        values = [_aggregate(row.aggregates.get(name)) for name in statistics.AGGREGATES]
        rows.append([agent, row.starts or "not stated", str(row.games), row.seeds, *values])
    return table([*header, "optimality gap"], rows)


def medians_table(comparison: Comparison, *, every_start: bool = True) -> str:
    """The published medians of 57 games, or those with our starts only."""
    header = ["agent", "starts", "γ or γ'", "median", "source"]
    rows = [
        [m.agent, m.starts, m.discount or _ABSENT, f"{m.median_text} %", m.source]
        for m in comparison.medians
        if m.median_text and (every_start or m.starts == comparison.starts)
    ]
    return table(header, rows)


def against_fixed_text(against: statistics.AgainstFixed) -> str:
    """The adaptive agent against the best fixed one, per game and overall."""
    header = ["game", "adaptive", "best fixed", "its score", "difference", "to overall best"]
    rows = [
        [
            row.game,
            percent(row.adaptive),
            row.best_fixed,
            percent(row.best_fixed_score),
            percent(row.adaptive - row.best_fixed_score),
            percent(row.adaptive - row.overall_fixed_score),
        ]
        for row in against.games
    ]
    won = sum(row.adaptive > row.best_fixed_score for row in against.games)
    count = len(against.games)
    games = f"{count} game{'s' * (count > 1)}"
    return "\n\n".join(
        [
            table(header, rows),
            f"Against the best fixed agent *of each game*: better in {won} of {games}; median "
            f"difference {_aggregate(against.per_game['median'])}, mean "
            f"{_aggregate(against.per_game['mean'])}.",
            f"Against the best fixed agent *overall* ({against.overall_fixed}, highest median): "
            f"median difference {_aggregate(against.overall['median'])}, mean "
            f"{_aggregate(against.overall['mean'])}.",
            "The best of several fixed agents is chosen by the same scores that it is compared "
            "with, so chance favours it, the more the fewer the seeds.",
        ]
    )


def improvements_table(comparison: Comparison) -> str:
    """Relative improvement over the baseline."""
    rows = [
        [i.game, i.variant, percent(i.value)]
        for i in sorted(comparison.improvements, key=lambda i: (i.variant, -i.value))
    ]
    return table(["game", "variant", "improvement"], rows)


def _legend(comparison: Comparison) -> str:
    used = {letter for d in comparison.differences for letter in d.marks}
    used |= set(comparison.baseline_marks)
    lines = [f"({m}) {meaning}" for m, meaning in comparison_lib.MARKS.items() if m in used]
    if any(row.interval and row.interval.over == "games" for row in comparison.games):
        lines.append("* one seed: the interval is over its games and says nothing of other seeds")
    return "; ".join(lines)


def terminal(comparison: Comparison) -> str:
    """What the terminal shows."""
    parts = [games_table(comparison)]
    if comparison.differences:
        parts += ["published scores [ours minus theirs]", differences_table(comparison)]
    parts.append(_legend(comparison))
    if comparison.aggregates:
        parts += ["over games, human-normalised", aggregates_table(comparison)]
        parts.append(f"published medians over all games, {comparison.starts}")
        parts.append(medians_table(comparison, every_start=False))
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
    """The whole report.

    Args:
      comparison: what it says.
      title: its heading.
      pictures: names of PNG files beside it.
    """
    count = len({row.game for row in comparison.games if row.game in ATARI_57})
    parts = [f"# {title}"]
    if comparison.missing:
        parts.append("## What is missing")
    if 0 < count < comparison_lib.PUBLISHED_GAMES:
        parts.append(
            f"**These are {count} of {comparison_lib.PUBLISHED_GAMES} games: no aggregate below "
            "can be held against a published one over all games; the published agents are "
            "therefore also aggregated over the same games.**"
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
            "three, because it knows no other seeds). Median and mean are of "
            "the games' means over seeds; the interquartile mean is over all runs; the optimality "
            "gap is how far short of a human the runs fall, scores above human not counting.",
            aggregates_table(comparison, every_column=True),
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


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Raises ValueError if a row has other columns."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in row.items()})
    return buffer.getvalue()


def _game_cells(row: GameRow) -> dict[str, object]:
    low, high, over = row.interval or (None, None, None)
    cells = row._asdict() | {
        "game": row.name,
        "seeds": len(row.seeds),
        "frames_min": row.frames[0],
        "frames_max": row.frames[1],
        "interval_low": low,
        "interval_high": high,
        "interval_over": over,
    }
    return {name: cells[name] for name in GAME_COLUMNS}


def _difference_cells(difference: Difference) -> dict[str, object]:
    column = difference.column
    cells = difference._asdict() | {
        "column": column.name,
        "agent": column.agent,
        "starts": column.starts,
        "frames": column.frames,
        "evaluation": column.evaluation,
    }
    return {name: cells[name] for name in PUBLISHED_COLUMNS}


GAME_COLUMNS = (
    "variant",
    "game",
    "seeds",
    "frames_min",
    "frames_max",
    "mean",
    "interval_low",
    "interval_high",
    "interval_over",
    "random",
    "human",
    "human_normalised",
)
PUBLISHED_COLUMNS = (
    "variant",
    "game",
    "column",
    "agent",
    "starts",
    "frames",
    "evaluation",
    "published",
    "difference",
    "human_normalised_difference",
    "marks",
)
AGGREGATE_COLUMNS = (
    "what",
    "agent",
    "column",
    "starts",
    "games",
    "seeds",
    "aggregate",
    "value",
    "interval_low",
    "interval_high",
    "marks",
)
IMPROVEMENT_COLUMNS = ("variant", "game", "baseline", "value", "marks")
AGAINST_FIXED_COLUMNS = (
    "variant",
    "game",
    "adaptive",
    "best_fixed",
    "best_fixed_score",
    "overall_fixed",
    "overall_fixed_score",
)
MEDIAN_COLUMNS = ("agent", "starts", "discount", "median_pct", "source")


def csv_files(comparison: Comparison) -> dict[str, str]:
    """The numbers as tidy tables: file name -> text. Scores are raw unless the name says
    otherwise; normalised ones, aggregates and improvements are fractions (1 is a human)."""
    aggregates = []
    for row in comparison.aggregates:
        for name, (value, low, high) in row.aggregates.items():
            cells = row._asdict() | {
                "aggregate": name,
                "value": value,
                "interval_low": low,
                "interval_high": high,
            }
            del cells["aggregates"]
            aggregates.append(cells)
    improvements = [
        i._asdict() | {"baseline": comparison.baseline, "marks": comparison.baseline_marks}
        for i in comparison.improvements
    ]
    against_fixed = [
        row._asdict() | {"variant": against.adaptive, "overall_fixed": against.overall_fixed}
        for against in comparison.against_fixed
        for row in against.games
    ]
    medians = [
        {
            "agent": m.agent,
            "starts": m.starts,
            "discount": m.discount,
            "median_pct": m.median_text,
            "source": m.source,
        }
        for m in comparison.medians
    ]
    return {
        "games.csv": _csv(GAME_COLUMNS, map(_game_cells, comparison.games)),
        "published.csv": _csv(PUBLISHED_COLUMNS, map(_difference_cells, comparison.differences)),
        "aggregates.csv": _csv(AGGREGATE_COLUMNS, aggregates),
        "improvements.csv": _csv(IMPROVEMENT_COLUMNS, improvements),
        "against_fixed.csv": _csv(AGAINST_FIXED_COLUMNS, against_fixed),
        "medians.csv": _csv(MEDIAN_COLUMNS, medians),
    }


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
    tables: pathlib.Path = published.FOLDER,
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
