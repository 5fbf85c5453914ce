"""Checks of a run's metrics. Each returns a `Finding`, or None.

The reason for each threshold is beside it. "Measured" means on the first demonstration
(Pong and Breakout, 10M frames, 2 seeds, with and without the meta-gradient).
"""

from __future__ import annotations

import math

import numpy as np

from meta_impala.config import FIELDS
from meta_impala.config.checks import largest_meta_batch
from meta_impala.config.hyper_parameters import SYMBOLS_IN_TEXT, numbers_of
from meta_impala.diagnosis.evidence import FEWEST_ROWS, Evidence, Finding, lever

# RMSProp moves a weight by about the learning rate per update: a million updates move it by 0.1.
_LEAST_LEARNING_RATE = 1e-7
# A linear schedule leaves an eighth of the learning rate on average in the last quarter.
_SCHEDULE_HAS_ENDED = 1e-3
# An update that is not finite is skipped; one in a thousand does no harm, more mean that training
# is unstable.
_BAD_UPDATES = 1e-3
# An untrained player's game takes 3,500 frames in Pong, and less in most Atari games.
_FRAMES_WITHOUT_A_GAME = 10_000
# Of the entropy of a uniform policy. 2 % is one action of four taken with 99.7 %. A policy stays
# above 99 % while it differs from a uniform one by less than 0.02 nats: no action is preferred.
_COLLAPSED, _FLAT = 0.02, 0.99
# The mean of ρ is 1 whatever the policies are, so with equal ones about half are at a clip of 1
# (measured: 42 to 50 %), and nearly all at a lower one. If fewer than one in ten are, nine of ten
# actions were likelier for the actor than for the learner.
_RHOS_FAR_OFF = 0.1
# With a clip below 1, V-trace evaluates a policy nearer to the actor's; at 95 % it is nearly the
# actor's own.
_RHOS_ALL_CLIPPED = 0.95
# Measured: 3 to 4 with two actors. IMPALA's queue of one batch per actor gives a few; at 20 the
# policy that acts is 20 updates older, and V-trace cuts what it can correct.
_POLICY_LAG = 20.0
# Measured: 0.42 to 0.97. Below a tenth every update is the direction alone, whatever its size.
_CLIP_COEFFICIENT = 0.1
# Of the range: there dη/dx, which multiplies the meta-gradient, is below a thousandth of the range
# (a quarter of it in the middle).
_AT_BOUND = 1e-3
# Two standard errors, over at least ten rows.
_CLEAR_T, _FEWEST_ROWS_OF_T = 2.0, 10
# The mean length of the last 100 games, of the time limit: at most one of them ended earlier.
_AT_TIME_LIMIT = 0.99


def learning_rate(evidence: Evidence) -> Finding | None:
    """The learning rate is 0 or negligible."""
    config, rates = evidence.config, evidence.window("learning_rate")
    if config.learning_rate < _LEAST_LEARNING_RATE:
        return Finding(
            "learning_rate",
            f"The learning rate is {config.learning_rate:g}, which changes no weight noticeably "
            "in a million updates: raise --learning_rate (IMPALA's is 0.0006).",
            ("learning_rate",),
            config.learning_rate,
            _LEAST_LEARNING_RATE,
        )
    share = float(rates.max()) / config.learning_rate if rates.size else math.nan
    # A single row may be the last of the run, and so may all that are left of a damaged table.
    begin = 1.0 - _begin_of_window(evidence) / config.total_frames
    is_end_of_run = rates.size < FEWEST_ROWS or begin < _SCHEDULE_HAS_ENDED
    if share < _SCHEDULE_HAS_ENDED and not is_end_of_run:
        return Finding(
            "learning_rate",
            "The learning rate has been 0 for the last quarter of the rows, since the linear "
            f"schedule ends at --total_frames={config.total_frames:,}: raise it, or use "
            "--learning_rate_schedule=constant.",
            ("total_frames", "learning_rate_schedule"),
            share,
            _SCHEDULE_HAS_ENDED,
        )
    return None


def _begin_of_window(evidence: Evidence) -> float:
    """Frames of the first row of the last quarter; NaN if there is none."""
    frames = evidence.window("frames")
    return float(frames[0]) if frames.size else math.nan


def bad_updates(evidence: Evidence) -> Finding | None:
    """Updates that were skipped, or the meta steps after them, because they were not finite."""
    bad, updates = evidence.window("bad_updates"), evidence.window("updates")
    if not bad.size or not updates.size:
        return None
    # A run of few rows has no row before its window.
    begun = len(bad) == len(evidence.column("bad_updates"))
    before = (0.0, 0.0) if begun else (bad[0], updates[0])
    count = float(bad[-1] - before[0])
    share = count / max(float(updates[-1] - before[1]), 1.0)
    if share <= _BAD_UPDATES:
        return None
    clip = lever(evidence, "max_gradient_norm")
    return Finding(
        "bad_updates",
        f"{count:,.0f} of the last updates ({100 * share:.1f} %) were not finite and were not "
        "applied (their batches are in bad_updates/): lower --learning_rate, or clip the gradient: "
        f"{clip.words}.",
        ("learning_rate", clip.flag),
        share,
        _BAD_UPDATES,
    )


