"""Scores of uniformly random actions, in the environments that agents are scored in."""

from __future__ import annotations

import pathlib

import numpy as np

from meta_impala.environments import registry
from meta_impala.storage.files import write_atomically
from meta_impala.study.design import MECHANISM, MINATAR

_GAMES = 4_000
_GAMES_OF_MINATAR = 1_600
_ENVIRONMENTS = 16


def play(task: str, games: int, seed: int = 0) -> tuple[float, float]:
    """Mean return of `games` games with random actions, and its standard error."""
    name, _ = registry.evaluated_in(task)
    environment = registry.make(name, _ENVIRONMENTS, "impala")
    try:
        generator = np.random.default_rng(seed)
        environment.reset(seed)
        # As many games of each environment: the first ones to end would be the short ones.
        returns: list[list[float]] = [[] for _ in range(_ENVIRONMENTS)]
        while min(map(len, returns)) < games // _ENVIRONMENTS:
            actions = generator.integers(environment.num_actions, size=_ENVIRONMENTS)
            step = environment.step(actions)
            for index in np.flatnonzero(step.episode_ends):
                returns[index].append(float(step.episode_returns[index]))
    finally:
        environment.close()
    values = np.array([of[: games // _ENVIRONMENTS] for of in returns])
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size))


def write(path: pathlib.Path) -> None:
    """Writes `random.csv` for the tasks of parts 1 and 2."""
    lines = ["# made by: python tools/study.py random", "task,mean_return,standard_error,games"]
    for task in (*MECHANISM.tasks, *MINATAR.tasks):
        games = _GAMES_OF_MINATAR if task in MINATAR.tasks else _GAMES
        mean, error = play(task, games)
        lines.append(f"{task},{mean:.6g},{error:.3g},{games}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(lines) + "\n")
