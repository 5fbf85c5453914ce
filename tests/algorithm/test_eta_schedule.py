"""What η an unroll is played with. Ground truth: sets and distributions; determinism: seeds."""

import numpy as np
import pytest

from meta_impala.algorithm.eta_schedule import EtaSchedule, Line, StepFunction
from meta_impala.algorithm.meta_parameters import logit

CURRENT = np.array([0.97, 0.6], np.float32)


def test_the_current_eta_for_all_unless_something_is_drawn():
    schedule = EtaSchedule()
    fed = schedule.of_unroll(CURRENT, 3, (1, 2))
    assert not schedule.is_drawn and fed.dtype == np.float32
    np.testing.assert_array_equal(fed, [CURRENT] * 3)


def test_a_mixture_draws_its_members_equally_often():
    pairs = ((0.9, 1.0), (0.99, 0.5), (0.995, 0.9))
    schedule = EtaSchedule(pairs=pairs)
    fed = schedule.of_unroll(CURRENT, 3000, (1, 2))
    rounded = [tuple(np.float32(value) for value in pair) for pair in pairs]
    counts = [sum(tuple(row) == pair for row in fed) for pair in rounded]
    assert sum(counts) == 3000 and min(counts) > 900


@pytest.mark.parametrize("names", [("gamma",), ("lambda",), ("gamma", "lambda")])
def test_draws_have_uniform_logits_inside_their_range(names):
    ranges = {"gamma": (0.9, 0.999), "lambda": (0.2, 0.7)}
    schedule = EtaSchedule(draws={name: ranges[name] for name in names})
    fed = schedule.of_unroll(CURRENT, 4000, (5, 0))
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


def test_unrolls_differ_by_their_seed_alone():
    schedule = EtaSchedule(draws={"gamma": (0.9, 0.999)})
    one, same, other = (
        schedule.of_unroll(CURRENT, 4, seed) for seed in ((1, 20), (1, 20), (1, 40))
    )
    np.testing.assert_array_equal(one, same)
    assert np.all(one[:, 0] != other[:, 0])
    assert len(set(one[:, 0])) == 4  # and environments have their own


def test_entries_beyond_gamma_and_lambda_are_unchanged():
    schedule = EtaSchedule(pairs=((0.9, 1.0),), draws={"gamma": (0.5, 0.6)})
    fed = schedule.of_unroll(np.array([0.97, 0.6, 0.25], np.float32), 3, (0, 0))
    np.testing.assert_array_equal(fed[:, 2], [0.25] * 3)


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
