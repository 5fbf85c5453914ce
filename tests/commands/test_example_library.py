"""The example of the library, run as it stands (equivalence and gradient tests)."""

import numpy as np
import tensorflow as tf
from support.command_helpers import ROOT
from support.helpers import central_difference

CODE = (ROOT / "tools/example_library.py").read_text("utf-8").partition("if __name__")[0]


def test_the_library_example_is_right():
    tf.random.set_seed(1)
    names: dict = {}
    exec(CODE, names)
    step, eta = names["step"], names["eta"]
    (meta_gradient,) = step.meta_gradient
    assert names["returns"].shape == (5, 2)
    assert np.all(np.isfinite(meta_gradient)) and np.all(meta_gradient != 0)
    np.testing.assert_allclose(
        names["x"][0], eta.initial_logits() - 1e-3 * meta_gradient.numpy(), rtol=1e-6
    )
    assert np.any(names["slots"]["mean_squares"][0] != 1.0)

    expected = central_difference(meta_loss_of_x(), eta.initial_logits().astype(float), 1e-2)
    np.testing.assert_allclose(meta_gradient, expected, rtol=5e-3)  # float32 against float64


def meta_loss_of_x():
    """J' as a function of the logits of η, in float64, with the update written out.

    The advantages of J' are constants: those at the first x it is called with.
    """
    tf.random.set_seed(1)
    names: dict = {}
    exec(CODE.split("step = ")[0], names)
    losses, network, eta = names["losses"], names["network"], names["eta"]
    theta, states, meta_states = (
        tf.cast(tensor, tf.float64)
        for tensor in (names["theta"][0], names["states"], names["meta_states"])
    )
    tau, meta_tau = (
        names[name]._make(tf.cast(t, tf.float64) if t.dtype.is_floating else t for t in names[name])
        for name in ("tau", "meta_tau")
    )
    log_probs = losses.action_log_probs
    constants: list[tf.Tensor] = []

    def meta_loss(x):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss, _ = losses.inner_objective(
                *network([theta], states), tau, eta.values(tf.constant(x)), names["settings"]
            )
        gradient = tape.gradient(loss, theta)
        new = theta - 6e-4 * gradient / np.sqrt(0.99 + 0.01 * gradient**2 + 0.01)
        logits, values = network([new], meta_states)
        log_pi = log_probs(logits[:-1], meta_tau.actions)
        if not constants:
            inputs = losses.TargetInputs(values, log_pi)
            returns = losses.targets(inputs, meta_tau, eta.reference(), names["settings"])
            constants.append(returns.pg_advantages)
        return -np.sum(constants[0] * log_pi)

    meta_loss(eta.initial_logits().astype(float))
    return meta_loss
