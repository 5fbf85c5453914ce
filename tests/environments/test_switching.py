"""The best discount of each phase of Switching (enumeration, Monte Carlo), and when it switches."""

import functools

import numpy as np
import pytest
from support.tabular import best_return

from meta_impala.environments import evaluated_in, make, resolve
from meta_impala.environments.built_in import (
    SWITCHING_EVALUATION_ID,
    SWITCHING_FIRST_ID,
    SWITCHING_ID,
    SWITCHING_SECOND_ID,
)
from meta_impala.environments.switching import CONTEXTS, Switching


def phase_of(first_board):
    (column,) = np.flatnonzero(first_board[0])
    return int(column) // CONTEXTS


def symbol_of(first_board):
    (column,) = np.flatnonzero(first_board[0])
    return int(column) % CONTEXTS


def episode(env, offset):
    """One episode, answered with symbol + offset; returns its boards and rewards."""
    board, _ = env.reset()
    boards, rewards, ended = [board], [], False
    while not ended:
        action = (symbol_of(board) + offset) % CONTEXTS if board[0].any() else 0
        board, reward, ended, truncated, _ = env.step(action)
        assert not truncated
        boards.append(board)
        rewards.append(reward)
    return boards, rewards


def test_the_second_phase_needs_a_discount_above_the_threshold():
    threshold = Switching().least_patient_discount(1)
    assert threshold == pytest.approx(0.842, abs=1e-3)
    # Of length 5, so that every sequence of actions can be tried; the delay is as long as can be.
    made = functools.partial(Switching, play="second", length=5, second_delay=4)
    threshold = made().least_patient_discount(1)
    for gamma, expected in (
        (0.0, 0.3), (threshold - 1e-3, 0.3), (threshold + 1e-3, 1.0), (0.99, 1.0),
    ):  # fmt: skip
        assert best_return(made, gamma) == expected, gamma


def test_the_right_answer_of_the_first_phase_is_best_at_every_discount():
    made = functools.partial(Switching, play="first", length=4, first_sigma=0.0, second_delay=3)
    assert Switching().least_patient_discount(0) == 0.0
    for gamma in (0.0, 0.5, 0.99):
        assert best_return(made, gamma) == 1.0


def test_the_variance_of_the_answers_return_is_zero_at_a_discount_of_zero_and_grows():
    env = Switching(play="first")
    env.reset(seed=0)
    rewards = np.array([episode(env, offset=0)[1] for _ in range(4000)])
    found = []
    for gamma in (0.0, 0.5, 0.9, 0.99):
        sampled = (rewards @ gamma ** np.arange(8)).var()
        assert sampled == pytest.approx(env.return_variance(0, gamma), rel=5 * 0.0224)
        assert env.return_variance(1, gamma) == 0.0
        found.append(sampled)
    assert found[0] == 0.0
    assert sorted(set(found)) == found


def test_the_lottery_is_shown_before_it_is_paid_and_not_before_the_answer():
    env = Switching(play="first")
    env.reset(seed=0)
    shown = []
    for _ in range(20):
        boards, rewards = episode(env, offset=1)
        assert not boards[0][:, -1].any()
        assert rewards[1] == pytest.approx(10.0 * boards[1][1, -1], rel=1e-6)
        assert rewards[0] == 0.3 and not any(rewards[2:])
        assert not any(board[:, -1].any() for board in boards[2:])
        shown.append(rewards[1])
    assert len(set(shown)) == 20


@pytest.mark.parametrize(("offset", "pays"), [(0, 1.0), (1, 0.3), (2, 0.0), (3, 0.0)])
@pytest.mark.parametrize("play", ["first", "second"])
def test_what_an_answer_pays_and_when(play, offset, pays):
    env = Switching(play=play, first_sigma=0.0)
    env.reset(seed=0)
    for _ in range(10):
        boards, rewards = episode(env, offset)
        when = 7 if offset == 0 and play == "second" else 0
        assert rewards == [pays if t == when else 0.0 for t in range(8)]
        for t, board in enumerate(boards[1:], start=1):
            assert board[t, 8 + 3 * (play == "second") + min(offset, 2)] == 1.0
            assert board.sum() == 1.0


@pytest.mark.parametrize(("switch", "episodes"), [(0, 0), (8, 1), (9, 2), (40, 5)])
def test_the_phase_follows_from_the_environments_own_count_of_steps(switch, episodes):
    env = Switching(switch=switch)
    env.reset(seed=0)
    phases = [phase_of(episode(env, 0)[0][0]) for _ in range(8)]
    assert phases == [0] * episodes + [1] * (8 - episodes)
    # A reset with a seed is no new life: the steps of all episodes count.
    assert phase_of(env.reset(seed=0)[0]) == 1
    assert phase_of(Switching(switch=switch).reset(seed=0)[0]) == (switch == 0)


def test_every_environment_of_a_batch_counts_its_own_steps():
    batch = make("Switching/first", 2, "impala")
    assert phase_of(batch.reset(seed=0)[0]) == 0
    batch = make("Switching", 2, "impala")
    boards = batch.reset(seed=0)
    for _ in range(6_400):
        assert [phase_of(board) for board in boards if board[0].any()] in ([], [0, 0])
        boards = batch.step(np.zeros(2, int)).observations
    assert [phase_of(board) for board in boards] == [1, 1]


def test_evaluation_plays_both_phases_in_every_game_and_without_the_lottery():
    assert evaluated_in("Switching") == SWITCHING_EVALUATION_ID
    batch = make(evaluated_in("switching"), 3, "impala")
    boards = batch.reset(seed=0)
    phases = []
    for _ in range(16):
        if boards[0, 0].any():
            phases.append(phase_of(boards[0]))
        answers = [symbol_of(board) if board[0].any() else 0 for board in boards]
        step = batch.step(np.array(answers))
        boards = step.observations
    assert phases == [0, 1]
    assert step.episode_ends.all()
    assert step.episode_returns.tolist() == [2.0] * 3


def test_both_phases_are_tasks_of_their_own():
    for name, env_id, phase in (
        ("Switching/first", SWITCHING_FIRST_ID, 0),
        ("switching/second", SWITCHING_SECOND_ID, 1),
        ("Switching", SWITCHING_ID, 0),
    ):
        assert resolve(name).id == env_id
        batch = make(name, 1, "impala")
        assert phase_of(batch.reset(seed=0)[0]) == phase
    assert evaluated_in("Switching/first") == SWITCHING_FIRST_ID


@pytest.mark.parametrize(
    "arguments",
    [{"play": "third"}, {"second_delay": 8}, {"switch": -1}, {"early": 1.0}, {"first_sigma": -1.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        Switching(**arguments)
