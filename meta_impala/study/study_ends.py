"""The last sections of the study's page: costs, what is missing, definitions and deviations."""

from __future__ import annotations

from collections.abc import Sequence

from meta_impala.study import design, effects, summary
from meta_impala.study.blocks import Block, Heading, Table, Text, number
from meta_impala.study.records import Record
from meta_impala.study.study_sections import REPORT, Tasks, counts
from meta_impala.study.summary import Task


def costs(tasks: Tasks) -> list[Block]:
    """What each arm costs, in CPU-seconds of the training process, evaluations included."""
    rows = []
    for task in (*tasks["mechanism"], *tasks["minatar"], *tasks["atari"]):
        fixed = [r for name, of in task.grid.items() if name[0] == "F" for r in of]
        learned = [r for name, of in task.grid.items() if name[0] == "A" for r in of]
        for arm in task.arms.values():
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
            "Median CPU-seconds of one run, the start of the program (about 2 s of a fork) and the "
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
    """Definitions and deviations."""
    failed = [r for r in found if r.state == "failed"]
    names = ", ".join(f"{r.variant} {r.task} seed {r.seed}" for r in failed) or "none"
    return [
        Heading(2, "Definitions and deviations"),
        Text(
            "Area: mean height over frames of the curve of evaluation games (20 points of 20 "
            "games; before the first point linear from the score of random actions). s = (area − "
            "random) / (area of F* on the selection seeds − random). Noise and Switching are "
            "scored without their noise: the return of Noise is twice the share of right answers, "
            "every "
            "game of Switching has a round of either phase, and its return is the number of right "
            "answers. Intervals: percentiles of a "
            f"stratified bootstrap over seeds, {effects.REPETITIONS:,} redraws; A-γλ and Y are "
            "redrawn by donor pair. Failed runs count, with random actions from where they ended: "
            f"{names}."
        ),
        Text(
            "Deviations from the design: (1) part 1 also selects β of the learned arms, from 5 "
            "values and 3 seeds as part 2 does, with values ten times larger, because its runs "
            "have 320 or 640 updates; (2) part 1 runs with a constant learning rate; (3) M plays "
            "its evaluation games at the γ of F*; (4) all A-γλ runs come before the other arms of "
            "the confirmation, because Y and C need them; (5) the learned arms of part 4 start "
            "from γ .9; (6) 210 runs of part 1 had been made before, at another commit, and were "
            "looked at then (5 or 6 seeds); they were made again with the rest, and all 4,200 "
            "evaluations that both have are equal to the bit; (7) "
            "every run is `--deterministic`, so that each cell can be repeated to the bit; (8) "
            "Switching is another task than in the first runs: the former one failed its "
            "acceptance test (the best constant lost 12 % of area, 2 of 10 seeds). Its 34 runs "
            "are not counted; they were seen before this one was made. It was made by trials of "
            "constants and R alone, on seeds 1 and 2; (9) `laptop.flags`, which part 3 uses, was "
            "tuned again on Pong before any run of part 3; (10) part 4 was run before part 2; (11) "
            "part 2 was begun with one game, Breakout, selection and confirmation, because one "
            "game that is whole says more than the selection of five."
        ),
    ]
