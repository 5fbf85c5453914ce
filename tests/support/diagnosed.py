"""Runs that are broken in one way each, as doctor's checks see them."""

import dataclasses
import math

import numpy as np

from meta_impala.diagnosis import verdict as verdict_lib
from meta_impala.diagnosis.evidence import BatchEvidence, Evidence
from support.run_helpers import make_config

ROWS = 40
CONFIG = dataclasses.replace(
    make_config(total_frames=10_000_000), learning_rate=6e-4, num_actors=2, envs_per_actor=8
)
BATCH = BatchEvidence(
    checkpoint="frames-1",
    steps=4000,
    num_actions=4,
    entropy=1.0,
    explained_variance=0.6,
    dead_units=0.3,
    hidden_units=256,
    rewards=np.array([1.0, -1.0, 1.0]),
    terminations=20,
    games=20,
    truncations=2,
)
ENTROPY_COST = {
    "meta_parameters": "entropy_cost", "meta_parameter_ranges": "entropy_cost:0,0.1",
}  # fmt: skip
RHO_CLIP = {"meta_parameters": "rho_clip"}
UP = np.linspace(0.0, 1.0, ROWS)
NOISE = np.random.default_rng(1).normal(size=ROWS)


def metrics_of_run(**changed):
    """Of a run that is healthy, but whose return does not rise."""
    metrics = {
        "frames": 1e5 + 1e6 * UP,
        "updates": 100 + 4000 * UP,
        "episodes": 10 + 900 * UP,
        "episode_return": 5.0 + 0.5 * NOISE,
        "episode_frames": 700 + 20 * NOISE,
        "gamma": 0.99 + 0.003 * UP,
        "lambda": 0.99 - 0.01 * UP,
        "meta_gradient_gamma": -0.05 + 0.05 * NOISE,
        "meta_gradient_lambda": 0.001 * NOISE,
        "entropy": 1.3 - 0.4 * UP,
        "gradient_norm": 40 + 5 * NOISE,
        "clip_coefficient": 0.8 + 0.05 * NOISE,
        "rho_clipped_share": 0.47 + 0.01 * NOISE,
        "policy_lag": 3.5 + 0.2 * NOISE,
        "learning_rate": 6e-4 * (1 - 0.9 * UP),
        "bad_updates": np.zeros(ROWS),
    }
    return metrics | {name: value + np.zeros(ROWS) for name, value in changed.items()}


def evidence_of(metrics=None, settings=None, batch=None, limit=None, status=None):
    return Evidence(
        config=dataclasses.replace(CONFIG, **(settings or {})),
        status=status or {"state": "running"},
        metrics=metrics_of_run(**(metrics or {})),
        time_limit=limit,
        batch=BATCH._replace(**(batch or {})),
    )


def names_of(evidence):
    return [finding.name for finding in verdict_lib.diagnose(evidence).findings]


