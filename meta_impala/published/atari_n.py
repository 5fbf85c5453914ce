"""Atari-N: the median over 57 games estimated from 1 to 10 of them (Aitchison et al. 2022).

    median in percent ≈ 10^(Σ_g w_g log10(1 + max(x_g, 0))) − 1

where x_g is the human-normalised score of game g in percent. The games and weights w_g are in
`published/atari_n.csv`; there is no intercept. They were fitted to published agents, nearly all at
200M frames and with a median above 40 %. At fewer frames the games relate differently (BattleZone
is still at the random score when others are far above it) and the estimate can be wrong by a factor
of 3, so it is not computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

from meta_impala.published import tables

FRAMES = 200_000_000
_FRAMES_TOLERANCE = 0.01  # relative
LOWEST_MEDIAN_PERCENT = 40.0


class Estimate(NamedTuple):
    """An estimate of the median over 57 games.

    Attributes:
      subset: `atari5`, for example.
      agent: whose.
      median_percent: the estimate.
      is_in_range: whether it is above the lowest median that the weights were fitted to.
    """

    subset: str
    agent: str
    median_percent: float
    is_in_range: bool


@functools.cache
def subsets() -> Mapping[str, Mapping[str, float]]:
    """Subset -> game -> weight, from the smallest subset to the largest, validation sets last."""
    found: dict[str, dict[str, float]] = {}
    for row in tables.read_table(tables.FOLDER / "atari_n.csv"):
        name = row["set"].replace("atari_", "atari", 1)
        found.setdefault(name, {})[row["game"]] = float(row["weight"])
    return found


def median_percent(subset: str, by_game: Mapping[str, float]) -> float:
    """The estimate of one subset.

    Args:
      subset: a key of `subsets()`.
      by_game: game -> human-normalised score as a fraction (1 is a human).

    Raises:
      KeyError: if a game is missing.
    """
    logarithm = sum(
        weight * math.log10(1.0 + max(100.0 * by_game[game], 0.0))
        for game, weight in subsets()[subset].items()
    )
    return 10.0**logarithm - 1.0


def is_trained_enough(frames: int) -> bool:
    """Whether the weights were fitted to this number of frames."""
    return abs(frames - FRAMES) <= _FRAMES_TOLERANCE * FRAMES


def estimates(agent: str, by_game: Mapping[str, float]) -> list[Estimate]:
    """The estimates of all subsets whose games are there, validation sets left out.

    Args:
      agent: whose scores they are.
      by_game: game -> human-normalised score as a fraction, after 200M frames.
    """
    found = []
    for subset, weights in subsets().items():
        if "validation" not in subset and weights.keys() <= by_game.keys():
            percent = median_percent(subset, by_game)
            found.append(Estimate(subset, agent, percent, percent > LOWEST_MEDIAN_PERCENT))
    return found
