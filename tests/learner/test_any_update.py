"""Random combinations of everything that can be learned, against the oracle, in float64.

Gradient: windows of K ≤ 3 updates, auxiliary heads, validation and bootstrapped objectives, leaks
in η and in η', entries of η' that follow η, learned coefficients of U: nested tapes against finite
differences, mixed mode against nested tapes to 1e-10. Must be zero: what a row cannot reach.
"""

import numpy as np
import pytest
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from support.helpers import central_difference, random_batch
from support.pieces import check_piece
from support.update_oracle import NearKink, X, make_case
from support.windows import MODES, window_gradients, with_heads

from meta_impala.config.hyper_parameters import TABLE

SMALL = {"batch_size": 3, "meta_batch_size": 3, "unroll_length": 4, "mlp_sizes": "6",
         "lambda_": 0.7, "gamma": 0.9, "learning_rate": 2.0**-7, "adam_epsilon": 1e-2,
         "learning_rate_schedule": "constant"}  # fmt: skip
OF_THE_RULE = ("learning_rate_factor", "rmsprop_decay", "max_gradient_norm")


@st.composite
def updates(draw):
    """(norm of the first g, settings)."""
    choose = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    optimizer = choose("rmsprop", "rmsprop", "sgd", "adam")
    names = draw(st.sets(st.sampled_from(sorted(TABLE)), min_size=1, max_size=5))
    if optimizer != "rmsprop":
        names = names - {"rmsprop_decay"} or {"gamma"}
    chosen = {
        "meta_parameters": ",".join(sorted(names)),
        "inner_optimizer": optimizer,
        "inner_steps": choose(1, 2, 3),
        "auxiliary_heads": choose(0, 0, 1, 2),
        "policy_return": choose("mixed", "next_target"),
        "vtrace_alpha": choose(1.0, 0.6),
        "rho_clip": choose(1.0, 1.4),
        "c_clip": choose(1.0, 0.8),
        "meta_parameter_references": choose("", "vtrace_alpha:0.8"),
    }
    tracked = names & {name for name, row in TABLE.items() if row.in_returns}
    if choose(True, False):
        tracked = names  # the target's last update is at η'
        chosen |= {
            "meta_objective": "bootstrapped",
            "bootstrap_steps": choose(1, 2, 3),
            "matching_value_cost": choose(0.0, 0.5),
            "meta_parameter_references": choose("", "vtrace_alpha:0.8", "entropy_cost:0.05"),
        }
    else:
        chosen |= {
            "meta_baseline_cost": choose(0.0, 0.5),
            "meta_entropy_cost": choose(0.0, 0.2),
            "meta_kl_cost": choose(0.0, 1.0),
            "meta_value_head": choose("shared", "reference"),
        }
    if not chosen["auxiliary_heads"] and choose(True, False):
        chosen |= {
            "eta_embedding_size": 3,
            "meta_gradient_paths": choose("returns", "embedding", "importance_weights"),
        }
    fixed = {chosen["meta_parameter_references"].partition(":")[0]}
    tracked = [name for name in sorted(tracked - fixed) if choose(True, False)]
    chosen["reference_tracking"] = ",".join(tracked) or "none"
    return choose(20.0, 80.0), chosen


def made(norm, chosen):
    """A case, and the batches of its window and of what comes before the meta batch."""
    heads = chosen["auxiliary_heads"]
    names = chosen["meta_parameters"].split(",")
    case = make_case(norm, **SMALL | chosen)
    random = np.random.default_rng(4)
    others = random.normal(size=(heads, len(names)))
    case = with_heads(case, np.concatenate([X[np.newaxis, : len(names)], others]))
    window = [random_batch(case.agent, 20 + k) for k in range(1, chosen["inner_steps"])]
    ahead = [random_batch(case.agent, 30 + k) for k in range(1, chosen.get("bootstrap_steps", 1))]
    return case, [case.batch, *window], ahead


def assert_is_the_derivative(norm, chosen):
    case, window, ahead = made(norm, chosen)
    found, last = window_gradients(case, window, ahead)
    theta, slots = case.after_window(window, case.x)
    for ours, theirs in zip(last, theta, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    if chosen.get("meta_objective") == "bootstrapped":
        of_oracle = case.distance_to(case.target(theta, slots, [*ahead, case.meta_batch]))
    else:
        of_oracle = case.meta_objective(at=theta)
    expected = central_difference(
        lambda x: of_oracle(case.after_window(window, x)[0]), case.x, 1e-4
    )
    nested, mixed = (
        np.concatenate([part.numpy() for part in found[mode].meta_gradient]) for mode in MODES
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(mixed, nested, rtol=1e-10, atol=1e-10 * scale + 1e-16)
    np.testing.assert_allclose(nested, expected, rtol=2e-6, atol=2e-7 * scale + 1e-11)
    for mode in MODES:
        np.testing.assert_allclose(found[mode].meta_loss, of_oracle(theta), rtol=1e-9, atol=1e-14)
    return case, nested


def check(drawn):
    norm, chosen = drawn
    try:
        case, gradient = assert_is_the_derivative(norm, chosen)
    except NearKink:
        reject()
    of_heads = case.logits_of_heads(gradient)[1:]
    of_rule = [name in OF_THE_RULE for name in case.agent.config.learned]
    np.testing.assert_array_equal(of_heads[:, of_rule], 0.0)  # U is of the first η


@settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
@given(updates())
def test_random_combinations_match_the_finite_difference(drawn):
    check(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(6))
def test_many_random_combinations_match_the_finite_difference(piece):
    check_piece(updates(), check, piece, 10)


def test_all_options_together():
    """At a norm of 80 the clip of g binds."""
    names = "gamma,lambda,entropy_cost,vtrace_alpha,learning_rate_factor,max_gradient_norm"
    _, gradient = assert_is_the_derivative(
        80.0,
        {
            "meta_parameters": names, "inner_steps": 2, "auxiliary_heads": 1,
            "meta_objective": "bootstrapped", "bootstrap_steps": 2, "vtrace_alpha": 0.9,
            "meta_parameter_references": "vtrace_alpha:0.8",
        },
    )  # fmt: skip
    assert np.all(np.abs(gradient[:6]) > 1e-12) and np.all(np.abs(gradient[6:10]) > 1e-12)
