"""The design of the study as data: parts, tasks, arms, seeds; and what the selection chose.

The settings of the variants are in the suites `study_*.toml`. An arm is a name of the report; which
variant it is depends, for some, on the selection: F* is the F(γ) with the largest area over the
selection seeds. Everything is recomputed from the records, so that running and reporting agree.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meta_impala.errors import UserError
from meta_impala.storage.files import read_bounded
from meta_impala.study import effects
from meta_impala.study.records import RANDOM, Record

BEST, BEST_OVERALL, F99, F9 = "F*", "F**", "F(.99)", "F(.9)"
LEARNED, REFERENCE, LEARNED_9 = "A-γλ", "A-ref", "A-.9"
PILOT = "F_0.99"
MIXTURE, YOKED, CONSTANT, LINEAR, SHUFFLED, RIGHT = "M", "Y", "C", "L", "S", "R"

LABELS = {
    BEST: "the best fixed γ of the task, by the selection seeds",
    BEST_OVERALL: "the best single fixed γ over all tasks",
    F99: "γ .99, λ 1, fixed",
    F9: "γ .9, λ 1, fixed",
    LEARNED: "learned {γ, λ} from .99 (the paper's form)",
    REFERENCE: "as A-γλ, but J' has a second value head, trained at γ'",
    LEARNED_9: "learned {γ, λ}, both from .9",
    MIXTURE: "a γ of the grid for every unroll, no meta-gradient; plays at that of F*",
    YOKED: "γ(t), λ(t) of the A-γλ run of the next seed",
    CONSTANT: "the median of the final η of the A-γλ runs of the other seeds, fixed",
    LINEAR: "γ from .99 to .997, linear in frames, λ 1",
    SHUFFLED: "Y with its values shuffled in time",
    RIGHT: "the right γ of each phase (0, then .99), λ 1: the acceptance test of the task",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the study.

    Attributes:
      name: of its folder, and in the data.
      suite: name of its suite file.
      tasks: in order.
      arms: in the order in which a seed is run; Y, S and C need the A-γλ runs of other seeds.
      seeds: of the confirmation.
      selection_seeds: used for nothing else; empty if nothing is selected.
      pilot_seeds: F(.99) alone, before anything else: does the agent learn the task at all?
      gammas, betas: the grids of the selection, of F(γ) and of β of A-γλ.
      task_settings: what differs from the suite's settings, by task.
    """

    name: str
    title: str
    suite: str
    tasks: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    selection_seeds: tuple[int, ...] = ()
    gammas: tuple[str, ...] = ()
    betas: tuple[str, ...] = ()
    pilot_seeds: tuple[int, ...] = ()
    task_settings: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    @property
    def grid(self) -> tuple[str, ...]:
        """The variants of the selection."""
        return (*(f"F_{gamma}" for gamma in self.gammas), *(f"A_{beta}" for beta in self.betas))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of all its runs."""
        return (*self.pilot_seeds, *self.selection_seeds, *self.seeds)

    def arms_of(self, task: str) -> tuple[str, ...]:
        """The arms that this task has."""
        only_switching = (SHUFFLED, RIGHT)
        return tuple(a for a in self.arms if task == "Switching" or a not in only_switching)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """The seeds of an arm; the acceptance test of Switching has ten."""
        return self.seeds[:10] if arm == RIGHT else self.seeds


MECHANISM = Part(
    "mechanism",
    "Part 1: tasks whose best discount is known",
    "study_mechanism",
    ("Patience", "Noise", "Switching"),
    (LEARNED, BEST, F99, REFERENCE, MIXTURE, LINEAR, RIGHT, YOKED, CONSTANT, SHUFFLED),
    tuple(range(11, 31)),
    (1, 2, 3),
    ("0", "0.5", "0.9", "0.99", "0.995"),
    ("0.003", "0.01", "0.03", "0.1", "0.3"),
    # Its phases change after 102,400 frames of 16 environments.
    task_settings={
        "Switching": {"total_frames": 204_800, "evaluation_frames": 10_240, "log_frames": 3_200}
    },
)
MINATAR = Part(
    "minatar",
    "Part 2: MinAtar",
    "study_minatar",
    tuple(f"MinAtar/{g}" for g in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")),
    (LEARNED, BEST, BEST_OVERALL, F99, REFERENCE, LEARNED_9, F9, MIXTURE, YOKED, CONSTANT),
    tuple(range(11, 21)),
    (1, 2, 3),
    ("0.9", "0.95", "0.99", "0.995", "0.999"),
    ("0.0003", "0.001", "0.003", "0.01", "0.03"),
    (0,),
)
ATARI = Part(
    "atari",
    "Part 3: Atari, descriptive",
    "study_atari",
    ("Breakout", "Assault", "KungFuMaster", "UpNDown"),
    ("F_0.99", "F_0.995", "A"),
    (11, 12),
)
FURTHER = Part(
    "further",
    "Part 4: further questions",
    "study_further",
    ("Patience", "MinAtar/Breakout"),
    ("A", "reference_0.99", "reference_0.999", "reference_current", "trace_0.5", "trace_0.9",
     "no_embedding", "embedding_heads", "paths_embedding", "paths_weights", "objective_value",
     "objective_all", "meta_batch_4", "meta_batch_16", "data_same", "data_held_out", "per_state"),
    (11, 12, 13),
    task_settings={
        "Patience": {"total_frames": 102_400, "evaluation_frames": 5_120, "log_frames": 1_600,
                     "meta_learning_rate": 0.03},
    },
)  # fmt: skip
_SUITES = pathlib.Path(__file__).parents[1] / "suites"
_MAX_SUITE_BYTES = 2**20


@functools.cache
def variant_labels(suite: str) -> dict[str, str]:
    """What the variants of a suite of the study are, by name."""
    text = read_bounded(_SUITES / f"{suite}.toml", _MAX_SUITE_BYTES).decode("utf-8")
    found = tomllib.loads(text)
    return {variant["name"]: variant["label"] for variant in found["variants"]}


PARTS = {part.name: part for part in (MECHANISM, MINATAR, ATARI, FURTHER)}

# No part of the study: whether Switching is fit for it. Its seeds are used nowhere else.
ACCEPTANCE = Part(
    "acceptance",
    "Acceptance of Switching: every constant against the right γ of each phase",
    "study_mechanism",
    ("Switching",),
    (RIGHT, *(f"F_{gamma}" for gamma in MECHANISM.gammas)),
    tuple(range(101, 111)),
    task_settings=MECHANISM.task_settings,
)
LEAST_LOSS = 0.20


class Selection(NamedTuple):
    """What the selection seeds of a task chose; None while some of their runs are missing."""

    fixed: str | None
    learned: str | None
    fixed_area: float | None


def beta_of(variant: str) -> float:
    """β of a variant `A_β`."""
    return float(variant.rpartition("_")[2])


def selection_areas(
    records: Sequence[Record], part: Part, task: str, random: float
) -> dict[str, list[float]]:
    """Areas of the runs of the selection seeds, by variant; only variants that have them all."""
    areas: dict[str, list[float]] = {}
    for record in records:
        is_ours = record.part == part.name and record.task == task and record.counts
        if is_ours and record.seed in part.selection_seeds:
            areas.setdefault(record.variant, []).append(effects.area(record, random))
    return {name: of for name, of in areas.items() if len(of) == len(part.selection_seeds)}


def select(records: Sequence[Record], part: Part, task: str, random: float) -> Selection:
    """Chooses γ of F* and β of the learned arms.

    Args:
      records: of all parts.
      part, task: of the choice.
      random: the score of random actions.
    """
    areas = selection_areas(records, part, task, random)

    def best(letter: str) -> str | None:
        names = [name for name in part.grid if name[0] == letter]
        if not names or any(name not in areas for name in names):
            return None
        return max(names, key=lambda name: statistics.fmean(areas[name]))

    fixed = best("F")
    area = None if fixed is None else statistics.fmean(areas[fixed])
    return Selection(fixed, best("A"), area)


def require_random(part: Part, random: Mapping[str, float]) -> None:
    """Checks that every task has the score of random actions, which its areas begin with.

    Raises:
      UserError: if a task has none.
    """
    if missing := [task for task in part.tasks if task not in random]:
        raise UserError(
            f"{RANDOM}: has no score of {', '.join(missing)}; tools/study.py random measures it"
        )


def best_overall(records: Sequence[Record], part: Part, random: Mapping[str, float]) -> str | None:
    """The variant F** of a part: the largest mean over tasks of s over the selection seeds."""
    names = [f"F_{gamma}" for gamma in part.gammas]
    total = dict.fromkeys(names, 0.0)
    for task in part.tasks:
        chosen = select(records, part, task, random[task])
        if chosen.fixed_area is None:
            return None
        areas = selection_areas(records, part, task, random[task])
        span = chosen.fixed_area - random[task]
        if not span:  # no constant is better than random actions, so the task tells nothing
            continue
        for name in names:
            total[name] += (statistics.fmean(areas[name]) - random[task]) / span
    return max(names, key=lambda name: total[name])


def variant_of(arm: str, chosen: Selection, overall: str | None) -> str | None:
    """The variant of an arm in a task; None until the selection has chosen it."""
    if arm in (F99, F9):
        return "F_0.99" if arm == F99 else "F_0.9"
    if arm == BEST:
        return chosen.fixed
    if arm == BEST_OVERALL:
        return overall
    if arm == MIXTURE:
        return None if chosen.fixed is None else f"M_{chosen.fixed.removeprefix('F_')}"
    if arm in (LEARNED, REFERENCE, LEARNED_9):
        if chosen.learned is None:
            return None
        beta = chosen.learned.removeprefix("A_")
        return {LEARNED: f"A_{beta}", REFERENCE: f"A_ref_{beta}"}.get(arm, f"A_from_0.9_{beta}")
    return arm


def variants_of(part: Part) -> set[str]:
    """The variants that runs of a part can have, whatever is selected."""
    pilots = {PILOT} if part.pilot_seeds else set()
    fixed: list[str | None] = [f"F_{gamma}" for gamma in part.gammas] or [None]
    learned: list[str | None] = [f"A_{beta}" for beta in part.betas] or [None]
    names = {
        variant_of(arm, Selection(constant, rate, None), constant)
        for arm in part.arms
        for constant in fixed
        for rate in learned
    }
    return {*part.grid, *pilots, *filter(None, names)}
