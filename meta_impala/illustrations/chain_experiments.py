"""The experiments that explain an example.

Each function takes the settings of the example, changes one thing and returns numbers;
`explanations` says in sentences what they mean and `explained_figure` draws them.
Errors are root mean squares of v(s) − true v(s), over states, seeds and episodes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.illustrations.chains import make
from meta_impala.illustrations.prediction import Eta, state_returns
from meta_impala.illustrations.settings import ARRIVED, LEFT, Settings
from meta_impala.illustrations.simulation import (
    History,
    Simulation,
    by_repeat,
    columns_of,
    simulate,
)

STEP_SIZES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
# The grid of one γ and one λ for all states.
GRID = np.round(np.linspace(0.0, 1.0, 11), 2)
# Fixed η settles within this many episodes at the smallest step size.
_GRID_EPISODES, _GRID_SEEDS = 2000, 10
_TARGET_EPISODES, _TARGET_SEED = 20_000, 12_345
_SPEED_SEEDS, SPEED_OFFSET = 200, 5.0


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Learned η, and the error of v, for several inner step sizes; R of them.

    Attributes:
      step_sizes: α `[R]`.
      eta: final γ(s) or λ(s), `[R, T, seeds]`.
      grid: error of v with one γ and one λ for all states, `[R, len(GRID), len(GRID)]`.
      pairs: by name of a fixed η its γ and λ, `[R, 2]`. "ones": γ = λ = 1; "best": the smallest
        error on the grid; "best_single": the smallest with only the learned one of γ and λ free.
      squared_errors: by name, those of `pairs` and "learned", of every state over the last fifth
        of equally long runs on equal rewards, `[R, T]`.
    """

    step_sizes: np.ndarray
    eta: np.ndarray
    grid: np.ndarray
    pairs: dict[str, np.ndarray]
    squared_errors: dict[str, np.ndarray]

    def error(self, name: str) -> np.ndarray:
        """`[R]`, over all states."""
        return root_mean_square(self.squared_errors[name], (1,))

    def error_of_odd_states(self, name: str) -> np.ndarray:
        """`[R]`, over signal or bottleneck states."""
        return root_mean_square(self.squared_errors[name][:, ::2], (1,))

    def row_of(self, step_size: float) -> int:
        """The index of a step size."""
        return int(np.flatnonzero(self.step_sizes == step_size)[0])


class Indexing(NamedTuple):
    """Final γ(s) or λ(s), `[T, seeds]` each, for the two readings of which state's it is."""

    arrived: np.ndarray
    left: np.ndarray


class Targets(NamedTuple):
    """Mean and variance over episodes of the target g_t of every state, v held fixed; `[T]`."""

    mean: np.ndarray
    variance: np.ndarray


class Speed(NamedTuple):
    """Errors after each of the first episodes from a v that starts far off, η fixed.

    Attributes:
      errors: `[E+1]` by name of η: "learned", "ones", "best".
      settled: episodes until the error is within a tenth of where it ends, by name.
    """

    errors: dict[str, np.ndarray]
    settled: dict[str, int]


