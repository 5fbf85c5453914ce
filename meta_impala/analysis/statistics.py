"""Intervals and aggregates of scores over seeds and games, and the comparison of agents.

The aggregates and their stratified bootstrap are those of rliable (Agarwal et al. 2021, arXiv
2108.13264), an optional package; without it there are medians and means without intervals.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
REPETITIONS = 5_000
INSTALL = (
    "rliable is not installed: no interquartile mean, optimality gap or confidence interval; "
    "install it with: pip install 'meta_impala[comparison]'"
)
AGGREGATES = ("median", "mean", "iqm", "optimality_gap")

# Game -> one human-normalised score per seed.
Scores = Mapping[str, Sequence[float]]


class Interval(NamedTuple):
    """A 95 % interval over `seeds`, or over the `games` of a single seed."""

    low: float
    high: float
    over: str


class Aggregate(NamedTuple):
    """An aggregate of human-normalised scores; 1 is a human.

    `low` and `high` are None with a single seed, or without rliable.
    """

    value: float
    low: float | None = None
    high: float | None = None


def rliable_is_installed() -> bool:
    """Whether the optional package is installed."""
    return importlib.util.find_spec("rliable") is not None


def mean_interval(means: Sequence[float], standard_error: float | None) -> Interval | None:
    """Student's interval of a mean score.

    Args:
      means: one mean return per seed.
      standard_error: of the only seed's mean over its games; of use with one seed only.

    Returns:
      From two seeds on, the interval over seeds; with one, that over the games it was evaluated on,
      which says nothing about other seeds; None with a single game, or without rliable (whose SciPy
      has the quantiles).
    """
    if not rliable_is_installed():
        return None
    import scipy.stats

    values = np.asarray(means, np.float64)
    if values.size > 1:
        error = values.std(ddof=1) / np.sqrt(values.size)
        width = error * scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, values.size - 1)
        return Interval(float(values.mean() - width), float(values.mean() + width), "seeds")
    if standard_error is None:
        return None
    width = standard_error * scipy.stats.norm.ppf(0.5 + CONFIDENCE / 2)
    return Interval(float(values[0] - width), float(values[0] + width), "games")


def score_matrix(by_game: Scores, games: Sequence[str]) -> np.ndarray:
    """Scores as `[seeds, games]`: of each game as many seeds as the game with the fewest has."""
    seeds = min(len(by_game[game]) for game in games)
    return np.array([[by_game[game][seed] for game in games] for seed in range(seeds)])


def aggregates(by_game: Scores) -> dict[str, Aggregate]:
    """Median and mean over games, interquartile mean over runs, and optimality gap.

    Median and mean are of the games' means over seeds. Intervals are percentiles of a stratified
    bootstrap: seeds are redrawn game by game, so they speak of these games and other seeds.

    Args:
      by_game: at least one game.
    """
    games = sorted(by_game)
    matrix = score_matrix(by_game, games)
    if not rliable_is_installed():
        of_games = matrix.mean(axis=0)
        return {"median": Aggregate(float(np.median(of_games))), "mean": Aggregate(of_games.mean())}
    from rliable import metrics

    def all_of_them(scores: np.ndarray) -> np.ndarray:
        return np.array(
            [
                metrics.aggregate_median(scores),
                metrics.aggregate_mean(scores),
                metrics.aggregate_iqm(scores),
                metrics.aggregate_optimality_gap(scores),
            ]
        )

    values = all_of_them(matrix)
    if len(matrix) < 2:
        return {n: Aggregate(float(v)) for n, v in zip(AGGREGATES, values, strict=True)}
    _, low, high = bootstrap(matrix, all_of_them)
    rows = zip(AGGREGATES, values, low, high, strict=True)
    return {name: Aggregate(float(v), float(a), float(b)) for name, v, a, b in rows}


def bootstrap(
    scores: np.ndarray | list[np.ndarray], statistic: Callable[..., np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, lower and upper bounds of a statistic of one matrix `[seeds, games]`, or of several
    (then it is called with all, each redrawn on its own). The same input gives the same bounds."""
    from rliable import library

    with _seeded():
        points, intervals = library.get_interval_estimates(
            {"": scores}, statistic, reps=REPETITIONS, confidence_interval_size=CONFIDENCE
        )
    return points[""], intervals[""][0], intervals[""][1]


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """rliable draws from NumPy's global generator, whatever `random_state` it is given."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)


def relative_improvement(agent: float, baseline: float, human: float, random: float) -> float:
    """Improvement of raw scores over a baseline, as Wang et al. 2016 (arXiv 1511.06581) have it:

        (agent − baseline) / (max(human, baseline) − random)

    so that 1 is the distance from random to the better of human and baseline. The denominator's
    absolute value is taken, for VideoPinball with human starts (see `scores`).
    """
    return (agent - baseline) / abs(max(human, baseline) - random)


class GameAgainstFixed(NamedTuple):
    """The adaptive agent against the fixed ones in one game; human-normalised means over seeds."""

    game: str
    adaptive: float
    best_fixed: str
    best_fixed_score: float
    overall_fixed_score: float


class AgainstFixed(NamedTuple):
    """The adaptive agent against the best fixed agent per game, and against the best overall.

    Attributes:
      adaptive: label.
      overall_fixed: label of the fixed agent with the highest median over the games.
      games: one row per game that all of them have.
      per_game: adaptive minus the best fixed agent of each game: median and mean over games.
      overall: adaptive minus the overall best: likewise.
    """

    adaptive: str
    overall_fixed: str
    games: list[GameAgainstFixed]
    per_game: dict[str, Aggregate]
    overall: dict[str, Aggregate]


def against_fixed(
    adaptive: str, fixed: Sequence[str], by_variant: Mapping[str, Scores]
) -> AgainstFixed | None:
    """Compares an adaptive agent with fixed ones.

    The best fixed agent is chosen by the same scores it is compared with, in every game and again
    in
    every redraw of the bootstrap: chance favours the best of several, more so with few seeds.

    Args:
      adaptive: label.
      fixed: labels, at least one.
      by_variant: label -> game -> one score per seed.

    Returns:
      The comparison, or None if they share no game.
    """
    names = [adaptive, *fixed]
    games = sorted(set.intersection(*(set(by_variant[name]) for name in names)))
    if not games:
        return None
    matrices = [score_matrix(by_variant[name], games) for name in names]

    def differences(*scores: np.ndarray) -> np.ndarray:
        means = np.stack([matrix.mean(axis=0) for matrix in scores])
        per_game = means[0] - means[1:].max(axis=0)
        overall = means[0] - means[1 + np.argmax(np.median(means[1:], axis=1))]
        return np.array([f(d) for d in (per_game, overall) for f in (np.median, np.mean)])

    values = differences(*matrices)
    low = high = [None] * 4
    if rliable_is_installed() and all(len(matrix) > 1 for matrix in matrices):
        _, lows, highs = bootstrap(matrices, differences)
        low, high = lows.tolist(), highs.tolist()
    four = [Aggregate(float(v), a, b) for v, a, b in zip(values, low, high, strict=True)]
    means = np.stack([matrix.mean(axis=0) for matrix in matrices])
    best = 1 + means[1:].argmax(axis=0)
    overall = 1 + int(np.argmax(np.median(means[1:], axis=1)))
    rows = [
        GameAgainstFixed(
            game,
            float(means[0, i]),
            names[best[i]],
            float(means[best[i], i]),
            float(means[overall, i]),
        )
        for i, game in enumerate(games)
    ]
    return AgainstFixed(
        adaptive,
        names[overall],
        rows,
        {"median": four[0], "mean": four[1]},
        {"median": four[2], "mean": four[3]},
    )
