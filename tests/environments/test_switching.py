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

LENGTH, SIGMA = 10, 2.0


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
    assert Switching().least_patient_discount == pytest.approx(0.926, abs=1e-3)
    # Of length 4, so that every sequence of actions can be tried.
    made = functools.partial(Switching, play="second", length=4)
    threshold = made().least_patient_discount
    for gamma, expected in (
        (0.0, 0.0), (threshold - 1e-3, 0.0), (threshold + 1e-3, 1.0), (0.99, 1.0),
    ):  # fmt: skip
        assert best_return(made, gamma) == expected, gamma


@pytest.mark.parametrize("loan", [0.25, 1.0, 4.0])
def test_the_threshold_depends_on_the_loan(loan):
    made = functools.partial(Switching, play="second", length=4, loan=loan)
    threshold = made().least_patient_discount
    assert best_return(made, threshold - 1e-3) == 0.0
    assert best_return(made, threshold + 1e-3) == 1.0


def test_the_right_answer_of_the_first_phase_is_best_at_every_discount():
    made = functools.partial(Switching, play="first", length=4, sigma=0.0)
    for gamma in (0.0, 0.5, 0.99, 1.0):
        assert best_return(made, gamma) == 1.0


def test_the_variance_of_the_answers_return_is_zero_at_a_discount_of_zero_and_grows():
    env = Switching(play="first")
    env.reset(seed=0)
    rewards = np.array([episode(env, offset=0)[1] for _ in range(2000)])
    found = []
    for gamma in (0.0, 0.5, 0.9, 0.99):
        returns = rewards @ gamma ** np.arange(LENGTH)
        # Two values, so the sampled variance is within 5 standard errors if the coin is fair.
        assert returns.var() == pytest.approx(env.return_variance(gamma), rel=0.0125)
        assert returns.mean() == pytest.approx(1.0, abs=5 * returns.std() / 2000**0.5 + 1e-9)
        found.append(returns.var())
    assert found[0] == 0.0
    assert sorted(set(found)) == found
    assert [round(env.return_variance(g)) for g in (0.5, 0.9, 0.99)] == [4, 122, 293]


@pytest.mark.parametrize("gamma", [0.8, 0.9])
def test_the_answers_needed_put_the_difference_at_two_standard_errors(gamma):
    env = Switching(play="first", sigma=1.0)
    needed = round(env.answers_needed(gamma))
    # Many samples of `needed` random answers to one symbol of four, each with its coin.
    per_symbol = needed // CONTEXTS
    generator = np.random.default_rng(0)
    right = generator.integers(CONTEXTS, size=(1000, per_symbol)) == 0
    coins = generator.choice([-1.0, 1.0], size=right.shape)
    returns = right + env.return_variance(gamma) ** 0.5 * coins
    means = [(returns * of).sum(1) / of.sum(1) for of in (right, ~right)]
    differences = means[0] - means[1]
    assert differences.mean() == pytest.approx(1.0, abs=5 * 0.5 / 1000**0.5)
    assert differences.std() == pytest.approx(0.5, rel=0.11)


def test_no_constant_discount_serves_both_phases():
    """The docstring's numbers: above the threshold of the second phase, the first one needs more
    answers than it has."""
    env = Switching()
    answers = 6_400 * 16 // LENGTH
    threshold = env.least_patient_discount
    assert env.answers_needed(threshold) == pytest.approx(13_330, abs=30)
    assert answers == 10_240
    assert [round(env.answers_needed(g)) for g in (0.0, 0.5, 0.9, 0.99)] == [0, 340, 10_375, 25_021]
    assert all(env.answers_needed(g) > answers for g in np.linspace(threshold, 1.0, 50))


def test_the_coin_is_observed_after_the_answer_and_rewarded_on_every_later_step():
    env = Switching(play="first")
    env.reset(seed=0)
    shown = []
    for game in range(60):
        boards, rewards = episode(env, offset=game % CONTEXTS)
        assert boards[0].sum() == 1.0 and not boards[0][:, 11:].any()
        sides = [board[t, 11] - board[t, 12] for t, board in enumerate(boards) if t]
        assert len(set(sides)) == 1 and all(board.sum() == 1.0 for board in boards)
        assert rewards == [float(game % CONTEXTS == 0), *[SIGMA * sides[0]] * (LENGTH - 1)]
        shown.append((game % CONTEXTS, sides[0]))
    # Both sides come after every answer.
    assert len(set(shown)) == 2 * CONTEXTS


@pytest.mark.parametrize(
    ("offset", "first", "last", "kind"),
    [(0, 0.0, 1.0, 0), (1, 1.0, -1.0, 1), (2, 0.0, 0.0, 2), (3, 0.0, 0.0, 2)],
)  # fmt: skip
def test_rewards_of_an_answer_in_the_second_phase(offset, first, last, kind):
    env = Switching(play="second")
    env.reset(seed=0)
    for _ in range(10):
        boards, rewards = episode(env, offset)
        assert rewards == [first, *[0.0] * (LENGTH - 2), last]
        for t, board in enumerate(boards[1:], start=1):
            assert board[t, 8 + kind] == 1.0 and board.sum() == 1.0


@pytest.mark.parametrize(("switch", "episodes"), [(0, 0), (10, 1), (11, 2), (50, 5)])
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


@pytest.mark.parametrize(("offsets", "score"), [((0, 0), 2.0), ((0, 1), 1.0), ((2, 0), 1.0)])
def test_evaluation_plays_both_phases_in_every_game_and_counts_right_answers(offsets, score):
    assert evaluated_in("Switching") == evaluated_in("switching") == (SWITCHING_EVALUATION_ID, {})
    batch = make(SWITCHING_EVALUATION_ID, 3, "impala")
    boards = batch.reset(seed=0)
    phases = []
    for _ in range(2 * LENGTH):
        if boards[0, 0].any():
            phases.append(phase_of(boards[0]))
        answers = [
            (symbol_of(board) + offsets[phase_of(board)]) % CONTEXTS if board[0].any() else 0
            for board in boards
        ]
        step = batch.step(np.array(answers))
        boards = step.observations
    assert phases == [0, 1]
    assert step.episode_ends.all()
    assert step.episode_returns.tolist() == [score] * 3


def test_both_phases_are_tasks_of_their_own():
    for name, env_id, phase in (
        ("Switching/first", SWITCHING_FIRST_ID, 0),
        ("switching/second", SWITCHING_SECOND_ID, 1),
        ("Switching", SWITCHING_ID, 0),
    ):
        assert resolve(name).id == env_id
        batch = make(name, 1, "impala")
        assert phase_of(batch.reset(seed=0)[0]) == phase
    assert evaluated_in("Switching/first") == (SWITCHING_FIRST_ID, {})


@pytest.mark.parametrize(
    "arguments",
    [{"play": "third"}, {"length": 1}, {"switch": -1}, {"loan": -0.1}, {"sigma": -1.0}],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        Switching(**arguments)
