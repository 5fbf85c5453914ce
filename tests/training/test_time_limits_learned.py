"""Learning: a task that only ends by a time limit is learned as the same task that ends for good.

With the time limit's last step left out of the loss, the value loss of the first went to 10,203 and
the second had no loss at all.

The discount is 0.8: no data says what V(final observation) is, since nothing is ever done there. It
is what the network makes of its neighbours; a straight line through them gives V = 1 / (1 − γ)² at
step 4 of the fixed horizon, 25 here and 10,000 at γ = 0.99, which takes long to reach.
"""

import pytest
from support.run_helpers import make_config, make_trainer, read_metrics

FRAMES = {"FixedTerm-v0": 60_000, "FixedTrunc-v0": 60_000, "Limit1-v0": 40_000}


def learn(path, name: str, learned: str, seed: int, frames: int) -> dict[str, float]:
    """The last row of the metrics of a run."""
    config = make_config(
        environment=f"support.time_limits:{name}", total_frames=frames, seed=seed,
        batch_size=16, meta_batch_size=8, envs_per_actor=16, num_actors=1, unroll_length=10,
        mlp_sizes="32", learning_rate=0.005, rmsprop_epsilon=0.01, meta_parameters=learned,
        gamma=0.8, lambda_=0.9, log_frames=frames // 20, deterministic=True, checkpoint_minutes=0.0,
    )  # fmt: skip
    assert make_trainer(path, config).run() == "finished"
    row = read_metrics(path)[-1]
    return {column: float(row[column]) for column in ("episode_return", "value_loss", "gamma")}


def test_a_fixed_horizon_that_is_a_time_limit_is_learned(tmp_path):
    row = learn(tmp_path, "FixedTrunc-v0", "gamma,lambda", 1, 20_000)
    assert row["episode_return"] >= 0.9 and row["value_loss"] < 1.0, row


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("learned", ["none", "gamma,lambda"])
@pytest.mark.parametrize("name", FRAMES)
def test_a_time_limit_is_learned_as_an_end_is(tmp_path, name, learned, seed):
    row = learn(tmp_path, name, learned, seed, FRAMES[name])
    print("MEASURED", name, learned, seed, row)
    assert row["episode_return"] >= 0.9 and row["value_loss"] < 1.0, row
