"""All checks of a run, and the answer in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from meta_impala.config import FIELDS
from meta_impala.config.fields import NEVER, WITH_OVERRIDE
from meta_impala.diagnosis import batch_checks, metric_checks
from meta_impala.diagnosis.evidence import YOUNG, Evidence, Finding, Progress
from meta_impala.storage.run_status import failure_of, sentence_of_failure

MOST_SENTENCES = 5


class Check(NamedTuple):
    """One check.

    Attributes:
      look: the function that does it.
      is_fault: whether it is a fault even if the return rises; the other checks run only if the
        return has not risen.
    """

    look: Callable[[Evidence], Finding | None]
    is_fault: bool = False


# Causes before their effects: the first finding is the one to fix first.
CHECKS = (
    Check(metric_checks.learning_rate, is_fault=True),
    Check(metric_checks.bad_updates, is_fault=True),
    Check(metric_checks.no_finished_game, is_fault=True),
    Check(batch_checks.rewards),
    Check(batch_checks.dead_units),
    Check(metric_checks.entropy),
    Check(metric_checks.gradient_clip),
    Check(metric_checks.policy_lag),
    Check(metric_checks.rho_clip),
    Check(batch_checks.explained_variance),
    Check(metric_checks.time_limit),
    Check(metric_checks.meta_parameter_bound),
    Check(metric_checks.meta_gradient_noise),
)


class Verdict(NamedTuple):
    """The answer.

    Attributes:
      progress: of the return.
      too_few: what there is too little of for the checks of the method; empty otherwise.
      share_of_run: of `--total_frames`, that were trained.
      findings: what keeps the run from learning, in the order in which to fix it.
      has_batch: whether games were played.
      failure: why the run failed or was interrupted; None if it was not.
      failure_sentence: the same as a sentence, which says which of the two.
    """

    progress: Progress
    too_few: tuple[str, ...]
    share_of_run: float
    findings: list[Finding]
    has_batch: bool
    failure: str | None
    failure_sentence: str | None

    @property
    def is_early(self) -> bool:
        """Whether too little was trained for the checks of the method."""
        return bool(self.too_few)

    @property
    def is_unexplained(self) -> bool:
        """Whether the return has not risen, and no check says why."""
        return not (self.findings or self.is_early) and self.progress.has_risen is not True


def diagnose(evidence: Evidence) -> Verdict:
    """Runs the checks."""
    progress = evidence.progress
    findings = []
    for check in CHECKS:
        applies = check.is_fault or progress.has_risen is False or _is_silent(evidence)
        finding = check.look(evidence) if applies else None
        if finding is not None:
            findings.append(finding)
    return Verdict(
        progress,
        evidence.too_few,
        evidence.share_of_run,
        findings,
        evidence.batch is not None,
        failure_of(evidence.status),
        sentence_of_failure(evidence.status),
    )


def _is_silent(evidence: Evidence) -> bool:
    """Whether it has trained long enough and still no game has ended."""
    return not evidence.is_early and not evidence.column("episode_return").size


def _opening(verdict: Verdict) -> str:
    first, last, has_risen = verdict.progress
    if verdict.is_early:
        return f"It is too early to say: {' and '.join(verdict.too_few)}."
    if not math.isfinite(first):
        return "There is no return yet: no game has ended, or none with a finite return."
    moved = f"from {first:.4g} to {last:.4g}"
    if has_risen is None:
        return f"Too few rows have a return to say whether it rises ({moved} so far)."
    if has_risen:
        return f"It learns: the return rose {moved}."
    young = ""
    if verdict.share_of_run < YOUNG:
        share = f"{100 * verdict.share_of_run:.2g} %"
        young = f"; {share} of --total_frames so far: it may be too early"
    if last > first:
        return f"The return has not clearly risen ({moved}, within its noise){young}."
    return f"The return has not risen ({moved}){young}."


def sentences(verdict: Verdict) -> list[str]:
    """How the return moved, and the first findings: at most five, and one more on a failure."""
    lines = [_opening(verdict)]
    if (said := verdict.failure_sentence) is not None:
        lines.append(said[0].upper() + said[1:])
    lines += [finding.sentence for finding in verdict.findings[: MOST_SENTENCES - 1]]
    if verdict.is_unexplained:
        looked = "metrics and games" if verdict.has_batch else "metrics"
        lines.append(
            f"Nothing in its {looked} explains it: it may need more frames, or another "
            "--learning_rate, --gamma or --entropy_cost."
        )
    return lines


def note_on_changes(verdict: Verdict) -> str | None:
    """One sentence: which of the advised settings this run cannot change freely; None if all."""
    flags = [flag for found in verdict.findings[: MOST_SENTENCES - 1] for flag in found.flags]
    if verdict.is_unexplained:
        flags += ["learning_rate", "gamma", "entropy_cost"]
    parts = []
    for rule, needs in ((WITH_OVERRIDE, "needs --override"), (NEVER, "needs a new folder")):
        named = [f"--{f}" for f in dict.fromkeys(flags) if FIELDS[f].metadata["on_resume"] == rule]
        if named:
            parts.append(f"another {' or '.join(named)} {needs}")
    return f"To continue this run, {', and '.join(parts)}." if parts else None


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The same as plain values; a number may be not finite (`json_document` writes null)."""
    first, last, has_risen = verdict.progress
    return {
        "return_first": first,
        "return_last": last,
        "has_risen": has_risen,
        "is_early": verdict.is_early,
        "failure": verdict.failure,
        "sentences": sentences(verdict),
        "note_on_changes": note_on_changes(verdict),
        "findings": [finding._asdict() for finding in verdict.findings],
        "played_games": verdict.has_batch,
    }
