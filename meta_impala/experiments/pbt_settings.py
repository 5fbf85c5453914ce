"""Settings of a population; needs no Ray."""

from __future__ import annotations

import dataclasses

# What is adapted, with the range it is drawn from.
ADAPTED = {
    "learning_rate": "0.0001,0.005",
    "entropy_cost": "0.0005,0.02",
    "gamma": "0.95,0.999",
    "lambda": "0.8,0.999",
}


@dataclasses.dataclass(frozen=True)
class Population:
    """Settings of a population.

    Attributes:
      size: how many members.
      frames_of_each: environment frames that each is trained for.
      interval: frames between two selections.
      ranges: name -> (low, high) of what is adapted.
      cpus: that Ray is to give each member.
    """

    size: int
    frames_of_each: int
    interval: int
    ranges: dict[str, tuple[float, float]]
    cpus: float
