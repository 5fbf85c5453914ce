"""The meta-gradient in parts (gradient, must-be-zero): sums, single places and states, float64."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import central_difference
from support.update_oracle import OPEN, Places, make_case

from meta_impala.algorithm import attribution as explanation
from meta_impala.algorithm.meta_gradient import inner_step, nested_tapes
from meta_impala.algorithm.objectives import (
    IMPORTANCE_WEIGHTS_PLACE,
    NETWORK,
    PLACES,
    POLICY_ADVANTAGES,
    TARGET_VALUES,
    VALUE_TARGETS,
    EtaPlaces,
    Logits,
)

# Place -> the oracle's name of it; the oracle has one name for both targets.
ORACLE = {
    NETWORK: "embedding",
    TARGET_VALUES: "values",
    IMPORTANCE_WEIGHTS_PLACE: "importance_weights",
}
FED = {"eta_embedding_size": 4}
CELLS = {
    "returns": FED,
    "embedding": {**FED, "meta_gradient_paths": "embedding"},
    "importance weights, lstm, every term of J'": {
        **FED, "meta_gradient_paths": "importance_weights", "core": "lstm", "core_size": 5,
        "meta_baseline_cost": 0.5, "meta_entropy_cost": 0.1, "meta_kl_cost": 1.0,
        "meta_advantage_normalization": "ema",
    },
    "one η, ranges": {"meta_parameters": "lambda", "gamma": 0.9, "lambda_max": 0.9, "lambda_": 0.7},
    "tracking, second value head": {
        **FED, "meta_gradient_paths": "embedding", "reference_tracking": "gamma",
        "meta_value_head": "reference",
    },
    "per state": {
        **FED, "meta_parameter_scope": "state", "meta_gradient_paths": "importance_weights",
    },
    "per state, gamma, tracking": {
        "meta_parameter_scope": "state", "meta_parameters": "gamma", "reference_tracking": "gamma",
        "meta_value_head": "reference",
    },
    "coefficients per state": {
        "meta_parameters": "gamma,entropy_cost,rho_clip,max_gradient_norm",
        "meta_parameter_scope": "gamma,rho_clip", "max_gradient_norm": 44.0,
    },
    "a trace": {"trace_decay": 0.5, "trace_curvature": True},
}  # fmt: skip


def _split(case):
    return explanation.split_meta_gradient(*case.arguments())


@pytest.mark.parametrize("name", CELLS)
def test_the_parts_add_up_to_the_meta_gradient(name):
    case = make_case(80.0, **CELLS[name])
    split = _split(case)
    expected = case.meta_step(nested_tapes)
    scale = np.abs(expected.meta_gradient[0]).max()
    assert scale > 1e-6
    close = {"rtol": 1e-9, "atol": 1e-12 * scale}
    np.testing.assert_allclose(split.by_place.numpy().sum(0), expected.meta_gradient[0], **close)
    np.testing.assert_allclose(split.step.meta_gradient[0], expected.meta_gradient[0], **close)
    np.testing.assert_allclose(split.by_time.numpy().sum(1), split.by_place[:2], **close)
    np.testing.assert_allclose(split.step.meta_loss, expected.meta_loss, rtol=1e-12)
    for ours, theirs in zip(split.step.inner.parameters, expected.inner.parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["importance weights, lstm, every term of J'", "per state"])
def test_each_place_is_the_meta_gradient_with_all_other_places_constant(name):
    case = make_case(20.0, **CELLS[name])
    parameters, x, objective, rule, meta_objective = case.arguments()
    by_place = _split(case).by_place.numpy()
    for index, live in enumerate(PLACES):

        def places(x, live=live):
            constant = Logits(tf.stop_gradient(x[0]), True)
            return EtaPlaces(
                *(Logits(x[0], True) if place == live else constant for place in PLACES)
            )

        alone = dataclasses.replace(objective, places=places)
        (expected,) = nested_tapes(parameters, x, alone, rule, meta_objective).meta_gradient
        scale = max(np.abs(expected).max(), 1e-12)
        np.testing.assert_allclose(by_place[index], expected, rtol=1e-9, atol=1e-10 * scale)


@pytest.mark.parametrize("paths", ["returns", "importance_weights"])
def test_each_place_is_the_finite_difference_along_it_and_a_closed_one_is_zero(paths):
    case = make_case(80.0, **FED, meta_gradient_paths=paths)
    by_place = dict(zip(explanation.SPLIT_PLACES, _split(case).by_place.numpy(), strict=True))
    meta_objective = case.meta_objective()
    for names, oracle in (
        ((VALUE_TARGETS, POLICY_ADVANTAGES), "targets"),
        *(((place,), name) for place, name in ORACLE.items()),
    ):
        actual = sum(by_place[name] for name in names)
        if not getattr(Places(*OPEN[paths]), oracle):
            np.testing.assert_array_equal(actual, np.zeros(2))
            continue

        def along(vector, oracle=oracle):
            places = case.everywhere(case.x)._replace(**{oracle: vector})
            return meta_objective(case.updated(case.inner_gradient(case.x, places)))

        expected = central_difference(along, case.x, 1e-3)
        scale = np.abs(expected).max()
        assert scale > 1e-7
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7 * scale + 1e-11)


def test_each_transition_is_the_finite_difference_of_its_own_weight():
    """Row t is the transition that arrives in state t, whose weight is that of state t − 1."""
    case = make_case(20.0, meta_parameters="entropy_cost", eta_embedding_size=0)
    by_time = _split(case).by_time.numpy()
    assert by_time[0, 0] == 0 and not by_time[1].any()  # a weight is in no advantage
    _, _, _, rule, _ = case.arguments()
    meta_objective = case.meta_objective()
    kept = case.coefficients

    for row in (1, len(by_time[0]) - 1):

        def along(x, row=row):
            """J' where the step that arrives in this row has the entropy's weight of this x."""

            def of_rows(of_x, features=None):
                values = kept(of_x, features)
                weights = np.full((len(by_time[0]), 1), values["entropy_cost"])
                weights[row - 1] = kept(x)["entropy_cost"]
                return values | {"entropy_cost": weights}

            case.coefficients = of_rows
            gradients = case.inner_gradient(case.x)
            case.coefficients = kept
            return meta_objective(case.updated(gradients))

        expected = central_difference(along, case.x, 1e-3)
        assert abs(expected[0]) > 1e-8
        np.testing.assert_allclose(by_time[0, row], expected, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("place", explanation.TIMED_PLACES)
def test_each_state_is_the_finite_difference_of_its_own_gamma_and_lambda(place):
    case = make_case(20.0)
    split = _split(case)
    by_time = split.by_time.numpy()[explanation.TIMED_PLACES.index(place)]
    parameters, x, objective, rule, _ = case.arguments()
    meta_objective = case.meta_objective()
    rows = len(by_time)
    # Nothing arrives in state 0 within the unroll.
    np.testing.assert_array_equal(by_time[0], np.zeros(2))
    states = [1, 3, rows - 1]

    def meta_loss_at(of_states):
        """J' where these states have logits of their own in this place; x everywhere else."""
        logits = np.tile(case.x, (rows, 1))
        logits[states] = of_states.reshape(len(states), 2)

        def places(x):
            timed = Logits(tf.constant(logits), True, timed=True)
            return objective.places(x)._replace(**{place.replace(" ", "_"): timed})

        step = inner_step(parameters, x, dataclasses.replace(objective, places=places), rule)
        return meta_objective([tensor.numpy() for tensor in step.parameters])

    expected = central_difference(meta_loss_at, np.tile(case.x, len(states)), 1e-3)
    expected = expected.reshape(len(states), 2)
    assert np.all(np.abs(expected[:-1]) > 1e-8)  # λ of the last state has nothing to mix
    scale = np.abs(expected).max()
    np.testing.assert_allclose(by_time[states], expected, rtol=1e-6, atol=1e-7 * scale)
