"""Samples of the meta-gradient at one point: real batches of a run, its parameters held fixed.

Two groups of B environments are played side by side with the policy of the checkpoint. Every unroll
of the first group is a τ. J' of the update on it is evaluated on several meta batches τ', which
differ in how closely they are related to τ; how far they agree shows how independent the τ' of
training is.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.making import actor_seed
from meta_impala.actors.startup import make_actor
from meta_impala.actors.trajectory import Unroll
from meta_impala.agent.policy import Policy, Snapshot
from meta_impala.algorithm import attribution as explanation
from meta_impala.algorithm import meta_gradient
from meta_impala.config import ActingSettings, AgentSettings, Config
from meta_impala.config.metric_columns import of_head
from meta_impala.environments import Description, registry
from meta_impala.learner.learner import Learner

# "The same games much later" is this many unrolls later.
LATER_BY = 20

# The meta batches τ' on which J' of an update on τ is evaluated, all at the same θ'.
ITSELF, NEXT, LATER, OTHERS, HELD_OUT = (
    "τ itself",
    "next unroll of the same games",
    f"same games, {LATER_BY} unrolls later",
    "other games",
    "held-out games of the same batch",
)
PAIRS = (
    (ITSELF, NEXT),
    (ITSELF, LATER),
    (ITSELF, OTHERS),
    (NEXT, LATER),
    (NEXT, OTHERS),
    (ITSELF, HELD_OUT),
)


class Sample(NamedTuple):
    """The update on one τ. With an η per state all derivatives are by the bias of its logits.

    Attributes:
      by_place: `[P, n]`, dJ'/dx by `attribution.SPLIT_PLACES`, on the meta batch of training.
      by_time: `[2, T, n]`, by the T states arrived in, of `attribution.TIMED_PLACES`.
      meta_loss: J' per agent step, on the meta batch of training.
      meta_gradients: meta batch -> dJ'/dx `[n]`.
      cosines: pair of meta batches -> cosine of their ∇_θ' J'.
      cosine_with_last: cosine of ∇_θ' J' of this update and of the one before, each on the
        meta batch of training; NaN for the first.
      sensitivity: ‖∇_θ' J'‖, on the meta batch of training.
      gradient_norm: ‖∇_θ J‖ before the clip.
      clip_coefficient: what the clip multiplied it by.
      eta: `[n]`, what is learned, as means over the states of τ.
      of_heads: `[H, n]`, dJ'/dx of the auxiliary heads, on the meta batch of training.
      eta_of_heads: `[H, n]`, what is learned of these.
    """

    by_place: np.ndarray
    by_time: np.ndarray
    meta_loss: float
    meta_gradients: dict[str, np.ndarray]
    cosines: dict[tuple[str, str], float]
    cosine_with_last: float
    sensitivity: float
    gradient_norm: float
    clip_coefficient: float
    eta: np.ndarray
    of_heads: np.ndarray
    eta_of_heads: np.ndarray


def share_of_same_games(config: Config) -> float:
    """The share of τ' that continues the games of τ in training, from 0 to 1, if actors take turns.

    The environments fill the batches in a circle: with twice as many as a batch has columns, the
    next batch is of other games.
    """
    if config.meta_data == "held_out":
        return 0.0
    if config.meta_data == "same":
        return 1.0
    environments = config.num_actors * config.envs_per_actor * config.num_learners
    return min(1.0, max(0.0, 2.0 - environments / config.batch_size))


def meta_batch_of_training(config: Config) -> str:
    """Which of the meta batches is the kind that training uses."""
    if config.meta_data == "held_out":
        return HELD_OUT
    if config.meta_data == "same":
        return ITSELF
    return NEXT if share_of_same_games(config) >= 0.5 else OTHERS


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors; NaN if one of them is 0."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else float("nan")


class _MetaEvaluation(NamedTuple):
    """J' of one update, evaluated on one meta batch."""

    by_place: np.ndarray
    by_time: np.ndarray
    meta_loss: float
    direction: np.ndarray  # ∇_θ' J' as one vector
    gradient_norm: float
    clip_coefficient: float
    eta: np.ndarray
    of_heads: np.ndarray
    eta_of_heads: np.ndarray

    @property
    def meta_gradient(self) -> np.ndarray:
        return self.by_place.sum(axis=0)


def _meta_evaluation(
    learner: Learner, learning_rate: float
) -> Callable[[Unroll, Unroll], _MetaEvaluation]:
    """(τ, τ') -> J' of the update on τ, evaluated on τ'; no variable is assigned."""
    learned = learner.meta_parameters.learned
    heads = range(2, 2 + learner.state.network.settings.auxiliary_heads)

    @tf.function(autograph=False)
    def function(batch: Unroll, meta_batch: Unroll) -> tuple:
        parts = learner.factory.parts(batch, meta_batch, tf.constant(learning_rate, tf.float32))
        split = explanation.split_meta_gradient(*parts)
        inner = split.step.inner
        _, _, direction = meta_gradient.meta_loss_and_gradient(
            parts.meta_objective, inner.parameters
        )
        by_place, by_time = split.by_place, split.by_time[:, 1:]
        if parts.x[0].shape.rank > 1:  # the bias of the logits is their last row
            by_place, by_time = by_place[..., -1, :], by_time[..., -1, :]
        _, gradient_norm, coefficient = inner.update_auxiliary
        _, eta = inner.loss_auxiliary
        # Steps of weight 0, which a time limit adds, are no agent steps.
        steps = tf.maximum(tf.reduce_sum(parts.meta_objective.transitions.step_mask), 1.0)
        return (
            by_place,
            by_time,
            split.step.meta_loss / steps,
            tf.concat([tf.reshape(part, [-1]) for part in direction], axis=0),
            gradient_norm,
            coefficient,
            tf.stack([eta[name] for name in learned]),
            _of_heads(split.step.meta_gradient[1:], len(learned)),
            _of_heads([[eta[of_head(n, head)] for n in learned] for head in heads], len(learned)),
        )

    def evaluate(batch: Unroll, meta_batch: Unroll) -> _MetaEvaluation:
        tensors = (Unroll(*map(tf.constant, unroll)) for unroll in (batch, meta_batch))
        arrays = (tensor.numpy() for tensor in function(*tensors))
        return _MetaEvaluation._make(array if array.ndim else float(array) for array in arrays)

    return evaluate


