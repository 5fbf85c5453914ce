"""The table of meta-parameters: η, its logits x, its reference η', and the network's input of η.

A row of the table (`MetaParameter`) is a hyper-parameter of the inner objective J or of the inner
update U. Those that are learned have logits x, which the meta-optimiser moves: the value is
low + (high − low) σ(x) (Xu et al. 2018: η = σ(x)). The others are constants, and may be exactly 0
or 1; a learned one is strictly inside its range, because x is finite.

x is a tensor `[n]` when η is one for all states (n = number learned), and `[F+1, n]` when every
state has its own: weights of the features and, in the last row, a bias.

Nothing here stops a gradient; `objectives.py` states what is constant.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import tensorflow as tf

GAMMA, LAMBDA = "gamma", "lambda"

# Logits are clipped here before they are embedded, so that λ' = 1 (an infinite logit) can be fed to
# the network; σ(7) = 0.99909. Divided by it they are in [−1, 1], on the scale of other features.
EMBEDDED_LOGIT_BOUND = 7.0

# η: name -> value. A constant is a Python float; what is learned or given is a tensor: a scalar, or
# `[T+1, B]`, one value for each state. γ and λ are used where the state is *arrived in*, all others
# where it is *left*: they act on the step that is made there.
Eta: TypeAlias = Mapping[str, "tf.Tensor | float"]


def constant(eta: Eta) -> dict[str, tf.Tensor | float]:
    """The same numbers, through which no gradient flows."""
    return {n: v if isinstance(v, float) else tf.stop_gradient(v) for n, v in eta.items()}


def of_arrivals(value: tf.Tensor | float) -> tf.Tensor | float:
    """A value of the T+1 states as one of the T transitions: that of the state arrived in."""
    return value if isinstance(value, float) or is_one(value) else value[1:]


def of_departures(value: tf.Tensor | float) -> tf.Tensor | float:
    """The same: that of the state left."""
    return value if isinstance(value, float) or is_one(value) else value[:-1]


def is_one(value: tf.Tensor | float) -> bool:
    """Whether it is one number, the same for all states."""
    return isinstance(value, float) or not value.shape.rank


def logit(value: float) -> float:
    """σ⁻¹(value), for a value strictly between 0 and 1."""
    return math.log(value) - math.log1p(-value)


@dataclasses.dataclass(frozen=True)
class MetaParameter:
    """A row of the table.

    Attributes:
      name: as in `--meta_parameters` and in the metrics.
      value: the constant if it is not learned, the start if it is.
      reference: its value in η', with which the meta objective is computed.
      low, high: range of a learned value, low + (high − low) σ(x); both ends open.
      embedded: whether its value is an input of the network.
      per_state: whether it acts at single steps, so that it can be a function of the state.
    """

    name: str
    value: float
    reference: float
    low: float = 0.0
    high: float = 1.0
    embedded: bool = False
    per_state: bool = False


@dataclasses.dataclass(frozen=True)
class MetaParameters:
    """The table, and which of its rows are learned.

    Attributes:
      rows: of all hyper-parameters that could be learned; γ and λ first.
      learned: names of those that are; the last axis of x is in this order.
      tracking: names whose value in η' is the current value and not `reference`.
      of_states: names of those that are a function of the state. If there are any, x is
        `[F+1, n]`, of which the others use the bias alone.
    """

    rows: tuple[MetaParameter, ...]
    learned: tuple[str, ...] = ()
    tracking: tuple[str, ...] = ()
    of_states: tuple[str, ...] = ()

    @property
    def is_per_state(self) -> bool:
        """Whether something of η is a function of the state."""
        return bool(self.of_states)

    def __getitem__(self, name: str) -> MetaParameter:
        return next(row for row in self.rows if row.name == name)

    @property
    def embedded(self) -> tuple[str, ...]:
        """Names of the network's inputs of η, in their order."""
        return tuple(row.name for row in self.rows if row.embedded)

    def initial_logits(self, num_features: int | None = None) -> np.ndarray:
        """x before the first update: `[n]` float32.

        With `num_features` F, `[F+1, n]`: weights zero, so that all states start with the same η.
        """
        rows = [self[name] for name in self.learned]
        bias = [logit((row.value - row.low) / (row.high - row.low)) for row in rows]
        if num_features is None:
            return np.array(bias, np.float32)
        return np.array([*np.zeros([num_features, len(bias)]), bias], np.float32)

    def values(self, x: tf.Tensor) -> dict[str, tf.Tensor | float]:
        """η(x): learned values from their logits `[..., n]`, the others as constants."""
        return self._values({name: x[..., i] for i, name in enumerate(self.learned)})

    def _values(self, logits: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor | float]:
        values: dict[str, tf.Tensor | float] = {row.name: row.value for row in self.rows}
        for name, of_name in logits.items():
            row, share = self[name], tf.sigmoid(of_name)
            # In the whole range (0, 1) without a multiplication, to the bit.
            whole = (row.low, row.high) == (0.0, 1.0)
            values[name] = share if whole else row.low + (row.high - row.low) * share
        return values

    def of_rule(self, x: tf.Tensor) -> dict[str, tf.Tensor | float]:
        """η of U, which belongs to no state: from `[n]`, or the bias of `[F+1, n]`."""
        return self.values(x if x.shape.rank == 1 else x[-1])

    def at_states(self, x: tf.Tensor, features: tf.Tensor) -> dict[str, tf.Tensor | float]:
        """η of the states with these features.

        Args:
          x: `[n]` (one η for all states) or `[F+1, n]`.
          features: `[..., F]`; looked at only in the second case. They are scaled to a length
            below 1, so that a step of the meta-optimiser has a bounded effect.

        Returns:
          Scalars, or `[...]` for what is a function of the state.
        """
        if x.shape.rank == 1:
            return self.values(x)
        length = tf.sqrt(1.0 + tf.reduce_sum(tf.square(features), axis=-1, keepdims=True))
        at_states = tf.tensordot(features / length, x[:-1], 1) + x[-1]
        return self._values(
            {
                name: at_states[..., i] if name in self.of_states else x[-1, i]
                for i, name in enumerate(self.learned)
            }
        )

    def at_times(self, x: tf.Tensor, features: tf.Tensor) -> dict[str, tf.Tensor | float]:
        """η with logits of its own for every transition of an unroll.

        Args:
          x: `[T+1, n]` or `[T+1, F+1, n]`; row t is of the transition that arrives in state t.
          features: `[T+1, B, F]`.

        Returns:
          What acts at single steps as `[T+1, 1]` or `[T+1, B]`; by row 0 of x nothing of it is
          made. What acts on the update as a whole is that of row 0.
        """
        of_rows, states = tf.unstack(x), tf.unstack(features)
        arriving = [self.at_states(*pair) for pair in zip(of_rows, states, strict=True)]
        # The transition that leaves state t arrives in t + 1; none leaves the last.
        after = [*of_rows[1:], of_rows[-1]]
        leaving = [self.at_states(*pair) for pair in zip(after, states, strict=True)]
        result: dict[str, tf.Tensor | float] = dict(arriving[0])
        for name in filter(lambda name: self[name].per_state, self.learned):
            rows = arriving if name in (GAMMA, LAMBDA) else leaving
            result[name] = tf.reshape(tf.stack([row[name] for row in rows]), [len(rows), -1])
        return result

    def reference(self, current: Eta | None = None) -> dict[str, tf.Tensor | float]:
        """η': constants, or the current values of those that are tracked.

        Args:
          current: η as it is now; needed only to track it.
        """
        values: dict[str, tf.Tensor | float] = {row.name: row.reference for row in self.rows}
        for name in self.tracking:
            assert current is not None, "what is tracked?"
            values[name] = current[name]
        return values

    def fed(self, eta: Eta, dtype: tf.DType) -> list[tf.Tensor]:
        """The values of η that the network is told, each in [0, 1].

        γ and λ are fed as they are, the others relative to their range.
        """
        fed = []
        for row in self.rows:
            if row.embedded:
                value = tf.convert_to_tensor(eta[row.name], dtype)
                whole = row.name in (GAMMA, LAMBDA)
                fed.append(value if whole else (value - row.low) / (row.high - row.low))
        return fed


