"""From the records of the study to its numbers: arms, contrasts, verdicts, and what is missing."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meta_impala.study import design, effects
from meta_impala.study.design import Part, Selection
from meta_impala.study.effects import Contrast
from meta_impala.study.records import Record

CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


class Claim(NamedTuple):
    """A contrast of the study: the first arm is better than the second."""

    first: str
    second: str
    meaning: str


MECHANISM_CLAIMS = (
    Claim(design.LEARNED, design.BEST, "learning beats the best fixed γ"),
    Claim(design.LEARNED, design.F99, "learning beats its own start"),
    Claim(design.LEARNED, design.YOKED, "what counts is adapting to this run (contingency)"),
    Claim(design.YOKED, design.CONSTANT, "what counts is the shape of the schedule"),
    Claim(design.CONSTANT, design.F99, "what counts is the value that was found"),
    Claim(design.LEARNED, design.MIXTURE, "learning beats multi-task training"),
    Claim(design.LEARNED, design.LINEAR, "learning beats a straight line"),
    Claim(design.REFERENCE, design.LEARNED, "a critic trained at γ' helps J'"),
    Claim(design.YOKED, design.SHUFFLED, "the order of the values in time counts"),
)
MINATAR_CLAIMS = (
    Claim(design.LEARNED, design.BEST, "learning beats the best fixed γ of each game"),
    Claim(design.LEARNED, design.BEST_OVERALL, "learning beats the best single fixed γ"),
    Claim(design.LEARNED, design.YOKED, "what counts is adapting to this run (contingency)"),
    Claim(design.LEARNED, design.MIXTURE, "learning beats multi-task training"),
    Claim(design.LEARNED_9, design.F9, "learning corrects an untuned start"),
)
CLAIMS = {design.MECHANISM.name: MECHANISM_CLAIMS, design.MINATAR.name: MINATAR_CLAIMS}


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm in a task.

    Attributes:
      name, variant: of the design; `variant` is None as long as the selection has not chosen it.
      planned: number of seeds.
      records: of the confirmation seeds, by seed; results only.
      areas: of these.
      s: of these; empty as long as F* is not known.
    """

    name: str
    variant: str | None
    planned: int
    records: Mapping[int, Record]
    areas: Mapping[int, float]
    s: Mapping[int, float]

    @property
    def is_complete(self) -> bool:
        """Whether all seeds have a result."""
        return len(self.records) == self.planned


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of a part: pilots, selection (runs by variant of the grid) and arms."""

    part: Part
    name: str
    random: float
    selection: Selection
    grid: Mapping[str, Sequence[Record]]
    pilots: Sequence[Record]
    arms: Mapping[str, Arm]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The named contrasts whose arms this task has."""
        claims = CLAIMS.get(self.part.name, ())
        return tuple(c for c in claims if c.first in self.arms and c.second in self.arms)


class Result(NamedTuple):
    """A claim, its contrast (None below two runs of each arm) and the verdict.

    `p` is adjusted by Holm where several claims share one family.
    """

    claim: Claim
    contrast: Contrast | None
    p: float | None
    verdict: str
    finished: tuple[int, int]
    planned: tuple[int, int]


def tasks_of(
    records: Sequence[Record],
    part: Part,
    random: Mapping[str, float],
) -> list[Task]:
    """The tasks of a part.

    Args:
      records: of all parts.
      part: of the study.
      random: score of random actions by task; without one it is 0.
    """
    overall = None
    if design.BEST_OVERALL in part.arms:
        overall = design.best_overall(records, part, random)
    return [_task(records, part, name, random.get(name, 0.0), overall) for name in part.tasks]


def _task(
    records: Sequence[Record],
    part: Part,
    name: str,
    random: float,
    overall: str | None,
) -> Task:
    ours = [r for r in records if (r.part, r.task) == (part.name, name) and r.counts]
    chosen = Selection(None, None, None)
    if part.selection_seeds:
        chosen = design.select(records, part, name, random)
    arms = {}
    for arm in part.arms_of(name):
        variant = design.variant_of(arm, chosen, overall) if part.selection_seeds else arm
        seeds = part.seeds_of(arm)
        found = {r.seed: r for r in ours if r.variant == variant and r.seed in seeds}
        areas = {seed: effects.area(found[seed], random) for seed in sorted(found)}
        s = {}
        span = 0.0 if chosen.fixed_area is None else chosen.fixed_area - random
        if span:  # else no constant is better than random actions
            s = {seed: (area - random) / span for seed, area in areas.items()}
        arms[arm] = Arm(arm, variant, len(seeds), found, areas, s)
    tried = {
        variant: [r for r in ours if r.variant == variant and r.seed in part.selection_seeds]
        for variant in part.grid
    }
    pilots = [r for r in ours if r.variant == design.PILOT and r.seed in part.pilot_seeds]
    return Task(part, name, random, chosen, tried, pilots, arms)


def _paired(claim: Claim, task: Task) -> tuple[np.ndarray, np.ndarray] | None:
    """s of donors and of the runs that are yoked to them, by donor pair; None for other claims."""
    if (claim.first, claim.second) != (design.LEARNED, design.YOKED):
        return None
    donors, yoked = task.arms[claim.first].s, task.arms[claim.second].s
    seeds = task.part.seeds
    pairs = [
        (donors[donor], yoked[seed])
        for seed in yoked
        if (donor := seeds[(seeds.index(seed) + 1) % len(seeds)]) in donors
    ]
    columns = np.array(pairs, np.float64).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def contrast_of(claim: Claim, tasks: Sequence[Task]) -> Contrast | None:
    """The contrast of a claim over tasks; None unless every task has two runs of each arm."""
    first, second, is_paired = {}, {}, False
    for task in tasks:
        pair = _paired(claim, task)
        if pair is not None:
            is_paired = True
            first[task.name], second[task.name] = pair
        else:
            first[task.name] = np.array(list(task.arms[claim.first].s.values()))
            second[task.name] = np.array(list(task.arms[claim.second].s.values()))
    if not tasks or any(len(v) < 2 for v in (*first.values(), *second.values())):
        return None
    return effects.contrast(first, second, is_paired)


