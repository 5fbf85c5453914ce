"""Areas under curves of evaluation games, the score s, and contrasts of arms with intervals.

    s = (area − random) / (area of F* on the selection seeds − random)

is linear: an area can be negative or zero. Aggregates are interquartile means over task × seed with
percentile intervals of a stratified bootstrap (tasks are strata, seeds are redrawn within them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meta_impala.study.records import Record

REPETITIONS = 5_000
MARGIN = 0.10
# Of each arm in each task: with fewer, a bootstrap has too few different redraws for an interval.
LEAST_RUNS = 5

# Task -> one s per seed, or `[seeds, 2]`: pairs that are redrawn together.
Scores = Mapping[str, np.ndarray]


class Contrast(NamedTuple):
    """A difference of interquartile means of s.

    Attributes:
      value, low, high: with its 95 % interval.
      low_90, high_90: the 90 % interval, for equivalence.
      p: two-sided, of the bootstrap; at least 1 / (repetitions + 1).
      improvement: probability that a run of the first arm scores more than one of the second; ties
        count half.
      runs: of the first and the second arm.
      has_interval: whether every task has enough runs of both arms; if not, intervals, p and
        equivalence mean nothing.
    """

    value: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float
    improvement: float
    runs: tuple[int, int]
    has_interval: bool = True

    @property
    def is_equivalent(self) -> bool:
        """Whether the 90 % interval lies within ±0.10."""
        is_within = self.low_90 > -MARGIN and self.high_90 < MARGIN
        return self.has_interval and is_within


def curve(record: Record, random: float) -> tuple[list[int], list[float]]:
    """The curve of evaluations of a run: frames and heights of the points that lines join.

    The curve begins at 0 frames with the score of random actions and is linear between points; a
    failed run goes on with the score of random actions.

    Args:
      record: with at least one point, unless it failed.
      random: the score of random actions.
    """
    frames = [0, *(point.frames for point in record.points)]
    values = [random, *(point.mean_return for point in record.points)]
    if not record.is_finished:
        frames.append(frames[-1] + 1)
        values.append(random)
    if frames[-1] < record.total_frames:
        frames.append(record.total_frames)
        values.append(values[-1])
    return frames, values


def area(record: Record, random: float) -> float:
    """The mean height of the `curve` of a run, over its frames. Arguments as there."""
    frames, values = curve(record, random)
    return float(np.trapezoid(values, frames) / frames[-1])


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the last axis; values at its edges count by their share."""
    ordered = np.sort(values, axis=-1)
    count = ordered.shape[-1]
    # The share of each value that lies between the quartiles.
    edges = np.arange(count + 1) / count
    inside = np.clip(edges, 0.25, 0.75)
    return (ordered * np.diff(inside)).sum(-1) / 0.5


def _redrawn(scores: Scores, generator: np.random.Generator) -> np.ndarray:
    """`[repetitions, runs(, 2)]`: seeds redrawn within each task."""
    parts = []
    for task in sorted(scores):
        values = np.asarray(scores[task], np.float64)
        index = generator.integers(len(values), size=(REPETITIONS, len(values)))
        parts.append(values[index])
    return np.concatenate(parts, axis=1)


def _all(scores: Scores) -> np.ndarray:
    return np.concatenate([np.asarray(scores[task], np.float64) for task in sorted(scores)])


def aggregate(scores: Scores) -> tuple[float, float, float]:
    """Interquartile mean of an arm with its 95 % interval."""
    draws = interquartile_mean(_redrawn(scores, np.random.default_rng(0)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(interquartile_mean(_all(scores))), float(low), float(high)


def improvement(first: Scores, second: Scores) -> float:
    """Mean over tasks of P(a run of the first arm > a run of the second); ties count half."""
    of_tasks = []
    for task in first:
        a, b = np.asarray(first[task])[:, None], np.asarray(second[task])[None, :]
        of_tasks.append(np.mean((a > b) + 0.5 * (a == b)))
    return float(np.mean(of_tasks))


def contrast(first: Scores, second: Scores, paired: bool = False) -> Contrast:
    """The first arm minus the second.

    Args:
      first, second: with the same tasks.
      paired: entry i of one belongs to entry i of the other, and both are redrawn together (a
        yoked run and its donor). They must then be of equal length.
    """
    generator = np.random.default_rng(0)
    if paired:
        both = {task: np.stack([first[task], second[task]], -1) for task in first}
        pairs = _redrawn(both, generator)
        draws_a, draws_b = pairs[..., 0], pairs[..., 1]
    else:
        draws_a, draws_b = _redrawn(first, generator), _redrawn(second, generator)
    draws = interquartile_mean(draws_a) - interquartile_mean(draws_b)
    low, low_90, high_90, high = np.quantile(draws, [0.025, 0.05, 0.95, 0.975])
    tail = min(np.sum(draws <= 0.0), np.sum(draws >= 0.0))
    value = interquartile_mean(_all(first)) - interquartile_mean(_all(second))
    return Contrast(
        float(value), float(low), float(high), float(low_90), float(high_90),
        min(1.0, 2.0 * (float(tail) + 1.0) / (REPETITIONS + 1.0)), improvement(first, second),
        (len(_all(first)), len(_all(second))),
        min(len(values) for of in (first, second) for values in of.values()) >= LEAST_RUNS,
    )  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for several tests by Holm's method, in the order given."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
