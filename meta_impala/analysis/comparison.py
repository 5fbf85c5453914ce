"""Our results beside the published ones: every number of the report.

Every difference in how two numbers were obtained is a mark on the number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meta_impala.analysis import limitations, statistics
from meta_impala.analysis.limitations import (
    are_alike,
    games_of_all,
    normalised_scores,
    span,
)
from meta_impala.analysis.results import Result, Results
from meta_impala.errors import UserError
from meta_impala.evaluation import scores
from meta_impala.published import atari_n
from meta_impala.published.tables import (
    HUMAN_STARTS,
    NO_OP,
    STICKY,
    Column,
    PublishedMedian,
    constants_for,
)

_FINAL = "final policy, 200 games"  # in `sources.csv`
# Of the relative improvement, unless another is named; by starts.
BASELINES = {
    NO_OP: "impala_deep_noop_200m",
    HUMAN_STARTS: "rainbow_human_start",
    STICKY: "cleanba_impala_1A100_10cpu_mean",
}
# What a mark on a published number means.
MARKS = {
    "s": "other starts (human starts are always our own) or sticky actions, or not stated",
    "f": "trained for another number of frames, or not stated",
    "e": "no final evaluation (training return or best score in training), or not stated",
}


class GameRow(NamedTuple):
    """One variant in one game.

    Attributes:
      mean: raw score, mean over seeds of the mean over games.
      interval: 95 %, see `statistics.mean_interval`.
      random, human: raw scores; None if it is not an Atari game, like `human_normalised`.
      frames: fewest and most environment frames trained.
    """

    variant: str
    name: str
    game: str | None
    seeds: list[int]
    frames: tuple[int, int]
    mean: float
    interval: statistics.Interval | None
    random: float | None
    human: float | None
    human_normalised: float | None


class Difference(NamedTuple):
    """One variant in one game against one published column: ours minus theirs."""

    variant: str
    game: str
    column: Column
    published: float
    difference: float
    human_normalised_difference: float
    marks: str


class AggregateRow(NamedTuple):
    """Aggregates over games; `what` is `ours`, `published, same games` or `published, all games`.

    Attributes:
      games: how many games.
      seeds: per game: "2" or "1 to 3"; "?" if not published.
      marks: letters of `MARKS`.
      column: name of the published column, else empty.
    """

    what: str
    agent: str
    starts: str
    games: int
    seeds: str
    aggregates: Mapping[str, statistics.Aggregate]
    marks: str = ""
    column: str = ""


class Improvement(NamedTuple):
    """Relative improvement of a variant over a baseline in one game (Wang et al. 2016)."""

    variant: str
    game: str
    value: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All numbers of a report.

    Attributes:
      baseline: label of a variant, or a published agent's name.
      baseline_marks: letters of `MARKS`; of a variant "f" where it was trained for other frames
        than another, in a game that both have.
      atari_n: estimates of the median over 57 games from a few of them.
      missing: limitations and missing runs, one line each.
    """

    results: Results
    starts: str
    games: list[GameRow]
    differences: list[Difference]
    aggregates: list[AggregateRow]
    medians: list[PublishedMedian]
    baseline: str
    improvements: list[Improvement]
    against_fixed: list[statistics.AgainstFixed]
    atari_n: list[atari_n.Estimate]
    missing: list[str]
    baseline_marks: str = ""

    @property
    def marked_baseline(self) -> str:
        """The baseline's name with its marks."""
        return f"{self.baseline} ({self.baseline_marks})" if self.baseline_marks else self.baseline


def marks(column: Column, starts: str, frames: tuple[int, int]) -> str:
    """The letters of `MARKS` that apply to a published number beside ours.

    Args:
      column: that it is of.
      starts: ours.
      frames: fewest and most that ours was trained for.
    """
    letters = ""
    # The published human starts were never released, so ours are others.
    if column.starts != starts or starts == HUMAN_STARTS:
        letters += "s"
    if column.frames is None or not are_alike(*frames, column.frames):
        letters += "f"
    if column.evaluation != _FINAL:
        letters += "e"
    return letters


def _game_row(results: Sequence[Result]) -> GameRow:
    first = results[0]
    means = [result.mean for result in results]
    mean = float(np.mean(means))
    starts = constants_for(first.starts)
    constants = scores.human_random(starts).get(first.game or "")
    return GameRow(
        variant=first.variant,
        name=first.name,
        game=first.game,
        seeds=[result.seed for result in results],
        frames=(min(r.frames for r in results), max(r.frames for r in results)),
        mean=mean,
        interval=statistics.mean_interval(means, first.standard_error),
        random=constants.random if constants else None,
        human=constants.human if constants else None,
        human_normalised=scores.human_normalised(first.game, mean, starts),
    )


def _differences(
    rows: Sequence[GameRow], columns: Sequence[Column], starts: str
) -> Iterator[Difference]:
    for row in rows:
        for column in columns:
            if row.game is None or row.game not in column.by_game or row.human_normalised is None:
                continue
            published = column.by_game[row.game]
            theirs = column.human_normalised([row.game])[row.game]
            yield Difference(
                row.variant,
                row.game,
                column,
                published,
                row.mean - published,
                row.human_normalised - theirs,
                marks(column, starts, row.frames),
            )


def _baseline_marks(
    results: Results, baseline: str, columns: Mapping[str, Column], starts: str
) -> str:
    if baseline in columns:
        return marks(columns[baseline], starts, _span_of_frames(results))
    for theirs in results.of(baseline):
        if not all(
            are_alike(theirs.frames, r.frames) for r in results.found if r.name == theirs.name
        ):
            return "f"
    return ""


