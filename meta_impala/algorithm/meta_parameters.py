"""η (`meta_parameters`): which of γ and λ are learned, their logits x, and what the network is fed.

η = σ(x), and x is what the meta-optimiser moves (Xu et al. 2018). A value that is not learned is a
constant and may be exactly 0 or 1; a learned one lies strictly inside its range, because x is
finite. x is `[n]` when η is one for all states (n = what is learned), and `[F+1, n]` when every
state has its own: weights of the features and, in the last row, a bias.

Nothing here stops a gradient; what is constant is said in `objectives.py`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

NAMES = ("gamma", "lambda")

# Logits are cut here before they are embedded, so that λ' = 1 (an infinite logit) can be fed to
# the network; σ(7) = 0.99909. Divided by it they lie in [−1, 1], on the scale of other features.
EMBEDDED_LOGIT_BOUND = 7.0


class Eta(NamedTuple):
    """η: the discount γ and the bootstrapping parameter λ.

    Scalars, or `[T+1, B]`: one per state, to be used where the state is *arrived in*.
    """

    gamma: tf.Tensor
    lambda_: tf.Tensor

    def of_arrivals(self) -> Eta:
        """The same for the T transitions between T+1 states: that of the state arrived in."""
        return Eta(*(part[1:] if part.shape.rank else part for part in self))

    def constant(self) -> Eta:
        """The same numbers, through which no gradient flows."""
        return Eta(*map(tf.stop_gradient, self))


def logit(value: float) -> float:
    """σ⁻¹(value), for a value strictly between 0 and 1."""
    return math.log(value) - math.log1p(-value)


@dataclasses.dataclass(frozen=True)
class MetaParameters:
    """Which meta-parameters are learned, from where, and the reference η' that judges them.

    Attributes:
      learned: a sub-sequence of ("gamma", "lambda"); the last axis of x is in this order.
      gamma: γ if fixed, its start if learned.
      lambda_: λ if fixed, its start if learned.
      reference_gamma: γ', the discount of the meta objective.
      reference_lambda: λ', the bootstrapping parameter of the meta objective.
      gamma_range: (low, high) of a learned γ = low + (high − low) σ(x).
      lambda_range: likewise of λ.
      tracking: of which names η' is the current value, not the two numbers above.
    """

    learned: tuple[str, ...]
    gamma: float
    lambda_: float
    reference_gamma: float
    reference_lambda: float
    gamma_range: tuple[float, float] = (0.0, 1.0)
    lambda_range: tuple[float, float] = (0.0, 1.0)
    tracking: tuple[str, ...] = ()

    @property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return {"gamma": self.gamma_range, "lambda": self.lambda_range}

    def initial_logits(self, num_features: int | None = None) -> np.ndarray:
        """x before the first update: `[n]` float32.

        With `num_features` F, `[F+1, n]`: weights zero, so that all states begin alike.
        """
        starts = {"gamma": self.gamma, "lambda": self.lambda_}
        bias = [
            logit((starts[name] - low) / (high - low))
            for name, (low, high) in self._ranges.items()
            if name in self.learned
        ]
        if num_features is None:
            return np.array(bias, np.float32)
        return np.array([*np.zeros([num_features, len(bias)]), bias], np.float32)

    def values(self, x: tf.Tensor) -> Eta:
        """η(x): learned values from their logits `[..., n]`, fixed ones as constants."""
        values = {
            "gamma": tf.constant(self.gamma, x.dtype),
            "lambda": tf.constant(self.lambda_, x.dtype),
        }
        for index, name in enumerate(self.learned):
            low, high = self._ranges[name]
            value = tf.sigmoid(x[..., index])
            # In the whole range (0, 1) without a multiplication, to the bit.
            values[name] = value if (low, high) == (0.0, 1.0) else low + (high - low) * value
        if len(self.learned) == 1 and values[self.learned[0]].shape.rank:
            like = values[self.learned[0]]
            values = {name: value + tf.zeros_like(like) for name, value in values.items()}
        return Eta(values["gamma"], values["lambda"])

    def at_states(self, x: tf.Tensor, features: tf.Tensor) -> Eta:
        """η of the states with these features.

        Args:
          x: `[n]` (one η for all states) or `[F+1, n]`.
          features: `[..., F]`; looked at only in the second case. They are scaled to a length
            below 1, so that a step of the meta-optimiser has a bounded effect.

        Returns:
          Scalars, or `[...]`.
        """
        if x.shape.rank == 1:
            return self.values(x)
        length = tf.sqrt(1.0 + tf.reduce_sum(tf.square(features), axis=-1, keepdims=True))
        return self.values(tf.tensordot(features / length, x[:-1], 1) + x[-1])

    def reference(self, dtype: tf.DType = tf.float32, current: Eta | None = None) -> Eta:
        """η': constants, or the current values of those that are tracked.

        Args:
          dtype: of the result.
          current: η as it is now; needed only to track it.
        """
        values = {
            "gamma": tf.constant(self.reference_gamma, dtype),
            "lambda": tf.constant(self.reference_lambda, dtype),
        }
        for name in self.tracking:
            assert current is not None, "what is tracked?"
            values[name] = current.gamma if name == "gamma" else current.lambda_
        shapes = [value.shape for value in values.values() if value.shape.rank]
        if shapes:
            values = {name: tf.broadcast_to(v, shapes[0]) for name, v in values.items()}
        return Eta(values["gamma"], values["lambda"])


def embedding_input(eta: Eta, kind: str = "logits") -> tf.Tensor:
    """What of η the network embeds; finite, with finite gradients, for all of [0, 1].

    Args:
      eta: γ and λ, scalars or of one shape, all in [0, 1].
      kind: "logits": of γ and λ, cut to ±7 and divided by 7, so that 0.99 and 0.995 are told apart
        and exactly 0 and 1 can be fed; "values": γ and λ themselves.

    Returns:
      `[..., 2]`, of η's dtype.
    """
    values = tf.stack([eta.gamma, eta.lambda_], axis=-1)
    if kind == "values":
        return values
    if kind != "logits":
        raise ValueError(f'kind must be "logits" or "values", is {kind!r}')
    edge = 1.0 / (1.0 + math.exp(EMBEDDED_LOGIT_BOUND))
    inside = tf.clip_by_value(values, edge, 1.0 - edge)
    logits = tf.math.log(inside) - tf.math.log1p(-inside)
    return logits / EMBEDDED_LOGIT_BOUND
