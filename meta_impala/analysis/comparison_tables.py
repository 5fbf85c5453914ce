"""The tables of a comparison, as Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meta_impala.analysis import statistics
from meta_impala.analysis.comparison import Comparison, Difference, GameRow
from meta_impala.analysis.statistics import Aggregate
from meta_impala.published import tables as published

# Published columns of the tables that people read; the CSV files and the long table have all.
SHOWN = (
    "impala_deep_noop_200m", "impala_shallow_noop_200m", "rainbow_noop", "apex_noop",
    "stacx_noop_200m",
)  # fmt: skip
SHOWN_HUMAN_STARTS = ("a3c_lstm_human_start", "rainbow_human_start", "apex_human_start")
SHOWN_STICKY = (
    "cleanba_impala_1A100_10cpu_mean",
    "monobeast_torchbeast_1A100_10cpu_mean",
    "moolib_impala_1A100_10cpu_mean",
    "slmlab_a2c_10m_steps",
    "slmlab_ppo_10m_steps",
)
_ABSENT = "–"


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


def atari_n_table(comparison: Comparison) -> str:
    """Estimates of the median over 57 games, with those that follow for published agents."""
    rows = []
    for estimate in comparison.atari_n:
        mark = "" if estimate.is_in_range else " (below the range of the weights)"
        rows.append([estimate.subset, estimate.agent, f"{estimate.median_percent:,.1f} %{mark}"])
    return table(["subset", "agent", "estimated median"], rows)