def _of_heads(numbers: Any, count: int) -> tf.Tensor:
    """`[H, n]`, also of no head."""
    return tf.stack([tf.stack(row) for row in numbers]) if numbers else tf.zeros([0, count])


def _columns(unroll: Unroll, columns: np.ndarray) -> Unroll:
    return unroll.map(lambda array: array[:, columns], lambda array: array[columns])


class _Group:
    """B environments, all played by one snapshot; the newest unrolls are kept."""

    def __init__(
        self,
        index: int,
        policy: Policy,
        snapshot: Snapshot,
        config: Config,
        core_state_size: int,
        seed: int,
    ) -> None:
        environment = registry.make(
            config.environment,
            config.batch_size,
            config.protocol,
            num_threads=min(config.batch_size, os.cpu_count() or 1),
            environment_kwargs=config.environment_arguments,
        )
        self._snapshot = snapshot
        self._actor = make_actor(index, config.part(ActingSettings), policy, environment)
        self._actor.reset(
            actor_seed(seed, snapshot.version, index, config.batch_size), core_state_size
        )
        self._kept: collections.deque[Unroll] = collections.deque(maxlen=LATER_BY + 1)

    def play(self, unrolls: int) -> None:
        for _ in range(unrolls):
            self._kept.append(self._actor.unroll(self._snapshot).unroll)

    def later(self, unrolls: int) -> Unroll:
        """The unroll this many after the oldest one kept."""
        return self._kept[unrolls]

    def close(self) -> None:
        self._actor.close()


def samples(
    learner: Learner,
    config: Config,
    description: Description,
    learning_rate: float,
    *,
    batches: int,
    warmup: int,
    seed: int,
) -> Generator[Sample, None, None]:
    """Plays the run's environments and analyses the update on every batch.

    Args:
      learner: restored; not changed.
      config: of its run.
      description: of its environment.
      learning_rate: of the updates.
      batches: how many τ.
      warmup: unrolls played first and discarded: games start anew, and their first steps are not
        typical of a run.
      seed: of games and actions.
    """
    network, snapshot = learner.state.network, learner.snapshot()
    policy = Policy(network, config.part(AgentSettings), description, config.batch_size)
    state_size = network.settings.core_state_size
    with contextlib.ExitStack() as stack:
        groups = []
        for index in range(2):
            groups.append(_Group(index, policy, snapshot, config, state_size, seed))
            stack.callback(groups[index].close)
            groups[index].play(warmup)
        evaluate = _meta_evaluation(learner, learning_rate)
        yield from _samples(
            groups[0], groups[1], learner, config, evaluate, batches, snapshot.version
        )


def _samples(
    group: _Group,
    others: _Group,
    learner: Learner,
    config: Config,
    evaluate: Callable[[Unroll, Unroll], _MetaEvaluation],
    batches: int,
    updates: int,
) -> Generator[Sample, None, None]:
    training = meta_batch_of_training(config)
    held_out = config.meta_data == "held_out"
    last: np.ndarray | None = None
    for number in range(batches):
        unrolls = LATER_BY + 1 if number == 0 else 1
        group.play(unrolls)
        others.play(unrolls)
        # Which trajectories are for J and which games for J', as `Learner` draws them.
        order = learner.column_order(updates + number * config.sample_reuse)
        count = config.meta_batch_size
        learned, chosen = (order[count:], order[:count]) if held_out else (None, order[:count])
        whole = group.later(0)
        batch = whole
        meta_batches = {}
        if learned is not None:
            batch, meta_batches[HELD_OUT] = _columns(whole, learned), _columns(whole, chosen)
            chosen = learned[:count]  # games of τ
        meta_batches |= {
            ITSELF: _columns(whole, chosen),
            NEXT: _columns(group.later(1), chosen),
            LATER: _columns(group.later(LATER_BY), chosen),
            OTHERS: _columns(others.later(1), chosen),
        }
        found = {name: evaluate(batch, one) for name, one in meta_batches.items()}
        main = found[training]
        yield Sample(
            by_place=main.by_place,
            by_time=main.by_time,
            meta_loss=main.meta_loss,
            meta_gradients={name: one.meta_gradient for name, one in found.items()},
            cosines={
                (one, other): cosine(found[one].direction, found[other].direction)
                for one, other in PAIRS
                if one in found and other in found
            },
            cosine_with_last=float("nan") if last is None else cosine(last, main.direction),
            sensitivity=float(np.linalg.norm(main.direction.astype(np.float64))),
            gradient_norm=main.gradient_norm,
            clip_coefficient=main.clip_coefficient,
            eta=main.eta,
            of_heads=main.of_heads,
            eta_of_heads=main.eta_of_heads,
        )
        last = main.direction
