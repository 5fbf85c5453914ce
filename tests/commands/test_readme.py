"""The README's library example, run as it stands there."""

import pathlib
import re

import numpy as np
import tensorflow as tf
from support.helpers import central_difference

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text("utf-8")


def example() -> str:
    (code,) = re.findall(r"<!-- example: library -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    return code


def test_the_library_example_is_short_and_right():
    code = example()
    assert len(code.strip().splitlines()) <= 30
    tf.random.set_seed(1)
    names: dict = {}
    exec(code, names)
    step, meta = names["step"], names["eta"]
    assert names["returns"].shape == (5, 2)
    assert np.all(np.isfinite(step.meta_gradient)) and np.all(step.meta_gradient != 0)
    np.testing.assert_allclose(
        names["x"], meta.initial_logits() - 1e-3 * step.meta_gradient.numpy(), rtol=1e-6
    )
    assert np.any(names["slots"]["mean_squares"][0] != 1.0)

    # Its meta-gradient is the derivative of its own J' (of float32, so coarsely).
    losses, network, settings = names["losses"], names["network"], names["settings"]
    tf.random.set_seed(1)
    fresh: dict = {}
    exec(code.split("step = ")[0], fresh)
    theta = [tf.cast(t, tf.float64) for t in fresh["theta"]]

    def cast(transitions):
        return transitions._make(
            tf.cast(t, tf.float64) if t.dtype.is_floating else t for t in transitions
        )

    def judged(x):
        live = [tf.identity(t) for t in theta]
        with tf.GradientTape() as tape:
            tape.watch(live)
            loss, _ = losses.inner_objective(
                *network(live, tf.cast(fresh["states"], tf.float64)), cast(fresh["tau"]),
                meta.values(tf.constant(x)), settings,
            )  # fmt: skip
        (gradient,) = tape.gradient(loss, live)
        new = theta[0] - 6e-4 * gradient / np.sqrt(0.99 + 0.01 * gradient**2 + 0.01)
        logits, values = network([new], tf.cast(fresh["others"], tf.float64))
        if x is start:  # the advantages are constants: those at θ'(x)
            constants["values"], constants["logits"] = values, logits
        tau = cast(fresh["judges"])
        of = losses.action_log_probs
        targets = losses._targets(
            constants["values"], of(constants["logits"][:-1], tau.actions), tau,
            meta.reference(tf.float64), settings,
        )  # fmt: skip
        return -np.sum(targets.pg_advantages * of(logits[:-1], tau.actions))

    constants: dict = {}
    start = meta.initial_logits().astype(np.float64)
    judged(start)
    expected = central_difference(judged, start.copy(), 1e-2)
    np.testing.assert_allclose(step.meta_gradient, expected, rtol=5e-3)
