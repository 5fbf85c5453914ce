"""The sections of the study's page, as blocks: headings, paragraphs, tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meta_impala.study import answers, design, effects, summary
from meta_impala.study.records import Record
from meta_impala.study.summary import Result, Task

Tasks = Mapping[str, Sequence[Task]]
REPORT = "`python tools/study.py report`"


class Heading(NamedTuple):
    """A heading of level 2 or 3."""

    level: int
    text: str


class Text(NamedTuple):
    """A paragraph; `code` between backquotes."""

    text: str


class Table(NamedTuple):
    """A table of text."""

    columns: list[str]
    rows: list[list[str]]


class Figure(NamedTuple):
    """A picture: its name (of a file), caption, and SVG text."""

    name: str
    caption: str
    svg: str


Block = Heading | Text | Table | Figure


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with a real minus sign; – if there is none."""
    if value is None or value != value:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def _interval(low: float, high: float, sign: bool = False) -> str:
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def head(tasks: Tasks, found: Sequence[Record]) -> list[Block]:
    """What was asked, and how much of it is answered."""
    counts = {name: _counts(part) for name, part in tasks.items()}
    done = sum(c.finished for c in counts.values())
    planned = sum(c.planned for c in counts.values())
    commits = sorted({r.commit[:12] for r in found if r.commit})
    blocks: list[Block] = [
        Text(
            "Claim on trial: learning γ and λ by meta-gradient makes an agent better than the best "
            "fixed ones. Counter-claims: (a) it only finds a better constant; (b) any schedule "
            "of that shape would do; (c) it is multi-task learning; (d) it pays for itself only "
            "against an untuned γ. The design was fixed before the runs: "
            "`testdata/study/README.md`."
        ),
        Text(
            f"This page is made by {REPORT} from `testdata/study/*.csv`, which "
            "`python tools/study.py collect --out=RUNS` made from the folders of `python "
            "tools/study.py run --out=RUNS`. Commit of the runs: "
            + (", ".join(f"`{commit}`" for commit in commits) or "unknown")
            + f". Runs with a result: {done} of {planned}. A claim whose runs are not all there "
            "is undecided, whatever it looks like so far."
        ),
    ]
    rows = []
    for part in tasks.values():
        select = [summary.selection_count(task) for task in part]
        confirm = [summary.confirmation_count(task) for task in part]
        rows.append(
            [
                part[0].part.title,
                f"{sum(c.finished for c in select)} of {sum(c.planned for c in select)}",
                f"{sum(c.finished for c in confirm)} of {sum(c.planned for c in confirm)}",
            ]
        )
    blocks.append(Table(["part", "selection runs", "confirmation runs (by arm)"], rows))
    return blocks


def _counts(part: Sequence[Task]) -> summary.Count:
    pairs = [(summary.selection_count(t), summary.confirmation_count(t)) for t in part]
    return summary.Count(
        sum(a.finished + b.finished for a, b in pairs), sum(a.planned + b.planned for a, b in pairs)
    )


def questions(tasks: Tasks) -> list[Block]:
    """The nine questions and their answers."""
    rows = [[a.question, a.text, a.verdict] for a in answers.answers(tasks)]
    return [
        Heading(2, "Nine questions"),
        Text(f"Every number of this table is made by {REPORT}."),
        Table(["question", "answer", "verdict"], rows),
    ]


def of_part(part: Sequence[Task]) -> list[Block]:
    """Title of a part; for part 2 its named contrasts over all games."""
    blocks: list[Block] = [Heading(2, part[0].part.title)]
    done, planned = _counts(part)
    if done == 0 and not any(task.pilots for task in part):
        blocks.append(
            Text(
                f"Not run: 0 of {planned} runs. `python tools/study.py run --out=RUNS "
                f"--part={part[0].part.name} --parallel=2` runs it, and continues it at any time."
            )
        )
        return blocks
    if part[0].part is design.MINATAR:
        blocks += _pilots(part)
        found = summary.results(part, summary.MINATAR_CLAIMS, family=True)
        blocks.append(Text("The five named contrasts, p adjusted by Holm over them."))
        blocks.append(_results_table(found))
    return blocks