def no_finished_game(evidence: Evidence) -> Finding | None:
    """No game has ended, so there is no return."""
    config = evidence.config
    if not evidence.column("episodes").size or evidence.last("episodes") > 0:
        return None
    environments = config.num_actors * config.envs_per_actor * config.num_learners
    frames = evidence.last("frames") / environments
    if not frames >= _FRAMES_WITHOUT_A_GAME:
        return None
    return Finding(
        "no_finished_game",
        f"No game has ended although each of the {environments} environments has played "
        f"{frames:,.0f} frames, so there is no return to report: give the environment a time limit "
        "(--environment_kwargs, or max_episode_steps where it is registered).",
        ("environment_kwargs",),
        frames,
        _FRAMES_WITHOUT_A_GAME,
    )


def uniform_entropy(evidence: Evidence) -> float:
    """Of a uniform policy in nats: log A, or without a batch the largest entropy of the run."""
    if evidence.batch is not None:
        return math.log(evidence.batch.num_actions)
    entropies = evidence.column("entropy")
    return float(entropies.max()) if entropies.size else math.nan


def entropy(evidence: Evidence) -> Finding | None:
    """The policy has become deterministic, or is still uniform."""
    found, most = evidence.mean("entropy"), uniform_entropy(evidence)
    if most <= 0.0:  # one action: there is nothing to choose
        return None
    of = "for a uniform one" if evidence.batch is not None else "at its largest"
    cost = lever(evidence, "entropy_cost")
    if found <= _COLLAPSED * most:
        return Finding(
            "entropy_collapsed",
            f"The policy has collapsed: its entropy is {found:.2g} nats, of {most:.2f} {of}, "
            f"so it no longer explores: raise {cost.words}, or lower "
            "--learning_rate.",
            (cost.flag, "learning_rate"),
            found / most,
            _COLLAPSED,
        )
    if found >= _FLAT * most:
        # Of a cost of 0 there is nothing to lower.
        lower = f"lower {cost.words}, or " if evidence.value("entropy_cost") > 0.0 else ""
        return Finding(
            "entropy_flat",
            f"The policy is still uniform after {evidence.last('updates'):,.0f} updates (entropy "
            f"{found:.3f} of {most:.3f} nats): {lower}raise --learning_rate (now "
            f"{evidence.config.learning_rate:g}).",
            (*([cost.flag] if lower else []), "learning_rate"),
            found / most,
            _FLAT,
        )
    return None


def rho_clip(evidence: Evidence) -> Finding | None:
    """The importance weights say that actors and learner follow different policies."""
    # The share is of the clip that was in use, learned or not.
    share, clip = evidence.mean("rho_clipped_share"), evidence.value("rho_clip")
    if clip < 1.0 and share >= _RHOS_ALL_CLIPPED:
        change = lever(evidence, "rho_clip")
        return Finding(
            "rho_clip",
            f"{100 * share:.0f} % of the importance weights ρ are at their clip of {clip:.4g}, so "
            "V-trace evaluates the actors' old policy and not the learner's: raise "
            f"{change.words} to 1.",
            (change.flag,),
            share,
            _RHOS_ALL_CLIPPED,
        )
    if clip <= 1.0 and share <= _RHOS_FAR_OFF:
        expected = "half" if clip == 1.0 else "nearly all"
        names = _above_one(evidence, ["queue_capacity", "num_actors"])
        by = " and ".join(f"--{name}" for name in names)
        return Finding(
            "rho_clip",
            f"Only {100 * share:.0f} % of the importance weights ρ reach {clip:.4g}, where "
            f"{expected} would with equal policies: the actors follow another policy than the "
            f"learner; lower --learning_rate{f', or the policy lag by {by}' if by else ''}.",
            ("learning_rate", *names),
            share,
            _RHOS_FAR_OFF,
        )
    return None


def _above_one(evidence: Evidence, names: list[str]) -> list[str]:
    """Those of these counts that can be lowered."""
    return [name for name in names if getattr(evidence.config, name) > 1]


def policy_lag(evidence: Evidence) -> Finding | None:
    """The actors act by a policy that is many updates old."""
    lag, config = evidence.mean("policy_lag"), evidence.config
    if not lag >= _POLICY_LAG:
        return None
    # Updates while a batch waits: at 1 these two add none.
    waits = {"sample_reuse": True, "bootstrap_steps": bool(config.learned)}
    names = [name for name, is_used in waits.items() if is_used]
    names = _above_one(evidence, [*names, "queue_capacity", "num_actors", "envs_per_actor"])
    shown = [f"--{name} (now {getattr(config, name)})" for name in names]
    lower = " or ".join([", ".join(shown[:-1])] * (len(shown) > 1) + shown[-1:])
    return Finding(
        "policy_lag",
        f"The learner trains on actions that are {lag:.0f} updates old: "
        f"{f'lower {lower}, or ' if lower else ''}raise --batch_size (now {config.batch_size}).",
        (*names, "batch_size"),
        lag,
        _POLICY_LAG,
    )


