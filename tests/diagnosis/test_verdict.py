"""doctor's checks: a run that is broken in one way gets that finding only, healthy runs none."""

import json
import math
import re

import numpy as np
import pytest
from support.demonstration import ALL_RUNS, OLDER_PONG
from support.diagnosed import (
    BROKEN,
    CONFIG,
    NOISE,
    RHO_CLIP,
    ROWS,
    UP,
    evidence_of,
    metrics_of_run,
    names_of,
)

from meta_impala.analysis.curves import read_rows
from meta_impala.analysis.run_page.run_record import metrics_of
from meta_impala.config import FIELDS
from meta_impala.diagnosis import evidence as evidence_lib
from meta_impala.diagnosis import verdict as verdict_lib
from meta_impala.diagnosis.evidence import Evidence
from meta_impala.environments import registry
from meta_impala.storage.run_folder import RunFolder


def test_a_healthy_run_gets_no_finding():
    assert names_of(evidence_of()) == []
    (opening, rest) = verdict_lib.sentences(verdict_lib.diagnose(evidence_of()))
    assert "has not" in opening and rest.startswith("Nothing in its metrics and games")


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_gives_its_finding_and_no_other(name):
    broken, healthy = (evidence_of(**changes) for changes in BROKEN[name])
    assert names_of(broken) == [name.partition(" ")[0]]
    assert names_of(healthy) == []


@pytest.mark.parametrize(
    ("clip", "expected"),
    [(1.0, "half"), (0.97, "nearly all"), (0.3, "nearly all"), (0.01, "nearly all")],
)
@pytest.mark.parametrize("learned", [False, True])
def test_the_share_of_ratios_is_compared_with_what_equal_policies_have(clip, expected, learned):
    metrics = {"rho_clipped_share": 0.05} | ({"rho_clip": clip} if learned else {})
    settings = RHO_CLIP if learned else {"rho_clip": clip}
    (finding,) = verdict_lib.diagnose(evidence_of(metrics, settings)).findings
    said = f"5 % of the importance weights ρ reach {clip:g}, where {expected} would with equal"
    assert said in finding.sentence


@pytest.mark.parametrize("name", BROKEN)
def test_every_finding_is_one_plain_sentence_with_flags_that_exist(name):
    verdict = verdict_lib.diagnose(evidence_of(**BROKEN[name][0]))
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


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "no_finished_game"])
def test_a_run_that_learns_gets_only_findings_that_are_faults(name):
    changes = dict(BROKEN[name][0])
    changes["metrics"] = {"episode_return": 20 * UP + 0.5 * NOISE} | changes.get("metrics", {})
    verdict = verdict_lib.diagnose(evidence_of(**changes))
    is_fault = name.startswith(("learning_rate", "bad_updates"))
    assert len(verdict.findings) == is_fault
    assert verdict_lib.sentences(verdict)[0].startswith("It learns: the return rose from")


def test_at_most_five_sentences_with_the_root_cause_first():
    changes = {"metrics": {}, "settings": {}, "batch": {}}
    for name in ("learning_rate", "bad_updates", "dead_units", "entropy_flat", "policy_lag",
                 "explained_variance", "meta_gradient_noise"):  # fmt: skip
        for kind, values in BROKEN[name][0].items():
            changes[kind] |= values
    verdict = verdict_lib.diagnose(evidence_of(**changes))
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
    verdict = verdict_lib.diagnose(evidence_of(metrics=early))
    assert verdict.is_early and verdict.findings == []
    assert verdict_lib.sentences(verdict)[0].startswith("It is too early to say")
    # A fault is one however early.
    assert names_of(evidence_of(metrics=early | {"bad_updates": 100 * UP})) == ["bad_updates"]


@pytest.mark.parametrize(
    ("updates", "rows", "expected"),
    [
        (299.0, ROWS, "fewer than 300 updates"),
        (math.nan, ROWS, "fewer than 300 updates"),
        (5000.0, 3, "fewer than 4 rows of metrics"),
        (299.0, 3, "fewer than 300 updates and fewer than 4 rows of metrics"),
        (math.nan, 0, "fewer than 4 rows of metrics"),  # the table is lost, not the updates
    ],
)
def test_what_there_is_too_little_of_is_said(updates, rows, expected):
    metrics = {name: values[:rows] for name, values in metrics_of_run(updates=updates).items()}
    verdict = verdict_lib.diagnose(evidence_of()._replace(metrics=metrics))
    assert verdict_lib.sentences(verdict)[0] == f"It is too early to say: {expected}."


@pytest.mark.parametrize(
    ("frames", "rates"),
    [
        # The last rows of a linear schedule are all that is left of a table.
        ([9_999_000, 10_000_000], [6e-8, 0.0]),
        (np.linspace(9_995_000, 10_000_000, ROWS), 6e-4 * np.linspace(5e-4, 0.0, ROWS)),
        (np.linspace(250_000, 10_000_000, 3), [5e-4, 2e-4, 0.0]),
    ],
    ids=["two rows", "many rows", "three rows of a whole run"],
)
def test_the_end_of_a_schedule_with_its_run_is_no_fault(frames, rates):
    kept = {name: values[-len(rates) :] for name, values in metrics_of_run().items()}
    metrics = kept | {"frames": np.array(frames), "learning_rate": np.array(rates)}
    assert names_of(evidence_of()._replace(metrics=metrics)) == []


@pytest.mark.parametrize(
    ("share", "said"), [(0.03, "3 %"), (0.099, "9.9 %"), (0.1, None), (1.0, None)]
)
@pytest.mark.parametrize("rise", [0.0, 0.3])
def test_a_return_that_has_not_risen_yet_may_be_early(share, said, rise):
    returns = 5.0 + NOISE - NOISE[0] + rise * UP
    metrics = {"frames": share * 1e7 * (0.1 + 0.9 * UP), "episode_return": returns}
    verdict = verdict_lib.diagnose(evidence_of(metrics))
    assert verdict.progress.has_risen is False
    opening = verdict_lib.sentences(verdict)[0]
    note = f"; {said} of --total_frames so far: it may be too early."
    assert opening.endswith(note) if said else "too early" not in opening
    rising = verdict_lib.diagnose(evidence_of(metrics | {"episode_return": 20 * UP}))
    assert "too early" not in verdict_lib.sentences(rising)[0]


def test_the_reason_of_a_failed_run_is_shown():
    verdict = verdict_lib.diagnose(
        evidence_of(status={"state": "failed", "reason": "no\x1b[31m room"})
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
    assert evidence_of(metrics={"episode_return": returns}).progress.has_risen is expected


def test_a_policy_of_one_action_has_not_collapsed():
    one = {"metrics": {"entropy": 0.0}, "batch": {"num_actions": 1, "entropy": 0.0}}
    evidence = evidence_of(**one)
    for found in (evidence, evidence._replace(batch=None)):
        assert not {"entropy_collapsed", "entropy_flat"} & set(names_of(found))
    assert "entropy_collapsed" in names_of(evidence_of(metrics={"entropy": 0.0}))