def embedding_input(values: Iterable[tf.Tensor], kind: str = "logits") -> tf.Tensor:
    """What of η the network embeds; finite, with finite gradients, for all of [0, 1].

    Args:
      values: of η (`MetaParameters.fed`), scalars or of shapes that can be broadcast, in [0, 1].
      kind: "logits": of the values, cut to ±7 and divided by 7, so that 0.99 and 0.995 are told
        apart and exactly 0 and 1 can be fed; "values": the values themselves. Beyond ±7 (γ above
        0.99909 or below 0.00091) all logits look alike to the network.

    Returns:
      `[..., E]`, of the values' dtype.
    """
    values = list(values)
    shape = functools.reduce(tf.broadcast_static_shape, [value.shape for value in values])
    stacked = tf.stack([tf.broadcast_to(value, shape) for value in values], axis=-1)
    if kind == "values":
        return stacked
    if kind != "logits":
        raise ValueError(f'kind must be "logits" or "values", is {kind!r}')
    edge = 1.0 / (1.0 + math.exp(EMBEDDED_LOGIT_BOUND))
    inside = tf.clip_by_value(stacked, edge, 1.0 - edge)
    logits = tf.math.log(inside) - tf.math.log1p(-inside)
    return logits / EMBEDDED_LOGIT_BOUND