def _span_of_frames(results: Results) -> tuple[int, int]:
    frames = [result.frames for result in results.found]
    return min(frames), max(frames)


def _aggregate_rows(
    results: Results, columns: Sequence[Column], starts: str
) -> Iterator[AggregateRow]:
    games = games_of_all(results)
    for variant, by_game in normalised_scores(results).items():
        shared = {game: of_game for game, of_game in by_game.items() if game in games}
        if shared:
            seeds = span([len(of_game) for of_game in shared.values()])
            found = statistics.aggregates(shared)
            yield AggregateRow("ours", variant, starts, len(shared), seeds, found)
    frames = _span_of_frames(results)
    for what, chosen in (("published, same games", sorted(games)), ("published, all games", None)):
        for column in columns:
            normalised = column.human_normalised(chosen)
            if games and normalised:
                found = statistics.aggregates({game: [one] for game, one in normalised.items()})
                yield AggregateRow(
                    what,
                    column.agent,
                    column.starts,
                    len(normalised),
                    "?",
                    found,
                    marks(column, starts, frames),
                    column.name,
                )


def _improvements(
    rows: Sequence[GameRow], baseline: str, columns: Mapping[str, Column]
) -> Iterator[Improvement]:
    theirs: Mapping[str, float]
    if baseline in columns:
        theirs = columns[baseline].by_game
    else:
        theirs = {row.game: row.mean for row in rows if row.variant == baseline and row.game}
    for row in rows:
        if row.variant == baseline or row.game not in theirs:
            continue
        if row.game is None or row.human is None or row.random is None:
            continue
        value = statistics.relative_improvement(row.mean, theirs[row.game], row.human, row.random)
        yield Improvement(row.variant, row.game, value)


def _adaptive_and_fixed(results: Results) -> tuple[list[str], list[str]]:
    """Variants that learn γ, and variants with a fixed γ that learn nothing."""
    adaptive, fixed = [], []
    for variant in results.variants:
        config = results.of(variant)[0].config
        # That of `fixed` is fed η, which stays as it is; those of the others vary and are neither.
        schedule = config.get("eta_schedule", "learned")
        if config["meta_parameters"] == "none" or schedule == "fixed":
            if "population" not in config:
                fixed.append(variant)
        elif schedule == "learned" and "gamma" in config["meta_parameters"].split(","):
            adaptive.append(variant)
    return adaptive, fixed


def _atari_n(
    by_variant: Mapping[str, Mapping[str, Sequence[float]]], results: Results
) -> tuple[list[atari_n.Estimate], list[str]]:
    """Estimates of the median over 57 games, and the reasons where there is none."""
    found, refused = [], []
    for variant, by_game in by_variant.items():
        means = {game: float(np.mean(of_game)) for game, of_game in by_game.items()}
        estimates = atari_n.estimates(variant, means)
        frames = [result.frames for result in results.of(variant) if result.game]
        if not estimates or all(map(atari_n.is_trained_enough, frames)):
            found += estimates
            continue
        refused.append(
            f"{variant}: no estimate of the median over 57 games from a subset (Atari-N): its "
            f"weights hold at {atari_n.FRAMES:,} frames only, and these runs have {span(frames)}"
        )
    return found, refused


def compare(
    results: Results,
    columns: Mapping[str, Column],
    medians: Sequence[PublishedMedian],
    baseline: str | None = None,
) -> Comparison:
    """Compares results with the published scores and with each other.

    Args:
      results: at least one.
      columns: the published scores, by name of the column.
      medians: the published medians.
      baseline: of the relative improvement: a column's name or a variant's label; None for
        IMPALA, or the nearest agent, with the same starts.

    Raises:
      UserError: if there is no result, no such baseline, or one with other starts.
    """
    if not results.found:
        raise UserError("; ".join(["none of the runs was evaluated", *results.missing]))
    starts = next((r.starts for r in results.found if r.game), results.found[0].starts)
    alike = [name for name, column in columns.items() if column.starts == starts]
    if baseline is None:
        baseline = BASELINES[starts]
    if baseline not in alike and baseline not in results.variants:
        allowed = ", ".join([*results.variants, *alike])
        raise UserError(
            f"--baseline={baseline}: must be one of {allowed} (these runs have {starts})"
        )
    rows = [
        _game_row(seeds)
        for variant in results.variants
        for name in results.names
        if (seeds := results.of(variant, name))
    ]
    every = list(columns.values())
    by_variant = normalised_scores(results)
    adaptive, fixed = _adaptive_and_fixed(results)
    estimated, refused = _atari_n(by_variant, results)
    against, apart = [], []
    for variant in adaptive if fixed else []:
        found = statistics.against_fixed(variant, fixed, by_variant)
        if found is not None:
            against.append(found)
        elif by_variant[variant]:
            apart.append(f"{variant}: no game has results of it and of every fixed agent")
    return Comparison(
        results=results,
        starts=starts,
        games=rows,
        differences=list(_differences(rows, every, starts)),
        aggregates=list(_aggregate_rows(results, every, starts)),
        medians=list(medians),
        baseline=columns[baseline].agent if baseline in columns else baseline,
        improvements=list(_improvements(rows, baseline, columns)),
        against_fixed=against,
        atari_n=estimated,
        missing=limitations.describe(results, rows) + apart + refused,
        baseline_marks=_baseline_marks(results, baseline, columns, starts),
    )
