"""doctor's checks: a run that is broken in one way gets that finding only, healthy runs none."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from support.demonstration import ALL_RUNS, OLDER_PONG
from support.run_helpers import make_config

from meta_impala.analysis.curves import read_rows
from meta_impala.analysis.run_page.run_record import metrics_of
from meta_impala.config import FIELDS
from meta_impala.diagnosis import evidence as evidence_lib
from meta_impala.diagnosis import verdict as verdict_lib
from meta_impala.diagnosis.evidence import BatchEvidence, Evidence
from meta_impala.environments import registry
from meta_impala.storage.run_folder import RunFolder

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


def _metrics(**changed):
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


def _evidence(metrics=None, settings=None, batch=None, limit=None, status=None):
    return Evidence(
        config=dataclasses.replace(CONFIG, **(settings or {})),
        status=status or {"state": "running"},
        metrics=_metrics(**(metrics or {})),
        time_limit=limit,
        batch=BATCH._replace(**(batch or {})),
    )


def _names(evidence):
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


def test_a_healthy_run_gets_no_finding():
    assert _names(_evidence()) == []
    (opening, rest) = verdict_lib.sentences(verdict_lib.diagnose(_evidence()))
    assert "has not" in opening and rest.startswith("Nothing in its metrics and games")


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_gives_its_finding_and_no_other(name):
    broken, healthy = (_evidence(**changes) for changes in BROKEN[name])
    assert _names(broken) == [name.partition(" ")[0]]
    assert _names(healthy) == []


@pytest.mark.parametrize(
    ("clip", "expected"),
    [(1.0, "half"), (0.97, "nearly all"), (0.3, "nearly all"), (0.01, "nearly all")],
)
@pytest.mark.parametrize("learned", [False, True])
def test_the_share_of_ratios_is_compared_with_what_equal_policies_have(clip, expected, learned):
    metrics = {"rho_clipped_share": 0.05} | ({"rho_clip": clip} if learned else {})
    settings = RHO_CLIP if learned else {"rho_clip": clip}
    (finding,) = verdict_lib.diagnose(_evidence(metrics, settings)).findings
    said = f"5 % of the importance weights ρ reach {clip:g}, where {expected} would with equal"
    assert said in finding.sentence


@pytest.mark.parametrize("name", BROKEN)
def test_every_finding_is_one_plain_sentence_with_flags_that_exist(name):
    verdict = verdict_lib.diagnose(_evidence(**BROKEN[name][0]))
    (finding,) = verdict.findings
    sentence = finding.sentence
    assert sentence.endswith(".") and "\n" not in sentence
    assert not sentence[0].islower() or sentence[0] in "γλ"
    assert len(sentence.split()) <= 55 and ". " not in sentence.replace("max. ", "")
    assert finding.flags and set(finding.flags) <= set(FIELDS)
    named = set(re.findall(r"--(\w+)", sentence))
    assert named and named <= set(FIELDS)
    assert finding.flags[0] in named
    assert sentence in verdict_lib.sentences(verdict)
    assert math.isfinite(finding.value)
    assert json.loads(json.dumps(verdict_lib.to_json(verdict)))["findings"][0]["name"]


@pytest.mark.parametrize(
    ("settings", "advised", "flag"),
    [
        ({}, "raise --entropy_cost (now 0.01), or", "entropy_cost"),
        (
            ENTROPY_COST,
            "raise entropy_cost (learned, now 0.03) by --meta_parameter_ranges, or",
            "meta_parameter_ranges",
        ),
        (
            ENTROPY_COST | {"eta_schedule": "linear"},
            "raise entropy_cost (linear, now 0.03) by --eta_linear_ends, or",
            "eta_linear_ends",
        ),
    ],
)
def test_the_advice_names_what_decides_the_value(settings, advised, flag):
    metrics = {"entropy": 0.01, "entropy_cost": 0.03}
    (finding,) = verdict_lib.diagnose(_evidence(metrics, settings)).findings
    assert finding.name == "entropy_collapsed"
    assert advised in finding.sentence and finding.flags[0] == flag


@pytest.mark.parametrize(
    ("settings", "advised", "flag"),
    [
        ({}, "lower --queue_capacity (now ", "queue_capacity"),
        ({"sample_reuse": 4}, "lower --sample_reuse (now 4), --queue_capacity", "sample_reuse"),
        (
            {"meta_objective": "bootstrapped", "bootstrap_steps": 8},
            "lower --bootstrap_steps (now 8), --queue_capacity",
            "bootstrap_steps",
        ),
        (
            {"meta_objective": "bootstrapped", "bootstrap_steps": 8, "meta_parameters": "none"},
            "lower --queue_capacity",  # no target is made
            "queue_capacity",
        ),
    ],
)
def test_the_advice_on_policy_lag_names_what_lets_batches_wait(settings, advised, flag):
    (finding,) = verdict_lib.diagnose(_evidence({"policy_lag": 30.0}, settings)).findings
    assert advised in finding.sentence and finding.flags[0] == flag


def test_the_end_of_the_range_of_a_learned_discount_is_advised():
    (finding,) = verdict_lib.diagnose(_evidence(batch={"explained_variance": 0.0})).findings
    assert "lower gamma (learned, now 0.9927) by --gamma_max." in finding.sentence
    fixed = {"meta_parameters": "none"}
    (finding,) = verdict_lib.diagnose(
        _evidence(settings=fixed, batch={"explained_variance": 0.0})
    ).findings
    assert "lower --gamma (now 0.99)." in finding.sentence


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no_finished_game"])
def test_a_run_that_learns_gets_only_findings_that_are_faults(name):
    changes = dict(BROKEN[name][0])
    changes["metrics"] = {"episode_return": 20 * UP + 0.5 * NOISE} | changes.get("metrics", {})
    verdict = verdict_lib.diagnose(_evidence(**changes))
    is_fault = name.startswith(("learning_rate", "bad_updates"))
    assert len(verdict.findings) == is_fault
    assert verdict_lib.sentences(verdict)[0].startswith("It learns: the return rose from")


def test_at_most_five_sentences_with_the_root_cause_first():
    changes = {"metrics": {}, "settings": {}, "batch": {}}
    for name in ("learning_rate", "bad_updates", "dead_units", "entropy_flat", "policy_lag",
                 "explained_variance", "meta_gradient_noise"):  # fmt: skip
        for kind, values in BROKEN[name][0].items():
            changes[kind] |= values
    verdict = verdict_lib.diagnose(_evidence(**changes))
    assert len(verdict.findings) == 7
    lines = verdict_lib.sentences(verdict)
    assert len(lines) == 5 and "learning rate" in lines[1] and "not finite" in lines[2]
    assert len(verdict_lib.to_json(verdict)["findings"]) == 7


@pytest.mark.parametrize("run", [*ALL_RUNS, OLDER_PONG], ids=lambda run: "/".join(run.parts[-3:]))
def test_no_false_alarm_in_the_demonstration_runs(run):
    folder = RunFolder(run)
    config = folder.load_config()
    evidence = Evidence(
        config,
        folder.read_status(),
        metrics_of(read_rows(folder)),
        registry.time_limit(config.environment),
    )
    verdict = verdict_lib.diagnose(evidence)
    assert verdict.progress.has_risen is True
    assert verdict.findings == []
    # What is no fault is not found either if the return is left out of account.
    flat = evidence._replace(
        metrics=evidence.metrics | {"episode_return": np.full(len(evidence.metrics["frames"]), 1.0)}
    )
    assert verdict_lib.diagnose(flat).progress.has_risen is False
    names = {finding.name for finding in verdict_lib.diagnose(flat).findings}
    assert names <= {"meta_gradient_noise"}


def test_a_short_run_is_too_early_to_diagnose():
    early = {"updates": 200 * UP, "policy_lag": 100.0}
    verdict = verdict_lib.diagnose(_evidence(metrics=early))
    assert verdict.is_early and verdict.findings == []
    assert verdict_lib.sentences(verdict)[0].startswith("It is too early to say")
    # A fault is one however early.
    assert _names(_evidence(metrics=early | {"bad_updates": 100 * UP})) == ["bad_updates"]


def test_the_reason_of_a_failed_run_is_shown():
    verdict = verdict_lib.diagnose(
        _evidence(status={"state": "failed", "reason": "no\x1b[31m room"})
    )
    lines = verdict_lib.sentences(verdict)
    assert lines[1] == "The run failed: no\\x1b[31m room"


@pytest.mark.parametrize("empty", [{}, {"frames": np.array([math.nan])}])
def test_a_table_without_columns_has_no_findings(empty):
    evidence = Evidence(CONFIG, {}, empty)
    verdict = verdict_lib.diagnose(evidence)
    assert verdict.findings == [] and verdict.is_early
    assert math.isnan(evidence_lib.Evidence(CONFIG, {}, empty).mean("entropy"))


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        (20 * UP, True),
        (20 * UP**4, True),
        (20 * np.minimum(1, 5 * UP), True),
        (-20 * UP, False),
        (np.full(ROWS, 3.0), False),
        (NOISE, False),
        (20 * np.maximum(0, 0.3 - np.abs(UP - 0.4)), False),
        (np.where(np.arange(ROWS) < 37, math.nan, 1.0), None),
    ],
    ids=["rises", "rises late", "rises early", "falls", "constant", "noise", "rose and fell",
         "hardly any"],
)  # fmt: skip
def test_whether_the_return_has_risen(returns, expected):
    assert _evidence(metrics={"episode_return": returns}).progress.has_risen is expected


def test_a_policy_of_one_action_has_not_collapsed():
    one = {"metrics": {"entropy": 0.0}, "batch": {"num_actions": 1, "entropy": 0.0}}
    evidence = _evidence(**one)
    for found in (evidence, evidence._replace(batch=None)):
        assert not {"entropy_collapsed", "entropy_flat"} & set(_names(found))
    assert "entropy_collapsed" in _names(_evidence(metrics={"entropy": 0.0}))