def _pilots(part: Sequence[Task]) -> list[Block]:
    """F(.99) with the pilot's seed: is the game learned at all?"""
    rows = [
        [
            task.name,
            f"{record.points[-1].frames:,}",
            number(record.points[-1].mean_return, 2),
            number(task.random, 2),
        ]
        for task in part
        for record in task.pilots
        if record.points
    ]
    if not rows:
        return []
    return [
        Text("Pilots: F(.99), seed 0. A game that stays at random is dropped."),
        Table(["game", "frames", "mean return of the last 20 games", "random actions"], rows),
    ]


def _results_table(found: Sequence[Result]) -> Table:
    rows = []
    for result in found:
        c = result.contrast
        runs = f"{result.finished[0]} of {result.planned[0]}, {result.finished[1]} of "
        rows.append(
            [
                f"{result.claim.first} > {result.claim.second}: {result.claim.meaning}",
                runs + str(result.planned[1]),
                number(c.value, sign=True) if c else "–",
                _interval(c.low, c.high, sign=True) if c else "–",
                number(c.improvement) if c else "–",
                number(result.p, 3) if result.p is not None else "–",
                ("yes" if c.is_equivalent else "no") if c else "–",
                result.verdict,
            ]
        )
    columns = [
        "claim", "runs", "difference of s (interquartile means)", "95 % interval", "P(better)", "p",
        "90 % interval within ±0.10", "verdict",
    ]  # fmt: skip
    return Table(columns, rows)


def of_task(task: Task) -> list[Block]:
    """Selection, arms, contrasts and the ends of the schedules of a task."""
    blocks: list[Block] = []
    if task.grid:
        blocks += _selection(task)
    if any(arm.records for arm in task.arms.values()):
        blocks.append(_arms_table(task))
    if task.part is design.MECHANISM and any(arm.s for arm in task.arms.values()):
        blocks.append(_results_table(summary.results([task], task.claims, family=False)))
    ending = summary.ending(summary.learned_records(task))
    if ending is not None:
        blocks.append(_ending_text(ending))
    if task.name == "Switching":
        blocks.append(_acceptance_text(task))
    return blocks


def _selection(task: Task) -> list[Block]:
    """The runs of the selection, by value of the grid, and what they chose."""
    rows = []
    for name, found in task.grid.items():
        if not found:
            continue
        area = statistics.fmean(effects.area(record, task.random) for record in found)
        ending = summary.ending([record for record in found if record.points])
        is_learned = name[0] == "A" and ending is not None
        is_chosen = name in (task.selection.fixed, task.selection.learned)
        rows.append(
            [
                ("γ " if name[0] == "F" else "learned, β ") + name[2:],
                str(len(found)),
                number(area, 3),
                _spread(ending.gamma) if is_learned and ending else "–",
                _spread(ending.lambda_) if is_learned and ending else "–",
                "chosen" if is_chosen else "",
            ]
        )
    seeds = ", ".join(map(str, task.part.selection_seeds))
    if not rows:
        return [Text(f"Selection (seeds {seeds}): no run.")]
    missing = (
        ""
        if task.selection.fixed and task.selection.learned
        else (" It is not complete: F* or β is chosen when all its runs are there.")
    )
    return [
        Text(
            f"Selection (seeds {seeds}); random actions have the area {number(task.random, 3)}."
            + missing
        ),
        Table(
            ["selection", "runs", "mean area", "last γ (median; range)", "last λ (median; range)",
             ""],
            rows,
        ),
    ]  # fmt: skip


def _spread(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.4f} ({values[1]:.4f} to {values[2]:.4f})"


def _arms_table(task: Task) -> Table:
    rows = []
    for arm in task.arms.values():
        cells = ["–", "–"]
        if arm.s:
            value, low, high = effects.aggregate({task.name: list(arm.s.values())})  # type: ignore[dict-item]
            cells = [number(value), _interval(low, high) if len(arm.s) > 1 else "–"]
        area = statistics.fmean(arm.areas.values()) if arm.areas else None
        rows.append(
            [
                f"{arm.name}: {design.LABELS.get(arm.name, arm.name.replace('_', ' '))}",
                f"`{arm.variant}`" if arm.variant else "–",
                f"{len(arm.records)} of {arm.planned}",
                number(area, 3),
                *cells,
                number(summary.median_cpu(list(arm.records.values())), 1),
            ]
        )
    columns = [
        "arm", "variant", "runs", "mean area", "s (interquartile mean)", "95 % interval",
        "CPU-s per run (median)",
    ]  # fmt: skip
    return Table(columns, rows)


