"""What doctor advises: the setting that decides, and none that is refused."""

import dataclasses
import re

import pytest
from support.diagnosed import BROKEN, ENTROPY_COST, UP, evidence_of

from meta_impala.config import FIELDS, presets, resolve
from meta_impala.diagnosis import verdict as verdict_lib
from meta_impala.diagnosis.evidence import Finding
from meta_impala.errors import UserError


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
    (finding,) = verdict_lib.diagnose(evidence_of(metrics, settings)).findings
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
    (finding,) = verdict_lib.diagnose(evidence_of({"policy_lag": 30.0}, settings)).findings
    assert advised in finding.sentence and finding.flags[0] == flag


def test_the_end_of_the_range_of_a_learned_discount_is_advised():
    (finding,) = verdict_lib.diagnose(evidence_of(batch={"explained_variance": 0.0})).findings
    assert "lower gamma (learned, now 0.9927) by --gamma_max." in finding.sentence
    fixed = {"meta_parameters": "none"}
    (finding,) = verdict_lib.diagnose(
        evidence_of(settings=fixed, batch={"explained_variance": 0.0})
    ).findings
    assert "lower --gamma (now 0.99)." in finding.sentence


# What the settings must be for an advice to be possible as it is worded.
NOTHING_TO_LOWER = {
    "queue_capacity": 1, "num_actors": 1, "envs_per_actor": 1, "entropy_cost": 0.0,
    "baseline_cost": 0.0,
}  # fmt: skip
_RAISE, _LOWER = (2.0, 4.0, 1.1, 1.001), (0.5, 0.9, 0.995)
_WORDS = re.compile(
    r"\b(raise|lower|make|move|use|clip|compare|change)\b|--(\w+)(?:=(\w+))?|(together)"
)


def _advised(sentence):
    """Verb, flag, value and whether it goes with the one before, of each flag of a sentence."""
    verb, is_together = "", False
    for found in _WORDS.finditer(sentence):
        verb = found[1] or verb
        is_together = is_together or bool(found[4])
        if found[2]:
            yield verb, found[2], found[3], is_together
            is_together = False


def _can_change(config, verb, flags):
    """Whether all these settings can be changed at once in this direction."""
    fields = [FIELDS[flag].name for flag in flags]
    for factor in {"raise": _RAISE, "lower": _LOWER}[verb]:
        values = {}
        for name in fields:
            before = getattr(config, name)
            after = type(before)(before * factor)
            if verb == "raise" and not before:
                after = type(before)(1)
            values[name] = after
            if after == before:
                return False
        try:
            resolve(dataclasses.replace(config, **values), is_stored=True)
            return True
        except UserError:
            continue
    return False


@pytest.mark.parametrize("preset_name", presets.names())
@pytest.mark.parametrize("lowest", [{}, NOTHING_TO_LOWER], ids=["", "nothing to lower"])
def test_what_is_advised_is_not_refused(preset_name, lowest):
    """Each count and number of an advice can be raised or lowered as it says."""
    given = presets.preset(preset_name)
    if given.environment is None:
        given = dataclasses.replace(given, environment="Pong")
    config = resolve(dataclasses.replace(given, **lowest))
    checked = set()
    for changes in (broken for broken, _ in BROKEN.values()):
        changes = dict(changes)
        own = {k: v for k, v in changes.pop("settings", {}).items() if k == "learning_rate"}
        run = dataclasses.replace(config, **own)
        for finding in verdict_lib.diagnose(evidence_of(**changes)._replace(config=run)).findings:
            advice = list(_advised(finding.sentence))
            assert {flag for _, flag, _, _ in advice} == set(finding.flags)
            for (verb, flag, value, _), after in zip(advice, [*advice[1:], None], strict=True):
                flags = [flag, *([after[1]] if after and after[3] else [])]
                is_number = isinstance(getattr(run, FIELDS[flag].name), (int, float))
                if verb in ("raise", "lower") and is_number and value is None:
                    assert _can_change(run, verb, flags), (finding.sentence, flags)
                    checked.add(flag)
    assert {"learning_rate", "batch_size"} <= checked


@pytest.mark.parametrize(
    ("settings", "advised"),
    [
        ({}, "raise --meta_batch_size (now 8), lower"),
        ({"batch_size": 8}, "raise --meta_batch_size (now 8) together with --batch_size (now 8), "),
        ({"batch_size": 9}, "raise --meta_batch_size (now 8), lower"),
        ({"batch_size": 9, "meta_data": "held_out"}, "together with --batch_size (now 9), lower"),
    ],
)
def test_a_larger_meta_batch_needs_a_batch_that_holds_it(settings, advised):
    metrics = BROKEN["meta_gradient_noise"][0]["metrics"]
    settings = {"batch_size": 32, "meta_batch_size": 8} | settings
    (finding,) = verdict_lib.diagnose(evidence_of(metrics, settings)).findings
    assert advised in finding.sentence
    assert ("batch_size" in finding.flags) == ("together" in advised)


@pytest.mark.parametrize(("end", "is_said"), [(1.0, False), (0.9995, True)])
def test_the_end_of_a_range_that_can_go_no_further_is_not_advised(end, is_said):
    changes = {"metrics": {"gamma": 0.9999 * end}, "settings": {"gamma_max": end}}
    (finding,) = verdict_lib.diagnose(evidence_of(**changes)).findings
    assert ("move --gamma_max" in finding.sentence) == is_said
    assert ("gamma_max" in finding.flags) == is_said


def test_what_a_continued_run_needs_for_the_advice_is_said():
    def note(**changes):
        return verdict_lib.note_on_changes(verdict_lib.diagnose(evidence_of(**changes)))

    noise = note(**BROKEN["meta_gradient_noise"][0])
    assert noise == (
        "To continue this run, another --meta_batch_size or --meta_learning_rate "
        "needs --override, and another --meta_parameters needs a new folder."
    )
    unexplained = "another --learning_rate or --gamma or --entropy_cost needs --override."
    assert note() == f"To continue this run, {unexplained}"
    time_limit = note(**BROKEN["time_limit"][0])
    assert time_limit.endswith("--entropy_cost needs --override, and another --environment_kwargs "
                               "needs a new folder.")  # fmt: skip
    # Nothing is advised, or what changes freely.
    assert note(metrics={"episode_return": 20 * UP}) is None
    free = Finding("x", "x.", ("queue_capacity", "total_frames"), 0.0, 0.0)
    verdict = verdict_lib.diagnose(evidence_of())
    assert verdict_lib.note_on_changes(verdict._replace(findings=[free])) is None
