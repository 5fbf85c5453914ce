"""Statistics of the returns of an evaluation, and the human-normalised score.

The scores of a random player and of a professional games tester, for both kinds of start, are in
`published/human_random.csv`, whose first line names the source. No TensorFlow here.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# "noop": 1 to 30 no-ops at the start of a game (Mnih et al. 2015). "human_start": the start states
# of Nair et al. 2015, which were never published.
STARTS = ("noop", "human_start")


class Summary(NamedTuple):
    """Statistics of the returns of some games; `standard_error` is None for a single game."""

    episodes: int
    mean: float
    standard_error: float | None
    median: float
    min: float
    max: float


class HumanRandom(NamedTuple):
    """The raw scores of a human and of a random player of one game."""

    human: float
    random: float


def summarize(returns: Sequence[float]) -> Summary:
    """The statistics of at least one return; the standard error is that of the mean (ddof 1)."""
    values = np.asarray(returns, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"returns must be a non-empty list of numbers, has shape {values.shape}")
    several = values.size > 1
    return Summary(
        episodes=int(values.size),
        mean=float(values.mean()),
        standard_error=float(values.std(ddof=1) / np.sqrt(values.size)) if several else None,
        median=float(np.median(values)),
        min=float(values.min()),
        max=float(values.max()),
    )


@functools.cache
def human_random(starts: str = "noop") -> dict[str, HumanRandom]:
    """The human and random scores of the 57 games, by name in CamelCase.

    Args:
      starts: one of `STARTS`.

    Raises:
      ValueError: if it is not.
    """
    if starts not in STARTS:
        raise ValueError(f"starts is {starts!r}; must be one of {', '.join(STARTS)}")
    table = importlib.resources.files("meta_impala") / "published" / "human_random.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    return {
        row["game"]: HumanRandom(float(row[f"human_{starts}"]), float(row[f"random_{starts}"]))
        for row in csv.DictReader(line for line in lines if not line.startswith("#"))
    }


def human_normalised(game: str | None, mean: float, starts: str = "noop") -> float | None:
    """(mean − random) / |human − random|: 0 is a random player, 1 a human.

    The absolute value is for VideoPinball with human starts, where the random player's published
    score is above the human's: a better agent still has the larger number.

    Args:
      game: name in CamelCase, or None if it is not an Atari game.
      mean: mean raw return of full games.
      starts: one of `STARTS`.

    Returns:
      The score, or None where no human score was published.
    """
    scores = human_random(starts).get(game) if game else None
    if scores is None:
        return None
    return (mean - scores.random) / abs(scores.human - scores.random)