def _ending_text(ending: summary.Ending) -> Text:
    agree = "agree" if _same_side(ending.gamma) else "do not agree"
    return Text(
        f"Learned runs of the chosen β end at γ {_spread(ending.gamma)} and λ "
        f"{_spread(ending.lambda_)}: median and range of {ending.runs} runs, selection "
        f"seeds included. Seeds {agree} on the direction of γ from its start, .99."
    )


def _same_side(gamma: tuple[float, float, float]) -> bool:
    return gamma[1] > 0.99 or gamma[2] < 0.99


def _acceptance_text(task: Task) -> Text:
    found = summary.acceptance(task)
    rule = (
        "Acceptance of this task: the best constant must lose at least 20 % of area to an agent "
        "that is given the right γ in each phase (arm R, 10 seeds). "
    )
    if found is None:
        return Text(rule + "No pair of runs yet: undecided.")
    passed = "accepted" if found.loss >= 0.20 else "not accepted"
    return Text(
        rule
        + f"{found.constant} loses {number(100 * found.loss, 0)} % of the area, and "
        + f"{number(100 * found.loss_above_random, 0)} % of the area above random actions "
        + f"({found.runs[0]} and {found.runs[1]} runs): "
        + (passed if found.is_complete else f"undecided (so far {passed})")
        + "."
    )


def costs(tasks: Tasks) -> list[Block]:
    """What each arm costs, in CPU-seconds of the training process, evaluations included."""
    rows = []
    for task in (*tasks["mechanism"], *tasks["minatar"], *tasks["atari"]):
        fixed = [r for name, of in task.grid.items() if name[0] == "F" for r in of]
        learned = [r for name, of in task.grid.items() if name[0] == "A" for r in of]
        for arm in task.arms.values():
            if arm.name.startswith("F"):
                fixed += arm.records.values()
            elif arm.name == design.LEARNED:
                learned += arm.records.values()
        a, b = summary.median_cpu(fixed), summary.median_cpu(learned)
        if a is not None and b is not None:
            grid = len(task.part.gammas)
            rows.append(
                [task.name, number(a, 1), number(b, 1), number(b / a), f"{grid} runs a seed",
                 number(grid * a, 1)]
            )  # fmt: skip
    if not rows:
        return []
    return [
        Heading(2, "What it costs"),
        Text(
            "Median CPU-seconds of one run, the start of the program (about 2 s of a fork) and the "
            "evaluation games included. F* costs a grid; a learned arm costs one run, if its β is "
            "known. Measured by `python tools/study.py run` on a machine that did other work; "
            f"table by {REPORT}."
        ),
        Table(
            ["task", "fixed γ", "learned {γ, λ}", "ratio", "grid of F*", "CPU-s of the grid"], rows
        ),
    ]


def missing(tasks: Tasks) -> list[Block]:
    """What of the design has no result."""
    rows = []
    for part in tasks.values():
        name = part[0].part.title.partition(":")[0].replace(" ", "\u00a0")
        if _counts(part).finished == 0:
            rows.append([name, "all tasks", f"all {_counts(part).planned} runs"])
            continue
        rows += [[name, task.name, left] for task in part if (left := _missing_of(task))]
    if not rows:
        return []
    return [
        Heading(2, "What is missing"),
        Text(
            "Runs of the design without a result. `python tools/study.py run --out=RUNS` goes on "
            "with them; finished runs are kept."
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
            "random) / (area of F* on the selection seeds − random). Intervals: percentiles of a "
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
            "from γ .9; (6) the tasks of part 1 were run one after the other, Patience seeds 11 "
            "and 12 before the selection of Noise and Switching; (7) every run is "
            "`--deterministic`, so that each cell can be repeated to the bit."
        ),
    ]