def results(tasks: Sequence[Task], claims: Sequence[Claim], family: bool) -> list[Result]:
    """Contrasts and verdicts of several claims over the same tasks.

    Args:
      tasks: over which a claim is tested.
      claims: in order.
      family: p values are adjusted by Holm over these claims.
    """
    contrasts = [contrast_of(claim, tasks) for claim in claims]
    adjusted: list[float | None] = [c.p if c else None for c in contrasts]
    if family:  # one that is not there yet has p = 1, the largest it can have
        every = effects.holm([1.0 if p is None else p for p in adjusted])
        adjusted = [p if c else None for c, p in zip(contrasts, every, strict=True)]
    found = []
    for claim, contrast, p in zip(claims, contrasts, adjusted, strict=True):
        pairs = [(task.arms[claim.first], task.arms[claim.second]) for task in tasks]
        finished = tuple(sum(len(pair[i].records) for pair in pairs) for i in (0, 1))
        planned = tuple(sum(pair[i].planned for pair in pairs) for i in (0, 1))
        is_complete = finished == planned and all(_same_size(*pair) for pair in pairs)
        found.append(
            Result(
                claim, contrast, p, verdict(contrast, p, is_complete),
                (finished[0], finished[1]), (planned[0], planned[1]),
            )
        )  # fmt: skip
    return found


def _same_size(first: Arm, second: Arm) -> bool:
    return first.is_complete and second.is_complete


def verdict(contrast: Contrast | None, p: float | None, is_complete: bool) -> str:
    """Confirmed, refuted or undecided. Without all planned runs it is always undecided."""
    if contrast is None or p is None or not (is_complete and contrast.has_interval):
        return UNDECIDED
    if p < 0.05:
        return CONFIRMED if contrast.value > 0.0 else REFUTED
    return REFUTED if contrast.is_equivalent else UNDECIDED


class Ending(NamedTuple):
    """Where γ and λ of the A-γλ runs of a task end: median, least and largest."""

    runs: int
    gamma: tuple[float, float, float]
    lambda_: tuple[float, float, float]


def learned_records(task: Task) -> list[Record]:
    """The learned runs of the chosen β: confirmation and selection seeds."""
    name = design.LEARNED if design.LEARNED in task.arms else "A"
    arm = task.arms.get(name)
    found = list(arm.records.values()) if arm else []
    if task.selection.learned:
        found += [*task.grid.get(task.selection.learned, ())]
    return [record for record in found if record.points]


def tried_records(task: Task) -> list[Record]:
    """The learned runs of the selection, of every β."""
    return [r for name, of in task.grid.items() if name[0] == "A" for r in of if r.points]


def ending(found: Sequence[Record]) -> Ending | None:
    """Of the last evaluation of each run; None without runs."""
    if not found:
        return None

    def spread(values: list[float]) -> tuple[float, float, float]:
        return statistics.median(values), min(values), max(values)

    return Ending(
        len(found),
        spread([record.points[-1].gamma for record in found]),
        spread([record.points[-1].lambda_ for record in found]),
    )


class LossToRight(NamedTuple):
    """What F* loses in Switching to the right γ in each phase.

    `loss` is of the mean area, `loss_above_random` of the mean area above that of random actions.
    """

    loss: float
    loss_above_random: float
    constant: str
    runs: tuple[int, int]
    is_complete: bool


def loss_to_right(task: Task) -> LossToRight | None:
    """F* against R on the seeds of R; None without runs, or if R has no area that could be lost.

    This is not the acceptance test of the task (`acceptance`), which has seeds of its own.
    """
    right, best = task.arms.get(design.RIGHT), task.arms[design.BEST]
    seeds = task.part.seeds_of(design.RIGHT)
    constants = [area for seed, area in best.areas.items() if seed in seeds]
    if best.variant is None and task.selection.fixed is None:
        return None
    if right is None or not right.areas or not constants:
        return None
    a, b = statistics.fmean(right.areas.values()), statistics.fmean(constants)
    if a in (0.0, task.random):
        return None
    return LossToRight(
        1.0 - b / a,
        1.0 - (b - task.random) / (a - task.random),
        str(best.variant),
        (len(constants), len(right.areas)),
        len(constants) == len(right.areas) == len(seeds),
    )


def median_cpu(found: Sequence[Record]) -> float | None:
    """Median CPU-seconds of runs whose cost was measured; None without any."""
    costs = [r.cpu_seconds for r in found if r.is_finished and r.cpu_seconds == r.cpu_seconds]
    return statistics.median(costs) if costs else None


class Count(NamedTuple):
    """Runs of a part: results, and how many were planned."""

    finished: int
    planned: int


def selection_count(task: Task) -> Count:
    """Of the selection of a task."""
    seeds = len(task.part.selection_seeds)
    return Count(sum(map(len, task.grid.values())), seeds * len(task.grid))


def confirmation_count(task: Task) -> Count:
    """Of the arms of a task. Arms that are one variant share their runs and are counted twice."""
    return Count(
        sum(len(arm.records) for arm in task.arms.values()),
        sum(arm.planned for arm in task.arms.values()),
    )