def gradient_clip(evidence: Evidence) -> Finding | None:
    """Every gradient is clipped to the same norm."""
    coefficient = evidence.mean("clip_coefficient")
    if not coefficient <= _CLIP_COEFFICIENT:
        return None
    norm, baseline = lever(evidence, "max_gradient_norm"), lever(evidence, "baseline_cost")
    smaller = ["reward_clip", *([baseline.flag] if evidence.value("baseline_cost") > 0.0 else [])]
    return Finding(
        "gradient_clip",
        f"The gradient is always clipped, on average to {100 * coefficient:.1f} % of its norm of "
        f"{evidence.mean('gradient_norm'):.3g}, so the size of the gradient has no effect: raise "
        f"{norm.words}, or make the losses smaller by --{' or --'.join(smaller)}.",
        (norm.flag, *smaller),
        coefficient,
        _CLIP_COEFFICIENT,
    )


def meta_parameter_bound(evidence: Evidence) -> Finding | None:
    """What is learned is at an end of its range, where its meta-gradient vanishes."""
    for name in evidence.config.learned:
        symbol = SYMBOLS_IN_TEXT.get(name, f"The learned {name}")
        value = evidence.mean(name)
        _, _, low, high = numbers_of(evidence.config, name)
        place = (value - low) / (high - low)
        if not (place <= _AT_BOUND or place >= 1.0 - _AT_BOUND):
            continue
        end, bound = ("lower", f"{name}_min") if place < 0.5 else ("upper", f"{name}_max")
        if bound not in FIELDS:
            bound = "meta_parameter_ranges"
        # γ and λ end at 0 and 1.
        can_move = bound == "meta_parameter_ranges" or 0.0 < getattr(evidence.config, bound) < 1.0
        return Finding(
            f"{name}_bound",
            f"{symbol} = {value:.4g} is at the {end} end of its range, where the sigmoid is "
            f"flat and the meta-gradient hardly moves it back: lower --meta_learning_rate (now "
            f"{evidence.config.meta_learning_rate:g}){f', or move --{bound}' if can_move else ''}.",
            ("meta_learning_rate", *([bound] if can_move else [])),
            place,
            _AT_BOUND if place < 0.5 else 1.0 - _AT_BOUND,
        )
    return None


def meta_gradient_noise(evidence: Evidence) -> Finding | None:
    """No meta-gradient differs from noise, over the whole run."""
    ts = {}
    for name in evidence.config.learned:
        values = evidence.column(f"meta_gradient_{name}")
        if len(values) < _FEWEST_ROWS_OF_T:
            return None
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        ts[name] = float(values.mean()) / error if error else 0.0
    if not ts or max(map(abs, ts.values())) >= _CLEAR_T:
        return None
    shown = " and ".join(
        f"{SYMBOLS_IN_TEXT.get(name, name)} (t = {t:.1f})" for name, t in ts.items()
    )
    config = evidence.config
    # B' is at most B.
    names = ["meta_batch_size"]
    if config.meta_batch_size >= largest_meta_batch(config):
        names.append("batch_size")
    more = " together with ".join(f"--{name} (now {getattr(config, name)})" for name in names)
    return Finding(
        "meta_gradient_noise",
        f"Over the whole run so far the meta-gradient of {shown} does not differ from noise: it "
        f"moves at random; raise {more}, lower --meta_learning_rate (now "
        f"{config.meta_learning_rate:g}), or compare with --meta_parameters=none.",
        (*names, "meta_learning_rate", "meta_parameters"),
        max(map(abs, ts.values())),
        _CLEAR_T,
    )


def time_limit(evidence: Evidence) -> Finding | None:
    """All games end at the time limit."""
    length, limit = evidence.mean("episode_frames"), evidence.time_limit
    batch = evidence.batch
    share = math.nan
    if limit is not None and math.isfinite(length):
        share = length / limit
    elif batch is not None and batch.games:
        share = batch.truncations / batch.games
    if not share >= _AT_TIME_LIMIT:
        return None
    frames = f" of {limit:,} frames" if limit is not None else ""
    cost = lever(evidence, "entropy_cost")
    return Finding(
        "time_limit",
        f"Every game ends at its time limit{frames} and none earlier, so the agent rarely "
        f"experiences a termination: raise {cost.words} if the return does not rise, or change the "
        "limit by --environment_kwargs.",
        (cost.flag, "environment_kwargs"),
        share,
        _AT_TIME_LIMIT,
    )
