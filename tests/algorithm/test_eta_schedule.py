"""What η an unroll is played with. Ground truth: sets and distributions; determinism: seeds."""

import numpy as np
import pytest

from meta_impala.algorithm.eta_schedule import EtaSchedule, Line, StepFunction
from meta_impala.algorithm.meta_parameters import logit

CURRENT = np.array([0.97, 0.6], np.float32)
# A third meta-parameter, which the network is told.
COST = {
    "names": ("gamma", "lambda", "entropy_cost"),
    "fed": ("gamma", "lambda", "entropy_cost"),
    "ranges": {"entropy_cost": (0.01, 0.05)},
}


def test_the_current_eta_for_all_unless_something_is_drawn():
    schedule = EtaSchedule()
    fed, eta = schedule.of_unroll(CURRENT, 3, (1, 2))
    assert not schedule.is_drawn and fed.dtype == np.float32
    np.testing.assert_array_equal(fed, [CURRENT] * 3)
    np.testing.assert_array_equal(eta, fed)


def test_a_mixture_draws_its_members_equally_often():
    members = ((0.9, 1.0), (0.99, 0.5), (0.995, 0.9))
    schedule = EtaSchedule(members=members)
    fed, eta = schedule.of_unroll(CURRENT, 3000, (1, 2))
    rounded = [tuple(np.float32(value) for value in pair) for pair in members]
    counts = [sum(tuple(row) == pair for row in fed) for pair in rounded]
    assert sum(counts) == 3000 and min(counts) > 900
    np.testing.assert_array_equal(eta, fed)


@pytest.mark.parametrize("names", [("gamma",), ("lambda",), ("gamma", "lambda")])
def test_draws_have_uniform_logits_inside_their_range(names):
    ranges = {"gamma": (0.9, 0.999), "lambda": (0.2, 0.7)}
    schedule = EtaSchedule(draws={name: ranges[name] for name in names})
    fed, eta = schedule.of_unroll(CURRENT, 4000, (5, 0))
    np.testing.assert_array_equal(eta, fed)
    for index, name in enumerate(("gamma", "lambda")):
        values = fed[:, index].astype(np.float64)
        if name not in names:
            assert set(values) == {np.float64(CURRENT[index])}
            continue
        low, high = map(logit, ranges[name])
        position = (np.log(values / (1.0 - values)) - low) / (high - low)
        assert -1e-3 < position.min() < 0.01 and 0.99 < position.max() < 1.001
        quarters, _ = np.histogram(position, bins=4, range=(0.0, 1.0))
        assert quarters.min() > 850 and quarters.max() < 1150


def test_what_else_is_drawn_has_a_uniform_logit_of_its_place_in_its_range():
    schedule = EtaSchedule(**COST, draws={"gamma": (0.9, 0.999), "entropy_cost": (0.02, 0.03)})
    fed, eta = schedule.of_unroll(np.array([*CURRENT, 0.5], np.float32), 4000, (5, 0))
    assert schedule.num_of_unroll == 3 and fed.dtype == eta.dtype == np.float32
    np.testing.assert_array_equal(fed[:, :2], eta[:, :2])  # γ and λ are fed as they are
    np.testing.assert_allclose(fed[:, 2], (eta[:, 2] - 0.01) / 0.04, rtol=1e-5)
    low, high = logit(0.25), logit(0.5)
    places = fed[:, 2].astype(np.float64)
    position = (np.log(places / (1.0 - places)) - low) / (high - low)
    assert -1e-3 < position.min() < 0.01 and 0.99 < position.max() < 1.001
    quarters, _ = np.histogram(position, bins=4, range=(0.0, 1.0))
    assert quarters.min() > 850 and quarters.max() < 1150
    assert abs(np.corrcoef(eta[:, 0], eta[:, 2])[0, 1]) < 0.05  # each by itself


def test_a_member_is_taken_as_a_whole():
    members = [(0.9, 1.0, 0.02), (0.99, 0.5, 0.04)]
    fed, eta = EtaSchedule(**COST, members=members).of_unroll(
        np.array([*CURRENT, 0.5], np.float32), 50, (1, 2)
    )
    assert {tuple(row) for row in eta} == {tuple(map(np.float32, member)) for member in members}
    np.testing.assert_allclose(fed[:, 2], (eta[:, 2] - 0.01) / 0.04, rtol=1e-5)


def test_unrolls_differ_by_their_seed_alone():
    schedule = EtaSchedule(draws={"gamma": (0.9, 0.999)})
    one, same, other = (
        schedule.of_unroll(CURRENT, 4, seed)[0] for seed in ((1, 20), (1, 20), (1, 40))
    )
    np.testing.assert_array_equal(one, same)
    assert np.all(one[:, 0] != other[:, 0])
    assert len(set(one[:, 0])) == 4  # and environments have their own


def test_other_entries_of_the_networks_input_are_unchanged():
    schedule = EtaSchedule(fed=("gamma", "lambda", "entropy_cost"))
    current = np.array([0.97, 0.6, 0.25], np.float32)
    fed, eta = schedule.of_unroll(current, 3, (0, 0))
    np.testing.assert_array_equal(fed, [current] * 3)
    np.testing.assert_array_equal(eta, [CURRENT] * 3)


def test_a_step_function_holds_its_values():
    steps = StepFunction((100, 200, 300), ((0.9, 1.0), (0.95, 0.9), (0.99, 0.8)))
    schedule = EtaSchedule(of_frames=steps)
    expected = {0: 0.9, 99: 0.9, 100: 0.9, 199: 0.9, 200: 0.95, 299: 0.95, 300: 0.99, 10**9: 0.99}
    for frames, gamma in expected.items():
        assert schedule.at(frames)[0] == np.float32(gamma), frames


def test_a_line_is_straight_and_then_constant():
    line = Line((0.9, 1.0), (1.0, 0.5), 1000)
    np.testing.assert_allclose([line(0), line(250), line(1000), line(5000)],
                               [(0.9, 1.0), (0.925, 0.875), (1.0, 0.5), (1.0, 0.5)])  # fmt: skip


def test_the_network_is_told_the_place_in_the_range_at_every_number_of_frames():
    schedule = EtaSchedule(**COST, of_frames=Line((0.9, 1.0, 0.01), (1.0, 0.5, 0.03), 1000))
    np.testing.assert_allclose(schedule.at(500), [0.95, 0.75, 0.02], rtol=1e-6)
    np.testing.assert_allclose(schedule.fed_at(500), [0.95, 0.75, 0.25], rtol=1e-6)
    assert schedule.num_of_unroll == 2  # it is the learner's, and travels with no unroll
