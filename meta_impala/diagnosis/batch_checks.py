"""Checks of what a few games with the newest checkpoint show. Each returns a `Finding`, or None."""

from __future__ import annotations

import math

import numpy as np

from meta_impala.diagnosis.evidence import BatchEvidence, Evidence, Finding, lever

# A constant has 0. Of a critic that has learned nothing it scatters around that.
_EXPLAINED_VARIANCE = 0.05
# Of the units of the last hidden layer. States of one policy are alike, so that a healthy run on
# Catch has some that are 0 in all of them; with three quarters dead, a network has a quarter of its
# width left.
_DEAD_UNITS = 0.75
# A clip that changes few rewards does little harm.
_CLIPPED_REWARDS = 0.5
# Clipping rewards that are all alike only rescales them.
_DIFFERENT_SIZES = 2.0
# The value loss grows with the square: one such reward outweighs 10,000 of size 1.
_LARGE_REWARD = 100.0


def explained_variance(evidence: Evidence) -> Finding | None:
    """The critic predicts no better than a constant."""
    batch, config = evidence.batch, evidence.config
    if batch is None or not batch.explained_variance <= _EXPLAINED_VARIANCE:
        return None
    share = batch.explained_variance
    quality = (
        "predicts the returns worse than a constant would"
        if share < -_EXPLAINED_VARIANCE
        else "predicts the returns no better than a constant would"
    )
    cost, gamma = lever(evidence, "baseline_cost"), lever(evidence, "gamma")
    lower = f", or lower {gamma.words}" if evidence.value("gamma") > 0.0 else ""
    return Finding(
        "explained_variance",
        f"The critic {quality} (explained variance {share:.2g}), so advantages are mostly noise: "
        f"raise {cost.words} or --learning_rate (now {config.learning_rate:g}){lower}.",
        (cost.flag, "learning_rate", *([gamma.flag] if lower else [])),
        batch.explained_variance,
        _EXPLAINED_VARIANCE,
    )


def dead_units(evidence: Evidence) -> Finding | None:
    """Most units of the last hidden layer are 0 in every state."""
    batch = evidence.batch
    if batch is None or not batch.dead_units >= _DEAD_UNITS:
        return None
    return Finding(
        "dead_units",
        f"{100 * batch.dead_units:.0f} % of the {batch.hidden_units} units of the last hidden "
        "layer are 0 in every state played, and get no gradient: lower --learning_rate (now "
        f"{evidence.config.learning_rate:g}) and start a new run, since they do not recover.",
        ("learning_rate",),
        batch.dead_units,
        _DEAD_UNITS,
    )


def rewards(evidence: Evidence) -> Finding | None:
    """There are no rewards, or the clip hides their sizes, or they are too large or too small."""
    batch = evidence.batch
    if batch is None:
        return None
    if not batch.rewards.size:
        cost = lever(evidence, "entropy_cost")
        return Finding(
            "no_reward",
            f"No reward occurred in the {batch.steps:,} steps played, so there is nothing to "
            f"learn from: raise {cost.words} to explore more, or choose a task with more frequent "
            "rewards.",
            (cost.flag,),
            0.0,
            0.0,
        )
    sizes, clip = np.abs(batch.rewards), evidence.config.reward_clip
    if clip > 0:
        return _hidden_by_clip(sizes, clip) or _too_small(evidence, np.minimum(sizes, clip), batch)
    if sizes.max() > _LARGE_REWARD:
        return Finding(
            "reward_scale",
            f"Rewards are as large as {sizes.max():.3g} and not clipped, so that a single one "
            "dominates the update: use --reward_clip=1, or scale them in the environment.",
            ("reward_clip",),
            float(sizes.max()),
            _LARGE_REWARD,
        )
    return _too_small(evidence, sizes, batch)


def _hidden_by_clip(sizes: np.ndarray, clip: float) -> Finding | None:
    clipped = sizes[sizes > clip]
    share = len(clipped) / len(sizes)
    if share < _CLIPPED_REWARDS or clipped.max() < _DIFFERENT_SIZES * clipped.min():
        return None
    return Finding(
        "reward_scale",
        f"{100 * share:.0f} % of the rewards are clipped to ±{clip:g}, although their sizes go "
        f"from {clipped.min():.3g} to {clipped.max():.3g}: the learner cannot distinguish them; "
        "raise --reward_clip, or scale them in the environment.",
        ("reward_clip",),
        share,
        _CLIPPED_REWARDS,
    )


def _too_small(evidence: Evidence, sizes: np.ndarray, batch: BatchEvidence) -> Finding | None:
    """A whole reward is worth less than the entropy bonus of one step."""
    bonus = evidence.value("entropy_cost") * math.log(max(batch.num_actions, 2))
    if sizes.max() >= bonus:
        return None
    cost = lever(evidence, "entropy_cost")
    return Finding(
        "reward_scale",
        f"The largest reward, {sizes.max():.2g}, is worth less than the entropy bonus of a single "
        f"step ({bonus:.2g}), so that the policy stays random: lower {cost.words}, or scale the "
        "rewards in the environment.",
        (cost.flag,),
        float(sizes.max()),
        bonus,
    )
