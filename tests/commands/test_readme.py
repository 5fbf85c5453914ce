"""The README's library example, run as it stands there (equivalence and gradient tests)."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.command_helpers import run_tool
from support.helpers import central_difference

README = (pathlib.Path(__file__).parents[2] / "README.md").read_text("utf-8")


def example() -> str:
    (code,) = re.findall(r"<!-- example: library -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    return code


def test_the_library_example_is_short_and_right():
    code = example()
    assert len(code.strip().splitlines()) <= 55
    tf.random.set_seed(1)
    names: dict = {}
    exec(code, names)
    step, eta = names["step"], names["eta"]
    (meta_gradient,) = step.meta_gradient
    assert names["returns"].shape == (5, 2)
    assert np.all(np.isfinite(meta_gradient)) and np.all(meta_gradient != 0)
    np.testing.assert_allclose(
        names["x"][0], eta.initial_logits() - 1e-3 * meta_gradient.numpy(), rtol=1e-6
    )
    assert np.any(names["slots"]["mean_squares"][0] != 1.0)

    expected = central_difference(meta_loss_of_x(code), eta.initial_logits().astype(float), 1e-2)
    np.testing.assert_allclose(meta_gradient, expected, rtol=5e-3)  # float32 against float64


def meta_loss_of_x(code):
    """J' as a function of the logits of η, in float64, with the update written out.

    The advantages of J' are constants: those at the first x it is called with.
    """
    tf.random.set_seed(1)
    names: dict = {}
    exec(code.split("step = ")[0], names)
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


@pytest.mark.slow
def test_pictures_and_excerpts_are_made_from_real_runs(tmp_path):
    done = run_tool(
        "make_readme_pictures", f"--out={tmp_path}", "--total_frames=40000", "--seconds=1"
    )
    assert done.returncode == 0, done.stderr
    assert "$ meta-impala train --preset=catch" in (tmp_path / "train.txt").read_text("utf-8")
    assert "standard_error" in (tmp_path / "evaluate.txt").read_text("utf-8")
    for name in ("curves.png", "watch.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 400
    for path in tmp_path.iterdir():
        assert b"/tmp" not in path.read_bytes() or path.suffix == ".png"
