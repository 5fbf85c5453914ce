"""The bookkeeping of the environment interface, on scripted transitions (ground truth)."""

import numpy as np
import pytest

from meta_impala.environments.base import BatchedEnvironment, Transition

REPEAT = 4


class Scripted(BatchedEnvironment):
    """Two environments that replay given transitions and remember what reached them."""

    def __init__(self, transitions=()):
        super().__init__(2, 3, (1,), np.dtype(np.float32), REPEAT)
        self.transitions = iter(transitions)
        self.seeds = []
        self.actions = []

    def _restart(self, seed):
        self.seeds.append(seed)
        return np.zeros((2, 1), np.float32)

    def _advance(self, actions):
        self.actions.append(actions)
        return next(self.transitions)


def transition(rewards, terminations=(0, 0), truncations=(0, 0), ends=(0, 0), final=None):
    return Transition(
        observations=np.zeros((2, 1), np.float32),
        rewards=np.array(rewards),
        terminations=np.array(terminations, bool),
        truncations=np.array(truncations, bool),
        final_observations=None if final is None else np.array(final, np.float32)[:, None],
        episode_ends=np.array(ends, bool),
    )


def run(transitions):
    environment = Scripted(transitions)
    environment.reset(seed=0)
    return [environment.step(np.array([0, 0])) for _ in transitions]


def test_returns_and_frames_are_counted_per_environment_and_start_again_after_an_end():
    steps = run(
        [
            transition([1.0, 10.0]),
            transition([2.0, 20.0], ends=(1, 0), terminations=(1, 0)),
            transition([4.0, 40.0]),
            transition([8.0, 80.0], ends=(1, 1), terminations=(1, 1)),
        ]
    )
    assert [step.episode_returns.tolist() for step in steps] == [[0, 0], [3, 0], [0, 0], [12, 150]]
    assert [step.episode_frames.tolist() for step in steps] == [
        [0, 0],
        [2 * REPEAT, 0],
        [0, 0],
        [2 * REPEAT, 4 * REPEAT],
    ]
    assert steps[0].episode_returns.dtype == np.float64
    assert steps[0].episode_frames.dtype == np.int64


def test_a_terminal_within_an_episode_does_not_reset_the_counts():
    steps = run(
        [
            transition([1.0, 0.0], terminations=(1, 0)),
            transition([2.0, 0.0], terminations=(1, 0), ends=(1, 0)),
        ]
    )
    assert steps[1].episode_returns[0] == 3
    assert steps[1].episode_frames[0] == 2 * REPEAT


def test_reset_discards_the_unfinished_episode():
    environment = Scripted([transition([5.0, 5.0]), transition([1.0, 1.0], ends=(1, 1))])
    environment.reset(seed=0)
    environment.step(np.array([0, 0]))
    environment.reset(seed=0)
    step = environment.step(np.array([0, 0]))
    assert step.episode_returns.tolist() == [1, 1]
    assert step.episode_frames.tolist() == [REPEAT, REPEAT]


def test_rewards_are_float32_and_returns_are_summed_before_rounding():
    # 2**24 + 1 is not a float32.
    steps = run([transition([2**24, 0]), transition([1, 0]), transition([0, 0], ends=(1, 0))])
    assert steps[0].rewards.dtype == np.float32
    assert steps[-1].episode_returns[0] == 2**24 + 1


def test_termination_wins_over_truncation():
    (step,) = run([transition([0.0, 0.0], terminations=(1, 0), truncations=(1, 1), ends=(1, 1))])
    assert step.terminations.tolist() == [True, False]
    assert step.truncations.tolist() == [False, True]


def test_final_observations_are_given_only_where_an_episode_ended():
    steps = run(
        [
            transition([0.0, 0.0], final=(7.0, 7.0)),
            transition([0.0, 0.0], ends=(0, 1), truncations=(0, 1), final=(np.nan, 7.0)),
        ]
    )
    assert steps[0].final_observations is None
    assert steps[1].final_observations.tolist() == [[0.0], [7.0]]


@pytest.mark.parametrize(
    "actions",
    [
        np.array([0, 3]),
        np.array([-1, 0]),
        np.array([0]),
        np.array([[0, 0]]),
        np.array([0.0, 1.0]),
        np.array([True, False]),
    ],
)
def test_invalid_actions_never_reach_the_simulator(actions):
    environment = Scripted([transition([0.0, 0.0])])
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        environment.step(actions)
    assert environment.actions == []


def test_the_refusal_names_the_action_the_environment_and_the_range():
    environment = Scripted()
    environment.reset(seed=0)
    with pytest.raises(ValueError, match=r"action 3 of environment 1 .* 0 to 2"):
        environment.step(np.array([0, 3], np.uint8))


def test_actions_of_any_integer_dtype_arrive_as_int64():
    environment = Scripted([transition([0.0, 0.0])])
    environment.reset(seed=0)
    environment.step(np.array([2, 0], np.uint8))
    assert environment.actions[0].dtype == np.int64
    assert environment.actions[0].tolist() == [2, 0]


def test_the_last_seed_still_fits_in_31_bits():
    environment = Scripted()
    environment.reset(seed=2**31 - 2)
    for seed in (2**31 - 1, -1):
        with pytest.raises(ValueError, match="seed"):
            environment.reset(seed)
    assert environment.seeds == [2**31 - 2]


def test_step_needs_a_reset_and_an_open_environment():
    environment = Scripted([transition([0.0, 0.0])] * 2)
    with pytest.raises(RuntimeError, match="reset"):
        environment.step(np.array([0, 0]))
    environment.reset(seed=0)
    environment.step(np.array([0, 0]))
    environment.close()
    with pytest.raises(RuntimeError, match="reset"):
        environment.step(np.array([0, 0]))
