"""The numbers of a comparison as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from meta_impala.analysis.comparison import Comparison, Difference, GameRow


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
ATARI_N_COLUMNS = ("subset", "agent", "median_percent", "is_in_range")
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
    files = {
        "games.csv": _csv(GAME_COLUMNS, map(_game_cells, comparison.games)),
        "published.csv": _csv(PUBLISHED_COLUMNS, map(_difference_cells, comparison.differences)),
        "aggregates.csv": _csv(AGGREGATE_COLUMNS, aggregates),
        "improvements.csv": _csv(IMPROVEMENT_COLUMNS, improvements),
        "against_fixed.csv": _csv(AGAINST_FIXED_COLUMNS, against_fixed),
        "medians.csv": _csv(MEDIAN_COLUMNS, medians),
    }
    if comparison.atari_n:
        files["atari_n.csv"] = _csv(ATARI_N_COLUMNS, (e._asdict() for e in comparison.atari_n))
    return files
