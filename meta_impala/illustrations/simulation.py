"""All runs of an experiment side by side in one TensorFlow graph.

A run is a column: its seed, step size and η may differ from its neighbours', its random numbers
depend on its seed alone. One call of the graph goes through many episodes; an episode is one
update of `algorithm.prediction` and one of the meta-parameters (Algorithm 1 of Xu et al. 2018).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.algorithm import optimizers
from meta_impala.algorithm.meta_gradient import InnerUpdate, UpdateRule
from meta_impala.algorithm.meta_parameters import logit
from meta_impala.errors import UserError
from meta_impala.illustrations import prediction
from meta_impala.illustrations.chains import Process, make
from meta_impala.illustrations.settings import ARRIVED, Settings

DTYPE = tf.float64
# RMSProp as the agent has it (Espeholt et al. 2018); only with --inner_optimizer=rmsprop.
RMSPROP_DECAY, RMSPROP_EPSILON = 0.99, 0.01
# Few enough for a Ctrl-C to be answered and for the rewards to be small; many enough to be fast.
_EPISODES_PER_CALL = 250


@dataclasses.dataclass(frozen=True)
class Columns:
    """What the B runs of an experiment differ in; every array is `[B]`.

    Attributes:
      seeds: of the rewards; equal seeds see equal rewards.
      inner_step_sizes: α.
      gammas, lambdas: of every state: fixed, or the start of what is learned. Or `[K, B]`, a
        different one for each observation.
    """

    seeds: np.ndarray
    inner_step_sizes: np.ndarray
    gammas: np.ndarray
    lambdas: np.ndarray

    @property
    def count(self) -> int:
        """B."""
        return len(self.seeds)


def columns_of(settings: Settings, repeats: int = 1, **changes: np.ndarray) -> Columns:
    """Columns of an experiment: every seed, `repeats` times over (the seeds run fastest).

    Args:
      settings: the switches, resolved.
      repeats: R.
      **changes: by attribute of `Columns`, `[R]` (or `[K, R]`) in place of the settings' value.
    """
    seeds = settings.first_seed + np.arange(settings.seeds)
    values: dict[str, np.ndarray] = {
        "inner_step_sizes": np.full(repeats, settings.inner_step_size),
        "gammas": np.full(repeats, settings.gamma, float),
        "lambdas": np.full(repeats, settings.lambda_, float),
    }
    values |= {name: np.asarray(value, float) for name, value in changes.items()}
    columns = {name: np.repeat(value, len(seeds), axis=-1) for name, value in values.items()}
    return Columns(seeds=np.tile(seeds, repeats), **columns)


class State(NamedTuple):
    """The state that is kept from episode to episode; per column."""

    theta: tf.Tensor  # [K, B]
    slots: optimizers.Slots  # of the optimiser of θ, [K, B] each
    x: tf.Tensor  # [K, B]
    meta_slots: optimizers.Slots  # of the optimiser of x
    trace: tf.Tensor  # [K, K, B], or [0, K, B] without a trace
    squared_errors: tf.Tensor  # [T, B], summed over episodes since the last point


@dataclasses.dataclass(frozen=True)
class History:
    """The curves of B runs at P points besides the start.

    Attributes:
      episodes: `[P+1]`, how many were over.
      eta: `[P+1, T, B]`, the learned γ(s) or λ(s) of each state (the fixed one if none is learned).
      values: `[P+1, T, B]`, v(s).
      squared_errors: `[P+1, T, B]`, (v(s) − true v(s))² after an update, averaged over the
        episodes since the point before; at the start, of the initial value.
    """

    episodes: np.ndarray
    eta: np.ndarray
    values: np.ndarray
    squared_errors: np.ndarray


def by_repeat(array: np.ndarray, seeds: int) -> np.ndarray:
    """`[..., R * seeds]`, in the order of `columns_of`, -> `[..., R, seeds]`."""
    return array.reshape(*array.shape[:-1], -1, seeds)


class Simulation:
    """The graph of an experiment, to be run once.

    Args:
      settings: the switches, resolved.
      columns: the runs.
      learn: whether η is learned, or stays where it starts.
    """

    def __init__(self, settings: Settings, columns: Columns, *, learn: bool = True) -> None:
        self._settings = settings
        self._columns = columns
        self._learn = learn
        self._process: Process = make(settings)
        self._chain = prediction.Chain(
            self._process.observations, arrived=settings.indexing == ARRIVED
        )
        self._shape = [self._process.num_observations, columns.count]
        self._fixed = prediction.Eta(
            *(self._per_observation(v) for v in (columns.gammas, columns.lambdas))
        )
        self._true_values = tf.constant(
            self._process.true_values(settings.reference_gamma)[:, None], DTYPE
        )
        seeds, self._column_of_seed = np.unique(columns.seeds, return_inverse=True)
        self._generators = [np.random.default_rng(int(seed)) for seed in seeds]
        self._optimizer: optimizers.Optimizer = (
            optimizers.Sgd()
            if settings.inner_optimizer == "sgd"
            else optimizers.RMSProp(RMSPROP_DECAY, RMSPROP_EPSILON)
        )
        self._meta_optimizer: optimizers.Optimizer = (
            optimizers.Adam() if settings.meta_optimizer == "adam" else optimizers.Sgd()
        )
        self._advance = tf.function(self._episodes, autograph=False)

    def _per_observation(self, value: np.ndarray) -> tf.Tensor:
        return tf.constant(np.broadcast_to(value, self._shape), DTYPE)

    def _eta_of(self, x: tf.Tensor) -> prediction.Eta:
        if not self._learn:
            return self._fixed
        learned = tf.sigmoid(x)
        if self._settings.learned == "gamma":
            return prediction.Eta(learned, self._fixed.lambda_)
        return prediction.Eta(self._fixed.gamma, learned)

    def _initial_state(self) -> State:
        settings = self._settings
        x = tf.zeros(self._shape, DTYPE)
        if self._learn:
            starts = self._columns.gammas if settings.learned == "gamma" else self._columns.lambdas
            x = self._per_observation(np.vectorize(logit)(starts))
        rows, count = self._shape
        theta = tf.fill(self._shape, tf.constant(settings.initial_value, DTYPE))
        return State(
            theta=theta,
            slots=self._optimizer.initial_slots([theta]),
            x=x,
            meta_slots=self._meta_optimizer.initial_slots([x]),
            trace=tf.zeros([rows if settings.trace_decay else 0, rows, count], DTYPE),
            squared_errors=tf.zeros([self._process.num_states, count], DTYPE),
        )

    def _update_rule(self, slots: optimizers.Slots) -> UpdateRule:
        step_sizes = tf.constant(self._columns.inner_step_sizes, DTYPE)  # [B]
        return lambda gradients, _: InnerUpdate(*self._optimizer.step(gradients, slots, step_sizes))

    def _one_episode(self, state: State, rewards: tf.Tensor) -> State:
        """One update on episode τ, J' evaluated on τ'; rewards is `[2, T, S]`, of both."""
        settings = self._settings
        rewards = tf.gather(rewards, self._column_of_seed, axis=-1)  # [2, T, B]
        if settings.theta == "reset":
            start = self._initial_state()
            state = state._replace(theta=start.theta, slots=start.slots, trace=start.trace)
        rule = self._update_rule(state.slots)
        if not self._learn:
            inner = prediction.inner_update(
                state.theta,
                state.x,
                rewards[0],
                self._chain,
                self._eta_of,
                rule,
                bootstrap_parameters=tf.stop_gradient(state.theta),
            )
            return self._with_theta(state, inner.parameters[0], inner.update_auxiliary)

        reference = prediction.Eta(
            tf.constant(settings.reference_gamma, DTYPE),
            tf.constant(settings.reference_lambda, DTYPE),
        )
        common = (rewards[0], rewards[1], self._chain, self._eta_of, reference, rule)
        if settings.trace_decay:
            step = prediction.traced_prediction_step(
                state.theta,
                state.x,
                state.trace,
                *common,
                decay=settings.trace_decay,
                full=settings.trace == "full",
            )
            state = state._replace(trace=step.trace)
        else:
            step = prediction.prediction_step(state.theta, state.x, *common)
        meta_step_size = tf.constant(settings.meta_step_size, DTYPE)
        (update,), meta_slots = self._meta_optimizer.step(
            [step.meta_gradient], state.meta_slots, meta_step_size
        )
        state = state._replace(x=state.x - update, meta_slots=meta_slots)
        return self._with_theta(state, step.parameters, step.slots)

    def _with_theta(self, state: State, theta: tf.Tensor, slots: optimizers.Slots) -> State:
        errors = self._chain.at_states(theta) - self._true_values
        return state._replace(
            theta=theta,
            slots=slots,
            squared_errors=state.squared_errors + tf.square(errors),
        )

    def _episodes(self, state: State, rewards: tf.Tensor) -> State:
        """Goes through n episodes; rewards is `[n, 2, T, S]`, of S different seeds."""
        count = tf.shape(rewards)[0]

        def body(index: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
            return index + 1, self._one_episode(state, rewards[index])

        _, state = tf.while_loop(lambda index, _: index < count, body, (tf.constant(0), state))
        return state

    def _draw(self, episodes: int) -> tf.Tensor:
        """`[n, 2, T, S]`: the episodes τ of the updates, and the τ' on which J' is evaluated."""
        states = self._process.num_states
        drawn = [self._process.draw(g, 2 * episodes) for g in self._generators]
        paired = np.stack(drawn, axis=-1).reshape(episodes, 2, states, len(self._generators))
        return tf.constant(paired, DTYPE)

    def run(self) -> History:
        """Runs all episodes of all columns.

        Raises:
          UserError: if a value stops being finite.
        """
        settings = self._settings
        ends = np.linspace(0, settings.episodes, settings.points + 1).round().astype(int)
        state = self._initial_state()
        errors = tf.square(self._chain.at_states(state.theta) - self._true_values)
        points = [self._point(state, errors.numpy())]
        signature = tf.TensorSpec([None, 2, self._process.num_states, len(self._generators)], DTYPE)
        advance = self._advance.get_concrete_function(state, signature)
        for begin, end in zip(ends[:-1], ends[1:], strict=True):
            state = state._replace(squared_errors=tf.zeros_like(state.squared_errors))
            for done in range(begin, end, _EPISODES_PER_CALL):
                state = advance(state, self._draw(min(_EPISODES_PER_CALL, end - done)))
            point = self._point(state, state.squared_errors.numpy() / (end - begin))
            if not all(np.isfinite(array).all() for array in point):
                raise UserError(
                    f"the values stopped being finite before episode {end:,}; use a smaller "
                    f"--inner_step_size (it is {settings.inner_step_size:g}) or --meta_step_size "
                    f"(it is {settings.meta_step_size:g}), or smaller rewards and initial values"
                )
            points.append(point)
        eta, values, squared_errors = (np.stack(arrays) for arrays in zip(*points, strict=True))
        return History(episodes=ends, eta=eta, values=values, squared_errors=squared_errors)

    def _point(self, state: State, squared_errors: np.ndarray) -> tuple[np.ndarray, ...]:
        eta = self._eta_of(state.x)
        part = eta.gamma if self._settings.learned == "gamma" else eta.lambda_
        at_states = self._chain.at_states
        return at_states(part).numpy(), at_states(state.theta).numpy(), squared_errors


def simulate(settings: Settings) -> History:
    """The example itself: one column per seed."""
    return Simulation(settings, columns_of(settings)).run()
