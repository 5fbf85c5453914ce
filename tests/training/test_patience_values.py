"""One network, two η: V(·; η) against V^π(·; γ), computed exactly (learning; ground truth).

On Patience everything is known except π(wait) at the start: V(0) = π(take) · ½ + π(wait) · γ⁷,
V(t, waiting) = γ^(7−t), V(t, taken) = 0. The behaviour at an η is the policy that is fed that η.
"""

import numpy as np
import pytest
import tensorflow as tf
from support.run_helpers import make_config, make_trainer, read_metrics

from meta_impala.algorithm.meta_parameters import embedding_input
from meta_impala.environments.patience import Patience
from meta_impala.networks.actor_critic import NetworkInputs
from meta_impala.training.trainer import Trainer

LENGTH = 8
GAMMAS = (0.5, 0.995)


def states() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All 15 states in which something is done: time, choice (-1 before it), observation."""
    listed = [(0, -1), *((t, c) for t in range(1, LENGTH) for c in (0, 1))]
    boards = np.zeros((len(listed), LENGTH + 1, 3), np.float32)
    for board, (time, choice) in zip(boards, listed, strict=True):
        board[time, 1 + choice] = 1.0
    times, choices = np.array(listed).T
    return times, choices, boards


def exact_values(gamma: float, wait: float) -> np.ndarray:
    """V^π of `states`, if the policy waits with this probability."""
    times, choices, _ = states()
    values = np.where(choices == 1, gamma ** (LENGTH - 1.0 - times), 0.0)
    values[0] = (1.0 - wait) * 0.5 + wait * gamma ** (LENGTH - 1.0)
    return values


def network_at(trainer: Trainer, gamma: float) -> tuple[np.ndarray, float]:
    """V(·; η) of `states`, and the probability to wait, fed this γ and λ = 1."""
    network = trainer.learner.state.network
    boards = states()[2][np.newaxis]
    shape = boards.shape[:2]
    inputs = NetworkInputs(
        tf.constant(boards), tf.zeros(shape, tf.int32), tf.zeros(shape), tf.zeros(shape, tf.bool)
    )
    fed = embedding_input(list(map(tf.constant, (gamma, 1.0))), trainer.config.eta_embedding_input)
    output = network(inputs, tf.zeros([shape[1], 0]), fed)
    return output.values.numpy()[0], float(tf.nn.softmax(output.policy_logits[0, 0])[1])


def rms_over_visits(errors: np.ndarray, wait: float) -> float:
    """√ of the mean square over the visits of the policy: 8 states an episode."""
    _, choices, _ = states()
    weights = np.choose(choices + 1, [1.0, 1.0 - wait, wait])
    return float(np.sqrt(np.sum(weights * errors**2) / np.sum(weights)))


def train_mixture(path, place: str, seed: int, frames: int) -> dict[str, float]:
    config = make_config(
        environment="Patience", total_frames=frames, seed=seed, eta_schedule="mixture",
        eta_mixture="0.5,1;0.995,1", gamma=0.995, lambda_=1.0, eta_embedding_place=place,
        batch_size=16, envs_per_actor=16, num_actors=1, unroll_length=10, mlp_sizes="64,64",
        learning_rate=0.005, rmsprop_epsilon=0.001, entropy_cost=0.01, log_frames=frames // 10,
        deterministic=True, checkpoint_minutes=0.0,
    )  # fmt: skip
    trainer = make_trainer(path, config)
    assert trainer.run() == "finished"
    found = {"value_loss": float(read_metrics(path)[-1]["value_loss"])}
    values = {}
    for gamma in GAMMAS:
        values[gamma], wait = network_at(trainer, gamma)
        errors = values[gamma] - exact_values(gamma, wait)
        found |= {f"rms_{gamma}": rms_over_visits(errors, wait), f"wait_{gamma}": wait}
        found |= {f"rms_all_{gamma}": float(np.sqrt(np.mean(errors**2)))}
    found["sd"] = float(np.std(values[0.995] - values[0.5]))
    return found


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_exact_values_are_those_of_the_environment(gamma):
    """Discounted returns of both choices, played."""
    returns = []
    for choice in (0, 1):
        environment = Patience()
        environment.reset(seed=0)
        rewards, seen = [], []
        for time in range(LENGTH):
            board, reward, ended, _, _ = environment.step(choice if time == 0 else 0)
            rewards.append(reward)
            seen.append(board)
        assert ended
        later = [sum(gamma**k * r for k, r in enumerate(rewards[time:])) for time in range(LENGTH)]
        returns.append(later[0])
        times, choices, boards = states()
        values = exact_values(gamma, 0.3)
        for index in np.flatnonzero(choices == choice):
            np.testing.assert_array_equal(boards[index], seen[times[index] - 1])
            assert values[index] == pytest.approx(later[times[index]])
    assert exact_values(gamma, 0.3)[0] == pytest.approx(0.7 * returns[0] + 0.3 * returns[1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_network_has_the_values_of_two_discounts(tmp_path, seed):
    """With e_η as a bias of linear heads no network can: V(0.995) − V(0.5) would be one number."""
    found = train_mixture(tmp_path, "last_hidden", seed, 150_000)
    assert found["value_loss"] < 0.004 and found["rms_0.995"] <= 0.05, found
    assert found["sd"] > 0.3, found
    assert found["wait_0.995"] > 0.9 and found["wait_0.5"] < 0.1, found
    # At γ = 0.5 what is on policy is right too; the states after waiting are hardly visited.
    assert found["rms_0.5"] <= 0.05, found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_the_heads_the_difference_is_a_constant(tmp_path):
    found = train_mixture(tmp_path, "heads", 1, 150_000)
    assert found["sd"] < 1e-5 and found["value_loss"] > 0.004 and found["rms_0.995"] > 0.05, found
