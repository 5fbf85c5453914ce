"""The best discount of Patience (ground truth by enumeration), and its rules."""

import itertools

import gymnasium
import numpy as np
import pytest
from support.tabular import best_return

from meta_impala.environments import make, resolve
from meta_impala.environments.built_in import PATIENCE_ID
from meta_impala.environments.patience import Patience


def test_the_best_undiscounted_return_needs_a_discount_above_the_threshold():
    threshold = Patience().least_patient_discount
    assert threshold == pytest.approx(0.9057, abs=1e-4)
    for gamma, expected in (
        (0.0, 0.5), (0.5, 0.5), (0.88, 0.5), (threshold - 1e-3, 0.5),
        (threshold + 1e-3, 1.0), (0.95, 1.0), (0.995, 1.0), (1.0, 1.0),
    ):  # fmt: skip
        assert best_return(Patience, gamma) == expected, gamma


@pytest.mark.parametrize(("length", "early", "late"), [(2, 0.2, 0.4), (5, 0.5, 2.0), (6, 0.9, 1.0)])
def test_the_threshold_follows_from_the_arguments(length, early, late):
    def made():
        return Patience(length, early, late)

    threshold = made().least_patient_discount
    assert best_return(made, threshold - 1e-3) == early
    assert best_return(made, threshold + 1e-3) == late


def test_only_the_first_action_matters():
    for actions in itertools.product((0, 1), repeat=4):
        env = Patience(length=4)
        env.reset(seed=0)
        rewards = [env.step(action)[1] for action in actions]
        assert rewards == ([0.5, 0, 0, 0] if actions[0] == 0 else [0, 0, 0, 1.0])


def test_every_state_has_its_own_observation():
    seen = set()
    for action in (0, 1):
        env = Patience()
        boards, ended = [env.reset(seed=0)[0]], False
        while not ended:
            board, _, ended, truncated, _ = env.step(action)
            assert not truncated
            boards.append(board)
        assert len(boards) == 9
        for board in boards:
            assert board in env.observation_space and board.sum() == 1.0
        seen |= {board.tobytes() for board in boards}
    assert len(seen) == 1 + 2 * 8


@pytest.mark.parametrize("arguments", [{"length": 1}, {"early": 1.0}, {"early": 0.0}])
def test_arguments_that_leave_no_choice_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        Patience(**arguments)


def test_patience_is_registered_and_found_by_its_short_name():
    assert resolve("patience").id == resolve(PATIENCE_ID).id == PATIENCE_ID
    env = gymnasium.make(PATIENCE_ID, render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (144, 48, 3)
    batch = make("Patience", 2, "impala")
    batch.reset(seed=0)
    steps = [batch.step(np.array([0, 1])) for _ in range(8)]
    assert steps[-1].episode_returns.tolist() == [0.5, 1.0]
