"""The nine questions that the paper left open, one sentence and one number each."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meta_impala.study import design, effects, summary
from meta_impala.study.blocks import number
from meta_impala.study.summary import Claim, Result, Task

_signed = functools.partial(number, sign=True)


class Answer(NamedTuple):
    """A question, the answer, and the verdict.

    Empty if the study tests no claim for it; it names part 1 if it rests on that part alone.
    """

    question: str
    text: str
    verdict: str


def effect(result: Result) -> str:
    """The effect with its interval, and the runs that it rests on."""
    contrast = result.contrast
    first, second = (
        f"{done} of {planned}"
        for done, planned in zip(result.finished, result.planned, strict=True)
    )
    runs = f"{first} runs each" if first == second else f"{first} and {second} runs"
    if contrast is None:
        return f"no effect can be given yet ({runs})"
    if not contrast.has_interval:
        return f"{_signed(contrast.value)} in s ({runs}: too few for an interval)"
    return (
        f"{_signed(contrast.value)} [{_signed(contrast.low)}, {_signed(contrast.high)}] in s "
        f"({runs})"
    )


def _of_claim(question: str, claim: Claim, tasks: Mapping[str, Sequence[Task]]) -> Answer:
    """From part 2 once all its games have the contrast; until then task by task from part 1, and
    what there is of part 2 beside it."""
    named = summary.results(tasks["minatar"], summary.MINATAR_CLAIMS, family=True)
    minatar = next(result for result in named if result.claim[:2] == claim[:2])
    if minatar.contrast is not None:
        text = f"Over the games of MinAtar, {claim.first} − {claim.second} is "
        return Answer(question, text + effect(minatar) + ".", minatar.verdict)
    found = [
        (task.name, summary.results([task], [claim], family=False)[0])
        for task in tasks["mechanism"]
    ]
    seen = [(name, result) for name, result in found if result.contrast is not None]
    if not seen:
        done = sum(minatar.finished) + sum(sum(result.finished) for _, result in found)
        needed = sum(minatar.planned) + sum(sum(result.planned) for _, result in found)
        text = f"Not answerable at this scale, because {done} of the {needed} runs that it needs "
        return Answer(question, text + "are trained.", summary.UNDECIDED)
    parts = "; ".join(f"{name}: {effect(result)}" for name, result in seen)
    text = f"On tasks whose best discount is known, {claim.first} − {claim.second} is {parts}. "
    text += _of_games(claim, tasks["minatar"], minatar)
    verdicts = {result.verdict for _, result in found}
    verdict = f"{verdicts.pop()} in part 1" if len(verdicts) == 1 else "differs by task"
    return Answer(question, text, verdict)


def _of_games(claim: Claim, games: Sequence[Task], pooled: Result) -> str:
    """What can be said of MinAtar before all its games have runs."""
    of_arms = " and ".join(
        f"{done} of {planned} runs of {arm}"
        for arm, done, planned in zip(claim[:2], pooled.finished, pooled.planned, strict=True)
    )
    text = f"Over the games of MinAtar it is undecided: {of_arms} are there"
    found = [(game.name, summary.results([game], [claim], family=False)[0]) for game in games]
    parts = [f"{name}: {effect(result)}" for name, result in found if result.contrast is not None]
    return f"{text}. Single games, without verdict: {'; '.join(parts)}." if parts else f"{text}."


def _from_selection(tasks: Sequence[Task]) -> str:
    """A-γλ minus F* on the selection seeds, which were also used to choose both."""
    parts = []
    for task in tasks:
        fixed, learned = task.selection.fixed, task.selection.learned
        if fixed is None or learned is None or task.selection.fixed_area is None:
            continue
        areas = [effects.area(record, task.random) for record in task.grid[learned]]
        change = statistics.fmean(areas) - task.selection.fixed_area
        if span := task.selection.fixed_area - task.random:
            parts.append(f"{task.name} {_signed(change / span)}")
    if not parts:
        return ""
    return (
        " On the selection seeds, by which both were chosen, the best learned agent minus F* is in "
        f"s (3 runs each): {', '.join(parts)}."
    )


def _of_variants(question: str, variants: Sequence[str], tasks: Sequence[Task]) -> Answer:
    """From part 4: mean areas of A and of some variants, in the units of each task."""
    parts = []
    done = needed = 0
    for task in tasks:
        for name in ("A", *variants):
            done += len(task.arms[name].records)
            needed += task.arms[name].planned
        found = [(name, above_on_same_seeds(task, name, "A")) for name in variants]
        above = {name: value for name, value in found if value is not None}
        if len(above) == len(variants):
            base = number(statistics.fmean(task.arms["A"].areas.values()))
            labels = design.variant_labels(task.part.suite)
            differences = ", ".join(
                f"{labels[name]} {_signed(value)}" for name, value in above.items()
            )
            parts.append(f"{task.name}: {base}; {differences}")
    if not parts:
        text = f"Not answerable at this scale, because {done} of the {needed} runs of part 4 that "
        return Answer(question, text + "it needs are trained.", summary.UNDECIDED)
    text = f"Mean return over the run of {design.variant_labels(tasks[0].part.suite)['A']}, and by "
    text += f"how much others differ on the same seeds. {'. '.join(parts)} "
    text += f"({done} of {needed} runs, at most 3 "
    return Answer(question, text + "seeds: too few for a verdict).", summary.UNDECIDED)


def above_on_same_seeds(task: Task, name: str, base: str) -> float | None:
    """How far the mean area of a variant lies above that of another; None without a common seed."""
    ours, theirs = task.arms[name].areas, task.arms[base].areas
    common = ours.keys() & theirs.keys()
    return statistics.fmean(ours[seed] - theirs[seed] for seed in common) if common else None


def _worse(question: str, tasks: Mapping[str, Sequence[Task]]) -> Answer:
    """The task in which A-γλ is worst against F*, and where γ ends there."""
    claim = Claim(design.LEARNED, design.BEST, "")
    worst = None
    for task in (*tasks["mechanism"], *tasks["minatar"]):
        contrast = summary.contrast_of(claim, [task])
        ending = summary.ending(summary.learned_records(task))
        if contrast is None or ending is None:
            continue
        if worst is None or contrast.value < worst[0]:
            worst = contrast.value, task, ending.gamma[0]
    if worst is None:
        text = "Not answerable at this scale, because no task has two runs each of A-γλ and F*."
        return Answer(question, text, summary.UNDECIDED)
    value, task, gamma = worst
    best = str(task.selection.fixed).removeprefix("F_")
    is_behind = "is furthest behind F* in"
    if value >= 0.0:
        is_behind = "is behind F* in no task that has runs of both; it is least ahead in"
    text = (
        f"A-γλ {is_behind} {task.name} ({_signed(value)} in s): γ ends at {gamma:.4f} (median), "
        f"the best constant of the grid is {best}."
    )
    return Answer(question, text, summary.UNDECIDED)


def answers(tasks: Mapping[str, Sequence[Task]]) -> list[Answer]:
    """All nine.

    Args:
      tasks: by part.
    """
    learned, further = design.LEARNED, tasks["further"]
    second = _of_claim(
        "2. Is adapting better than the best fixed γ of each game?",
        Claim(learned, design.BEST, ""),
        tasks,
    )
    return [
        _of_claim(
            "1. Is the gain from adapting η, or from learning at several η at once?",
            Claim(learned, design.MIXTURE, ""),
            tasks,
        ),
        second._replace(
            text=second.text + _from_selection((*tasks["mechanism"], *tasks["minatar"]))
        ),
        _of_variants(
            "3. Should the meta-gradient go through the returns only?",
            ("paths_embedding", "paths_weights"),
            further,
        ),
        _of_variants(
            "4. Should J' hold the policy-gradient term only?",
            ("objective_value", "objective_all"),
            further,
        ),
        _of_variants(
            "5. Which γ' should J' use?",
            ("reference_0.99", "reference_0.999", "reference_current"),
            further,
        ),
        _of_variants("6. Does μ matter?", ("trace_0.5", "trace_0.9"), further),
        _worse("7. Why do some games get worse?", tasks),
        Answer(
            "8. Is another way of adapting better at equal cost (population based training, HOOF)?",
            "Not answerable at this scale, because a population of 8 at equal frames gives each "
            "member 1/8 of them: 0 runs of it are part of the study (suites/population.toml is "
            "there for it).",
            summary.UNDECIDED,
        ),
        Answer(
            "9. Can discrete hyper-parameters be learned (n of n-step returns)?",
            "Not answerable at this scale, because the method differentiates the return: 0 "
            "discrete hyper-parameters are among the rows of η; λ stands in for n.",
            "",
        ),
    ]