# Name of the finding -> what breaks the run, and the same just within what is healthy.
BROKEN = {
    "learning_rate": (
        {"settings": {"learning_rate": 9e-8}, "metrics": {"learning_rate": 9e-8}},
        {"settings": {"learning_rate": 2e-7}, "metrics": {"learning_rate": 2e-7}},
    ),
    "learning_rate of a schedule that has ended": (
        {"metrics": {"learning_rate": 6e-4 * np.maximum(0, 1 - 2 * UP)}},
        {"metrics": {"learning_rate": 6e-4 * (1 - UP)}},
    ),
    "bad_updates": (
        {"metrics": {"bad_updates": 30 * UP}},
        {"metrics": {"bad_updates": 2 * UP}},
    ),
    "no_finished_game": (
        {"metrics": {"episodes": 0.0, "episode_return": math.nan, "episode_frames": math.nan}},
        {
            "metrics": {
                "frames": 1e5 * UP, "episodes": 0.0, "episode_return": math.nan,
                "episode_frames": math.nan,
            }
        },
    ),
    "no_reward": (
        {"batch": {"rewards": np.array([])}},
        {"batch": {"rewards": np.array([1.0])}},
    ),
    "reward_scale that the clip hides": (
        {"batch": {"rewards": np.array([2.0, 5.0, 20.0, 0.5])}},
        {"batch": {"rewards": np.array([5.0, 5.0, 5.0])}},
    ),
    "reward_scale too large": (
        {"batch": {"rewards": np.array([101.0])}, "settings": {"reward_clip": 0.0}},
        {"batch": {"rewards": np.array([99.0])}, "settings": {"reward_clip": 0.0}},
    ),
    "reward_scale too small": (
        {"batch": {"rewards": np.array([0.013, 0.001])}},
        {"batch": {"rewards": np.array([0.015, 0.001])}},
    ),
    "dead_units": ({"batch": {"dead_units": 0.76}}, {"batch": {"dead_units": 0.74}}),
    "entropy_collapsed": ({"metrics": {"entropy": 0.02}}, {"metrics": {"entropy": 0.04}}),
    "entropy_flat": ({"metrics": {"entropy": 1.38}}, {"metrics": {"entropy": 1.36}}),
    "gradient_clip": (
        {"metrics": {"clip_coefficient": 0.09}},
        {"metrics": {"clip_coefficient": 0.11}},
    ),
    "policy_lag": ({"metrics": {"policy_lag": 21.0}}, {"metrics": {"policy_lag": 19.0}}),
    "rho_clip of policies that differ": (
        {"metrics": {"rho_clipped_share": 0.09}},
        {"metrics": {"rho_clipped_share": 0.11}},
    ),
    "rho_clip below 1": (
        {"metrics": {"rho_clipped_share": 0.96}, "settings": {"rho_clip": 0.1}},
        {"metrics": {"rho_clipped_share": 0.96}},
    ),
    "explained_variance": (
        {"batch": {"explained_variance": 0.04}},
        {"batch": {"explained_variance": 0.06}},
    ),
    "time_limit": (
        {"metrics": {"episode_frames": 499.0}, "limit": 500},
        {"metrics": {"episode_frames": 490.0}, "limit": 500},
    ),
    "time_limit of which only games tell": (
        {"batch": {"truncations": 20}},
        {"batch": {"truncations": 19}},
    ),
    "gamma_bound above": ({"metrics": {"gamma": 0.9995}}, {"metrics": {"gamma": 0.998}}),
    "gamma_bound of a range": (
        {"metrics": {"gamma": 0.90001}, "settings": {"gamma_min": 0.9}},
        {"metrics": {"gamma": 0.905}, "settings": {"gamma_min": 0.9}},
    ),
    "lambda_bound below": ({"metrics": {"lambda": 0.0004}}, {"metrics": {"lambda": 0.01}}),
    "entropy_cost_bound of its own range": (
        {"metrics": {"entropy_cost": 0.09999}, "settings": ENTROPY_COST},
        {"metrics": {"entropy_cost": 0.01}, "settings": ENTROPY_COST},
    ),
    # What is learned or scheduled is not what its setting says.
    "rho_clip of a learned clip below 1": (
        {"metrics": {"rho_clipped_share": 0.96, "rho_clip": 0.3}, "settings": RHO_CLIP},
        {"metrics": {"rho_clipped_share": 0.96, "rho_clip": 1.2}, "settings": RHO_CLIP},
    ),
    "rho_clip of policies that differ, at a learned clip": (
        {"metrics": {"rho_clipped_share": 0.05, "rho_clip": 0.97}, "settings": RHO_CLIP},
        {"metrics": {"rho_clipped_share": 0.05, "rho_clip": 1.8}, "settings": RHO_CLIP},
    ),
    "reward_scale too small for a learned cost": (
        {
            "batch": {"rewards": np.array([0.1])}, "metrics": {"entropy_cost": 0.09},
            "settings": ENTROPY_COST,
        },
        {
            "batch": {"rewards": np.array([0.013])}, "metrics": {"entropy_cost": 0.002},
            "settings": ENTROPY_COST,
        },
    ),
    "meta_gradient_noise": (
        {"metrics": {"meta_gradient_gamma": 0.05 * NOISE}},
        {"metrics": {"meta_gradient_gamma": 0.05 * NOISE + 0.03}},
    ),
}  # fmt: skip
