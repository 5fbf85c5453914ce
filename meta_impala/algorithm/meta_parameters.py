"""η (`meta_parameters`): which of γ and λ are learned, their logits x, and what the network is fed.

η = σ(x), and x is what the meta-optimiser moves (Xu et al. 2018). A value that is not learned is a
constant and may be exactly 0 or 1; a learned one lies strictly between, because x is finite.
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
    """η: the discount γ and the bootstrapping parameter λ, scalars or `[T, B]`."""

    gamma: tf.Tensor
    lambda_: tf.Tensor


def logit(value: float) -> float:
    """σ⁻¹(value), for a value strictly between 0 and 1."""
    return math.log(value) - math.log1p(-value)


@dataclasses.dataclass(frozen=True)
class MetaParameters:
    """Which meta-parameters are learned, from where, and the fixed reference η' that judges them.

    Attributes:
      learned: a sub-sequence of ("gamma", "lambda"); the entries of x are in this order.
      gamma: γ if fixed, its start if learned.
      lambda_: λ if fixed, its start if learned.
      reference_gamma: γ', the discount of the meta objective.
      reference_lambda: λ', the bootstrapping parameter of the meta objective.
    """

    learned: tuple[str, ...]
    gamma: float
    lambda_: float
    reference_gamma: float
    reference_lambda: float

    def initial_logits(self) -> np.ndarray:
        """x before the first update, `[len(learned)]` float32."""
        starts = {"gamma": self.gamma, "lambda": self.lambda_}
        return np.array([logit(starts[name]) for name in self.learned], np.float32)

    def values(self, x: tf.Tensor) -> Eta:
        """η(x): learned values from their logits `[len(learned)]`, fixed ones as constants."""
        values = {
            "gamma": tf.constant(self.gamma, x.dtype),
            "lambda": tf.constant(self.lambda_, x.dtype),
        }
        for index, name in enumerate(self.learned):
            values[name] = tf.sigmoid(x[index])
        return Eta(values["gamma"], values["lambda"])

    def reference(self, dtype: tf.DType = tf.float32) -> Eta:
        """η', a constant."""
        return Eta(
            tf.constant(self.reference_gamma, dtype), tf.constant(self.reference_lambda, dtype)
        )


def embedding_input(eta: Eta, kind: str = "logits") -> tf.Tensor:
    """What of η the network embeds: `[2]` numbers, constant in η.

    "The gradient is not flowing through η" (Xu et al. 2018, section 1.4): it is stopped here.

    Args:
      eta: scalars γ and λ, both in [0, 1].
      kind: "logits": x cut to ±7 and divided by 7, so that 0.99 and 0.995 are told apart and
        exactly 0 and 1 can be fed; "values": γ and λ themselves.

    Returns:
      `[2]`, of η's dtype.
    """
    values = tf.stop_gradient(tf.stack([eta.gamma, eta.lambda_]))
    if kind == "values":
        return values
    if kind != "logits":
        raise ValueError(f'kind must be "logits" or "values", is {kind!r}')
    edge = 1.0 / (1.0 + math.exp(EMBEDDED_LOGIT_BOUND))
    inside = tf.clip_by_value(values, edge, 1.0 - edge)
    logits = tf.math.log(inside) - tf.math.log1p(-inside)
    return logits / EMBEDDED_LOGIT_BOUND
