"""The last sections of the study's page: costs, what is missing, definitions and deviations."""

from __future__ import annotations

from collections.abc import Sequence

from meta_impala.study import design, effects, summary
from meta_impala.study.blocks import Block, Heading, Table, Text, number
from meta_impala.study.deviations import DEVIATIONS
from meta_impala.study.records import Record
from meta_impala.study.study_sections import REPORT, Tasks, counts
from meta_impala.study.summary import Task


def costs(tasks: Tasks) -> list[Block]:
    """What each arm costs, in CPU-seconds of the training process, evaluations included."""
    rows = []
    for task in (*tasks["mechanism"], *tasks["minatar"], *tasks["atari"]):
        fixed = [r for name, of in task.grid.items() if name[0] == "F" for r in of]
        learned = [r for name, of in task.grid.items() if name[0] == "A" for r in of]
        # Arms that are one variant share their runs.
        arms = {arm.variant: arm for arm in task.arms.values()}
        for arm in arms.values():
            if arm.name.startswith("F"):
                fixed += arm.records.values()
            elif arm.name in (design.LEARNED, "A"):
                learned += arm.records.values()
        a, b = summary.median_cpu(fixed), summary.median_cpu(learned)
        if a is not None and b is not None:
            grid = len(task.part.gammas) or sum(name[0] == "F" for name in task.arms)
            rows.append(
                [task.name, number(a, 1), number(b, 1), number(b / a if a else None),
                 f"{grid} runs a seed", number(grid * a, 1)]
            )  # fmt: skip
    if not rows:
        return []
    return [
        Heading(2, "What it costs"),
        Text(
            "Median CPU-seconds of one run, the start of its process (about 2 s) and the "
            "evaluation games included. F* costs a grid; a learned arm costs one run, if its β is "
            "known. Measured by `python tools/study.py run` on a machine with other load; "
            f"table by {REPORT}."
        ),
        Table(
            ["task", "fixed γ", "learned {γ, λ}", "ratio", "grid of F*", "CPU-s of the grid"], rows
        ),
    ]


def missing(tasks: Tasks) -> list[Block]:
    """The parts of the design that have no result."""
    rows = []
    for part in tasks.values():
        name = part[0].part.title.partition(":")[0].replace(" ", "\u00a0")
        if counts(part).finished == 0:
            rows.append([name, "all tasks", f"all {counts(part).planned} runs"])
            continue
        rows += [[name, task.name, left] for task in part if (left := _missing_of(task))]
    if not rows:
        return []
    return [
        Heading(2, "What is missing"),
        Text(
            "Runs of the design without a result. `python tools/study.py run --out=RUNS` continues "
            "them; finished runs are kept."
        ),
        Table(["part", "task", "runs that are missing, by arm"], rows),
    ]


def _missing_of(task: Task) -> str:
    left = [
        f"{arm.name} {arm.planned - len(arm.records)}"
        for arm in task.arms.values()
        if not arm.is_complete
    ]
    count = summary.selection_count(task)
    if count.finished < count.planned:
        left.insert(0, f"selection {count.planned - count.finished}")
    return ", ".join(left)


def method(found: Sequence[Record]) -> list[Block]:
    """Definitions, rules of the verdicts, deviations."""
    failed = [r for r in found if r.state == "failed"]
    names = ", ".join(f"{r.variant} {r.task} seed {r.seed}" for r in failed) or "none"
    return [
        Heading(2, "Definitions"),
        Text(
            "Area: mean height over frames of the curve of evaluation games (20 points of 20 "
            "games; before the first point linear from the score of random actions). s = (area − "
            "random) / (area of F* on the selection seeds − random). Noise and Switching are "
            "scored without their noise: the return of Noise is twice the share of right answers, "
            "every game of Switching has a round of either phase, and its return is the number of "
            "right answers. Intervals: percentiles of a "
            f"stratified bootstrap over seeds, {effects.REPETITIONS:,} redraws; A-γλ and Y are "
            "redrawn by donor pair. Failed runs count, with random actions from where they ended: "
            f"{names}."
        ),
        Text(
            "Verdicts. Confirmed: p < 0.05 and the difference is positive. Refuted: p < 0.05 and "
            "it is negative, or the 90 % interval lies within ±0.10. Else undecided. p is "
            "two-sided, of the bootstrap; P(better) is the probability that a run of the first arm"
            " scores more than one of the second. In part 1 p is not corrected for the number of "
            "contrasts (25 in three tasks; one in twenty would be below 0.05 by chance); A-γλ > "
            "F(.99), A-γλ > L and A-ref > A-γλ are not named in the design. F arms have λ 1, and "
            "A-.9 starts λ at .9, so it differs from F(.9) in λ, too."
        ),
        Heading(2, "Deviations from the design"),
        Table(
            ["", "what was done otherwise"],
            [[str(place), text] for place, text in enumerate(DEVIATIONS, 1)],
        ),
    ]
