"""The sections of the study's page, as blocks: headings, paragraphs, tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from meta_impala.study import acceptance, answers, design, effects, summary
from meta_impala.study.blocks import Block, Heading, Table, Text, number
from meta_impala.study.records import Record
from meta_impala.study.summary import Result, Task

Tasks = Mapping[str, Sequence[Task]]
REPORT = "`python tools/study.py report`"


_WORDS = (
    "Tasks of part 1. Patience: 0.5 now or 1.0 in 7 steps; waiting is right above γ 0.906. Noise: "
    "every second reward is noise that no action changes; γ 0 is best. Switching: first γ 0 is "
    "best, because what follows an answer is noise; from the middle of the run on only a γ above "
    "0.926 is right.",
    "Terms. A-γλ: γ and λ are learned. F(γ): γ is fixed, F*: at the best value of the grid. M: "
    "many γ at once, none learned. s: a score that is 0 for random actions and 1 for F* on the "
    "selection seeds. η: what is learned, here {γ, λ}; e_η: its embedding, an input of the "
    "network. J': the objective by which η is changed; γ': the discount of J'; τ' and B': the "
    "trajectories of J' and their number. μ: how much the meta-gradient remembers of earlier "
    "updates. β: step size of η. ρ, c: V-trace's importance weights.",
)


def _interval(low: float, high: float, sign: bool = False) -> str:
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]"


def head(tasks: Tasks, found: Sequence[Record]) -> list[Block]:
    """The question, and how much of it is answered so far."""
    of_parts = [counts(part) for part in tasks.values()]
    done = sum(c.finished for c in of_parts)
    planned = sum(c.planned for c in of_parts)
    commits = sorted({r.commit[:12] for r in found if r.commit})
    blocks: list[Block] = [
        Text(
            "Claim: learning γ and λ by meta-gradient makes an agent better than the best "
            "fixed ones. Counter-claims: (a) it only finds a better constant; (b) any schedule "
            "of that shape would do; (c) it is multi-task learning; (d) it pays for itself only "
            "against an untuned γ. The design was fixed before the runs: "
            "`testdata/study/README.md`."
        ),
        *(Text(text) for text in _WORDS),
        Text(
            f"This page is made by {REPORT} from `testdata/study/*.csv`, which "
            "`python tools/study.py collect --out=RUNS` made from the folders of `python "
            "tools/study.py run --out=RUNS`. Commit of the runs: "
            + (", ".join(f"`{commit}`" for commit in commits) or "unknown")
            + f". Runs with a result: {done} of {planned}, where a run that serves as two arms "
            "counts twice. A claim whose runs are not all there is undecided, whatever it looks "
            "like so far."
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


def counts(part: Sequence[Task]) -> summary.Count:
    """Runs of a part, selection and arms."""
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
    done, planned = counts(part)
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


def _p(value: float | None) -> str:
    return "< 0.001" if value is not None and value < 0.001 else number(value, 3)


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
        Text(
            "Pilots: F(.99), seed 0. By the design a game that stays at random is dropped; none is "
            "so far."
        ),
        Table(["game", "frames", "mean return of the last 20 games", "random actions"], rows),
    ]


def _results_table(found: Sequence[Result]) -> Table:
    rows = []
    for result in found:
        c = result.contrast
        has_interval = c is not None and c.has_interval
        rows.append(
            [
                f"{result.claim.first} > {result.claim.second}: {result.claim.meaning}",
                f"{result.finished[0]} of {result.planned[0]}, {result.finished[1]} of "
                f"{result.planned[1]}",
                number(c.value, sign=True) if c else "–",
                _interval(c.low, c.high, sign=True) if c and has_interval else "–",
                number(c.improvement) if c else "–",
                _p(result.p) if has_interval else "–",
                ("yes" if c.is_equivalent else "no") if c and has_interval else "–",
                result.verdict,
            ]
        )
    columns = [
        "claim", "runs", "difference of s (interquartile means)", "95 % interval", "P(better)", "p",
        "90 % interval within ±0.10", "verdict",
    ]  # fmt: skip
    return Table(columns, rows)


def of_task(task: Task, found: Sequence[Record]) -> list[Block]:
    """Selection, arms, contrasts and the ends of the schedules of a task.

    Args:
      task: of the study.
      found: records of all parts; of Switching also those of its acceptance test, if they are kept.
    """
    blocks: list[Block] = []
    if not task.grid:
        return [_variants_table(task)]
    blocks += _selection(task)
    if any(arm.records for arm in task.arms.values()):
        blocks.append(_arms_table(task))
        blocks.append(_shared_text(task))
    if any(arm.s for arm in task.arms.values()):
        results = summary.results([task], task.claims, family=False)
        if task.part is design.MINATAR:
            # The design names contrasts over all games; one game has no verdict of its own.
            blocks.append(
                Text("The contrasts in this game alone, without verdicts; p not adjusted.")
            )
            results = [result._replace(verdict="–") for result in results]
        blocks.append(_results_table(results))
    ending = summary.ending(summary.learned_records(task))
    if ending is not None:
        blocks.append(_ending_text(ending))
    if task.name == "Switching":
        blocks.append(_right_text(task, found))
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
    if any(map(math.isnan, values)):  # of the state, so there is no one value
        return "–"
    return f"{values[0]:.4f} ({values[1]:.4f} to {values[2]:.4f})"


def _arms_table(task: Task) -> Table:
    rows = []
    for arm in task.arms.values():
        cells = ["–", "–"]
        if arm.s:
            value, low, high = effects.aggregate({task.name: list(arm.s.values())})  # type: ignore[dict-item]
            cells = [
                number(value),
                _interval(low, high) if len(arm.s) >= effects.LEAST_RUNS else "–",
            ]
        area = statistics.fmean(arm.areas.values()) if arm.areas else None
        rows.append(
            [
                f"{arm.name}: {design.LABELS[arm.name]}",
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


def _variants_table(task: Task) -> Table:
    """The arms of a part in which nothing was selected, beside its first."""
    labels = design.variant_labels(task.part.suite)
    first = next(iter(task.arms))
    rows = []
    for name, arm in task.arms.items():
        ending = summary.ending([r for r in arm.records.values() if r.points])
        above = None if name == first else answers.above_on_same_seeds(task, name, first)
        rows.append(
            [
                labels[name],
                f"`{name}`",
                f"{len(arm.records)} of {arm.planned}",
                number(statistics.fmean(arm.areas.values()), 3) if arm.areas else "–",
                number(above, 3, sign=True),
                _spread(ending.gamma) if ending else "–",
                _spread(ending.lambda_) if ending else "–",
                number(summary.median_cpu(list(arm.records.values())), 1),
            ]
        )
    columns = [
        "what", "variant", "runs", "mean area", f"minus {labels[first]}, same seeds",
        "last γ (median; range)", "last λ (median; range)", "CPU-s per run (median)",
    ]  # fmt: skip
    return Table(columns, rows)


def _shared_text(task: Task) -> Text:
    """Which arms are one variant, and what is missing where there is no interval."""
    by_variant: dict[str, list[str]] = {}
    for arm in task.arms.values():
        if arm.variant:
            by_variant.setdefault(arm.variant, []).append(arm.name)
    shared = [" and ".join(names) for names in by_variant.values() if len(names) > 1]
    said = f"The same runs serve as {'; '.join(shared)}. " if shared else ""
    return Text(f"{said}Intervals and p are given from {effects.LEAST_RUNS} runs of an arm on.")


def _ending_text(ending: summary.Ending) -> Text:
    agree = "agree" if _same_side(ending.gamma) else "do not agree"
    return Text(
        f"Learned runs of the chosen β end at γ {_spread(ending.gamma)} and λ "
        f"{_spread(ending.lambda_)}: median and range of {ending.runs} runs, selection "
        f"seeds included. Seeds {agree} on the direction of γ from its start, .99."
    )


def _same_side(gamma: tuple[float, float, float]) -> bool:
    return gamma[1] > 0.99 or gamma[2] < 0.99


def _right_text(task: Task, found: Sequence[Record]) -> Text:
    """What F* loses to the right γ of each phase; and the acceptance test, which is another one."""
    lost = summary.loss_to_right(task)
    said = "What F* loses to the right γ of each phase (arm R) is not known: no pair of runs yet."
    if lost is not None:
        so_far = "" if lost.is_complete else " so far"
        said = (
            f"On the confirmation seeds {lost.constant} loses{so_far} {number(100 * lost.loss, 0)} "
            "% of the area to an agent that is given the right γ in each phase (arm R), and "
            f"{number(100 * lost.loss_above_random, 0)} % of the area above random actions "
            f"({lost.runs[0]} and {lost.runs[1]} runs)."
        )
    seeds, constants = design.ACCEPTANCE.seeds, len(design.ACCEPTANCE.arms) - 1
    test = f"the best of {constants} constants, seeds {seeds[0]} to {seeds[-1]}"
    areas = acceptance.areas_of(found, task.random)
    if any(areas.values()):
        return Text(
            f"{said} The acceptance test of the task ({test}): {acceptance.verdict(areas)}."
        )
    return Text(f"{said} The acceptance test of the task ({test}) is in `testdata/results`.")
