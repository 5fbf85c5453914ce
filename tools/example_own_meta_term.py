"""Example: a term of your own in the meta objective J', which γ and λ are learned from.

    python tools/example_own_meta_term.py [LOGDIR]

J' is a weighted sum of terms (equation 14 of Xu et al. 2018 has one, the policy gradient). A term
is a function of `TermInputs`: what the network says after the update, and constants such as the
advantages. It returns a loss for each step, `[T, B]`; steps that do not count are masked later.
"""

from __future__ import annotations

import sys
import tempfile

import tensorflow as tf

import meta_impala
from meta_impala.algorithm import losses


def tsallis_term(inputs: losses.TermInputs) -> tf.Tensor:
    """−(1 − Σ π²), minus the Tsallis entropy of order 2: small where the policy is undecided."""
    return tf.reduce_sum(tf.square(tf.nn.softmax(inputs.logits)), axis=-1) - 1.0


def main(logdir: str, weight: float = 0.1) -> dict[str, float]:
    """Trains Catch for a few seconds; returns γ and λ at the end."""
    losses.TERMS["tsallis"] = tsallis_term
    losses.OWN_META_WEIGHTS["tsallis"] = weight
    trainer = meta_impala.make_trainer(meta_impala.preset("catch", total_frames=20_000), logdir)
    trainer.run()
    gamma, lambda_ = trainer.learner.snapshot().eta.values.numpy()
    return {"gamma": float(gamma), "lambda": float(lambda_)}


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