def root_mean_square(squared_errors: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """√ of the mean over the axes."""
    return np.sqrt(squared_errors.mean(axis=axis))


def sweep(settings: Settings) -> Sweep:
    """Learned η, and its error against that of fixed η, for several α."""
    step_sizes = np.array(sorted({*STEP_SIZES, settings.inner_step_size}))
    columns = columns_of(settings, len(step_sizes), inner_step_sizes=step_sizes)
    history = Simulation(settings, columns).run()
    grid = _grid_errors(settings, step_sizes)
    pairs = {
        "ones": np.ones([len(step_sizes), 2]),
        "best": _smallest(grid),
        "best_single": _smallest(grid[:, :, -1:], gamma=True)
        if settings.learned == "gamma"
        else _smallest(grid[:, -1:, :], gamma=False),
    }
    fixed = columns_of(
        settings,
        len(pairs) * len(step_sizes),
        inner_step_sizes=np.tile(step_sizes, len(pairs)),
        gammas=np.concatenate([pair[:, 0] for pair in pairs.values()]),
        lambdas=np.concatenate([pair[:, 1] for pair in pairs.values()]),
    )
    of_fixed = _last_fifth(settings, Simulation(settings, fixed, learn=False).run())
    squared_errors = {"learned": _last_fifth(settings, history)}
    squared_errors |= dict(zip(pairs, np.split(of_fixed, len(pairs)), strict=True))
    return Sweep(
        step_sizes=step_sizes,
        eta=np.moveaxis(by_repeat(history.eta[-1], settings.seeds), 1, 0),
        grid=grid,
        pairs=pairs,
        squared_errors=squared_errors,
    )


def _last_fifth(settings: Settings, history: History) -> np.ndarray:
    """`[R, T]`, squared errors over the last fifth of a run and over seeds."""
    last = history.squared_errors[-max(1, settings.points // 5) :]
    return by_repeat(last, settings.seeds).mean(axis=(0, 3)).T


def _smallest(grid: np.ndarray, gamma: bool | None = None) -> np.ndarray:
    """γ and λ of the smallest error, `[R, 2]`; of a slice in which only one varies, name it."""
    rows = [np.unravel_index(errors.argmin(), errors.shape) for errors in grid]
    if gamma is None:
        return np.array([[GRID[i], GRID[j]] for i, j in rows])
    return np.array([[GRID[i], 1.0] if gamma else [1.0, GRID[j]] for i, j in rows])


def _grid_errors(settings: Settings, step_sizes: np.ndarray) -> np.ndarray:
    settings = dataclasses.replace(
        settings,
        episodes=min(settings.episodes, _GRID_EPISODES),
        points=min(settings.points, 10),
        seeds=min(settings.seeds, _GRID_SEEDS),
    )
    shape = (len(step_sizes), len(GRID), len(GRID))
    alphas, gammas, lambdas = (
        axis.ravel() for axis in np.meshgrid(step_sizes, GRID, GRID, indexing="ij")
    )
    columns = columns_of(
        settings, len(alphas), inner_step_sizes=alphas, gammas=gammas, lambdas=lambdas
    )
    history = Simulation(settings, columns, learn=False).run()
    last = by_repeat(history.squared_errors[-max(1, settings.points // 2) :], settings.seeds)
    return root_mean_square(last, (0, 1, 3)).reshape(shape)


def indexing(settings: Settings, num_states: int) -> Indexing:
    """The example with γ(s), λ(s) of the state arrived in, and of the state left."""
    finals = [
        simulate(dataclasses.replace(settings, num_states=num_states, indexing=reading)).eta[-1]
        for reading in (ARRIVED, LEFT)
    ]
    return Indexing(*finals)


def eta_of_states(settings: Settings, learned: np.ndarray) -> Eta:
    """γ and λ of the states `[T]`, from the learned ones `[T]` and the fixed other."""
    if settings.learned == "gamma":
        return Eta(learned, np.full_like(learned, settings.lambda_))
    return Eta(np.full_like(learned, settings.gamma), learned)


def targets(settings: Settings, eta: Eta, values: np.ndarray) -> Targets:
    """Mean and variance of the targets of all states, over many episodes.

    Args:
      settings: for the process and the indexing.
      eta: γ and λ of the states, `[T]` each.
      values: v(s) `[T]`, held fixed.
    """
    process = make(settings)
    rewards = process.draw(np.random.default_rng(_TARGET_SEED), _TARGET_EPISODES).T

    def every_episode(of_state: np.ndarray) -> tf.Tensor:
        return tf.constant(np.broadcast_to(of_state[:, None], rewards.shape))

    returns = state_returns(
        tf.constant(rewards),
        Eta(*map(every_episode, eta)),
        every_episode(values),
        arrived=settings.indexing == ARRIVED,
    ).numpy()
    return Targets(returns.mean(axis=1), returns.var(axis=1))


def two_bottleneck_targets(settings: Settings, values: np.ndarray) -> tuple[Targets, Targets]:
    """The targets when aliased states are bootstrapped in, and when bottlenecks are.

    From a bottleneck: r_i + v(aliased), and r_i − r_i + v(next bottleneck).
    """
    arrived = dataclasses.replace(settings, indexing=ARRIVED)
    aliased = np.arange(make(settings).num_states) % 2 == 1
    ones = np.ones(len(aliased))
    in_aliased, in_bottlenecks = (
        targets(arrived, Eta(ones, np.where(cut, 0.0, 1.0)), values) for cut in (aliased, ~aliased)
    )
    return in_aliased, in_bottlenecks


def speed(settings: Settings, history: History, best_pair: np.ndarray) -> Speed:
    """How fast v is learned from a start `SPEED_OFFSET` off, with three fixed η: the final mean of
    the learned η, 1, and the best.

    Args:
      settings: of the example.
      history: of the example.
      best_pair: γ and λ `[2]`.
    """
    process = make(settings)
    learned = eta_of_states(settings, history.eta[-1].mean(axis=-1))
    first_states = [process.observations.index(row) for row in range(process.num_observations)]
    ones = np.ones(len(first_states))
    gammas, lambdas = (
        np.stack([part[first_states], ones, single * ones], axis=-1)  # [K, 3]
        for part, single in zip(learned, best_pair, strict=True)
    )
    episodes = int(np.clip(math.ceil(20 / settings.inner_step_size), 40, 2000))
    settings = dataclasses.replace(
        settings,
        episodes=episodes,
        points=episodes,
        seeds=_SPEED_SEEDS,
        initial_value=settings.initial_value + SPEED_OFFSET,
    )
    columns = columns_of(settings, 3, gammas=gammas, lambdas=lambdas)
    run = Simulation(settings, columns, learn=False).run()
    by_name = root_mean_square(by_repeat(run.squared_errors, settings.seeds), (1, 3)).T
    errors = dict(zip(("learned", "ones", "best"), by_name, strict=True))
    return Speed(errors, {name: _settled(curve) for name, curve in errors.items()})


def _settled(curve: np.ndarray) -> int:
    end = curve[len(curve) // 2 :].mean()
    outside = np.flatnonzero(np.abs(curve - end) > 0.1 * end)
    return int(outside[-1]) + 1 if len(outside) else 0
