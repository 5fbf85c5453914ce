"""The runs of a part of the study, in order, as far as they can be known.

Some arms depend on other runs: F* and β on the selection, the yoked, constant and shuffled arms on
the A-γλ runs of other seeds. `ready` gives the runs whose inputs are there: runs that have ended,
failed ones too, since these are results. What is missing is given later, when the caller asks
again. No TensorFlow here.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
import re
import statistics
from collections.abc import Container, Iterator, Mapping, Sequence

from meta_impala.errors import UserError, one_line
from meta_impala.experiments import study_schedules
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.stages import Stage, is_trained
from meta_impala.experiments.suite import Run, Suite, Variant
from meta_impala.storage.files import append_line, read_bounded
from meta_impala.storage.results_folder import refuse_links
from meta_impala.storage.run_folder import FAILED, RunFolder
from meta_impala.study import design, records
from meta_impala.study.design import Part, Selection
from meta_impala.study.records import Record

COSTS = "cpu_seconds.csv"
COMMIT = "commit.txt"
_MAX_COSTS_BYTES = 2**24
_SEED = re.compile(r"seed_(0|[1-9][0-9]{0,9})", re.ASCII)


class Cells:
    """The runs of a part in a folder.

    Attributes:
      part: of the study.
      suite: its file.
      out: folder of the part's runs.
    """

    def __init__(
        self,
        part: Part,
        out: pathlib.Path,
        random: Mapping[str, float],
        kept: Sequence[Record] = (),
        only: str = "",
    ) -> None:
        """Args:
        part: of the study.
        out: folder of the part; needs not exist.
        random: score of random actions, by task.
        kept: records of this part whose folders may be gone. What they chose holds, and a run
          that is among them is not made again, unless `only` names it or another run needs its
          folder.
        only: text in the names of the runs that are wanted, not ending within a number; empty for
          all.

        Raises:
          UserError: if the suite cannot be read, or a task of the part has no score of random
            actions.
        """
        self.part, self.out = part, out
        self._path = suite_file.find(part.suite)
        self.suite: Suite = suite_file.read(self._path)
        self._variants = {variant.name: variant for variant in self.suite.variants}
        self._names = design.variants_of(part)
        if part.selection_seeds:
            design.require_random(part, random)
        self._random = random
        self._kept = {_key(record): record for record in kept}
        self._only = only
        self._first_seeds: dict[tuple[object, ...], Run] = {}

    def read(self) -> list[Record]:
        """The records of all runs that were begun, here or as kept; what is here comes first."""
        costs = read_costs(self.out / COSTS)
        commit = read_commit(self.out)
        found = dict(self._kept)
        for folder in self._folders():
            if self._is_of_part(folder):
                record = self._record(folder, costs, commit)
                kept = found.get(_key(record))
                if record.counts or kept is None or not kept.counts:
                    found[_key(record)] = record
        return list(found.values())

    def strangers(self) -> list[pathlib.Path]:
        """Folders of runs among those of the part that are none of its, such as a copy of one."""
        return [folder.path for folder in self._folders() if not self._is_of_part(folder)]

    def _folders(self) -> list[RunFolder]:
        """Folders with a run where those of the part are."""
        found = map(RunFolder, sorted((self.out / "runs").glob("*/*/*")))
        return [folder for folder in found if folder.has_run()]

    def _is_of_part(self, folder: RunFolder) -> bool:
        variant, safe, seed = folder.path.parts[-3:]
        is_task = safe in map(suite_file.folder_name, self.part.tasks)
        number = _SEED.fullmatch(seed)
        is_seed = number is not None and int(number[1]) in self.part.all_seeds
        return variant in self._names and is_task and is_seed

    def _record(self, folder: RunFolder, costs: Mapping[str, float], commit: str) -> Record:
        variant, safe, seed = folder.path.parts[-3:]
        tasks = {suite_file.folder_name(task): task for task in self.part.tasks}
        status = folder.read_status()
        task = tasks[safe]
        settings = {**self.suite.settings, **self.part.task_settings.get(task, {})}
        return Record(
            self.part.name,
            task,
            variant,
            int(seed.removeprefix("seed_")),
            str(status.get("state", "")),
            int(status.get("frames", 0)),
            int(settings["total_frames"]),
            costs.get(f"{variant}.{safe}.{seed}", float("nan")),
            commit,
            records.read_points(folder.path / "evaluations.csv"),
        )

    def selection(self, found: Sequence[Record], task: str) -> Selection:
        """What the selection seeds of a task chose."""
        if not self.part.selection_seeds:
            return Selection(None, None, None)
        return design.select(found, self.part, task, self._random[task])

    def ready(self, *, writes: bool = True, given_up: Container[str] | None = None) -> list[Run]:
        """The wanted runs that can be made now, finished ones included, in the order of the study:
        pilots, selection, all A-γλ runs (others need them), then seed by seed over the arms.

        Args:
          writes: whether the files of schedules that they need are written.
          given_up: names of the failed runs that are not trained again, whose results count; None
            for all that have failed.
        """
        found = [record for record in self.read() if not self._is_tried_again(record, given_up)]
        donors: set[str] = set()
        runs = [
            self._run(self._variants[design.PILOT], task, seed)
            for task in self.part.tasks
            for seed in self.part.pilot_seeds
        ]
        runs += [
            self._run(self._variants[name], task, seed)
            for task in self.part.tasks
            for name in self.part.grid
            for seed in self.part.selection_seeds
        ]
        chosen = {task: self.selection(found, task) for task in self.part.tasks}
        overall = None
        if design.BEST_OVERALL in self.part.arms:
            overall = design.best_overall(found, self.part, self._random)
        by_name: dict[str, Run] = {run.name: run for run in runs}
        for arm, task, seed in self._order():
            donor = self._donor(arm, task, seed, chosen[task].learned)
            if donor is not None and not self._can_be_replayed(donor, given_up):
                if self._is_wanted(task, arm, seed):
                    donors.add(donor.name)
                continue
            variant = self._variant(arm, task, seed, chosen[task], overall, found)
            if variant is None:
                continue
            run = self._run(variant, task, seed)
            by_name.setdefault(run.name, run)
            has_own_file = arm in (design.RIGHT, design.SHUFFLED)
            if writes and has_own_file and self._is_wanted(task, arm, seed):
                study_schedules.write(run, donor)
        return [
            run
            for run in by_name.values()
            if run.name in donors or self._is_wanted(run.game, run.variant.name, run.seed)
        ]

    def _is_tried_again(self, record: Record, given_up: Container[str] | None) -> bool:
        """Whether a run has failed and is going to be trained again: it is no result yet."""
        if given_up is None or record.is_finished or not record.counts:
            return False
        return _name(*_key(record)) not in given_up and self._is_wanted(*_key(record))

    def _can_be_replayed(self, donor: Run, given_up: Container[str] | None) -> bool:
        """Whether a run has come to its end, if only by a failure: its last γ and λ hold then."""
        if stage(donor, {}) is Stage.DONE:
            return True
        kept = self._kept.get((donor.game, donor.variant.name, donor.seed))
        has_failed = donor.folder.read_status().get("state") == FAILED
        is_result = given_up is None or donor.name in given_up
        if not (has_failed and is_result) or (kept is not None and kept.is_finished):
            return False
        return bool(study_schedules.rows_of_eta(donor.folder.metrics_path))

    def _is_wanted(self, task: str, variant: str, seed: int) -> bool:
        if self._only:
            name = _name(task, variant, seed)
            # seed_2 is not seed_20, and F_0 is not F_0.9.
            return re.search(re.escape(self._only) + r"(?!\.?\d)", name) is not None
        kept = self._kept.get((task, variant, seed))
        return kept is None or not kept.counts

    def _donor(self, arm: str, task: str, seed: int, learned: str | None) -> Run | None:
        """The run whose folder a yoked or shuffled run needs; None for other arms."""
        if arm not in (design.YOKED, design.SHUFFLED) or learned is None:
            return None
        return self._run(self._variants[learned], task, donor_of(self.part.seeds, seed))

    def _order(self) -> Iterator[tuple[str, str, int]]:
        first = [arm for arm in self.part.arms if arm == design.LEARNED]
        for seed in self.part.seeds:
            for task in self.part.tasks:
                yield from ((arm, task, seed) for arm in first)
        for seed in self.part.seeds:
            for task in self.part.tasks:
                for arm in self.part.arms_of(task):
                    if arm not in first and seed in self.part.seeds_of(arm):
                        yield arm, task, seed

    def _run(self, variant: Variant, task: str, seed: int) -> Run:
        settings = {**variant.settings, **self.part.task_settings.get(task, {})}
        key = (variant.name, task, tuple(sorted((k, str(v)) for k, v in settings.items())))
        # The seeds of a variant differ in nothing else, and reading flags takes 10 ms.
        if key not in self._first_seeds:
            suite = dataclasses.replace(
                self.suite,
                games=(task,),
                seeds=(seed,),
                variants=(
                    dataclasses.replace(variant, settings={"deterministic": True, **settings}),
                ),
            )
            self._first_seeds[key] = suite_file.expand(suite, self._path, self.out)[0]
        first = self._first_seeds[key]
        return dataclasses.replace(
            first,
            seed=seed,
            folder=RunFolder(first.folder.path.with_name(f"seed_{seed}")),
            arguments=(
                *(a for a in first.arguments if not a.startswith("--seed=")),
                f"--seed={seed}",
            ),
            config=dataclasses.replace(first.config, seed=seed),
        )

    def _variant(
        self,
        arm: str,
        task: str,
        seed: int,
        chosen: Selection,
        overall: str | None,
        found: Sequence[Record],
    ) -> Variant | None:
        """The variant of an arm and a seed; None as long as what it needs is not finished."""
        name = design.variant_of(arm, chosen, overall)
        if name is None:
            return None
        if name in self._variants:
            return self._variants[name]
        if arm in (design.REFERENCE, design.LEARNED_9):
            base = self._variants[name.rpartition("_")[0]]
            return _with(base, name, meta_learning_rate=design.beta_of(name))
        if arm == design.MIXTURE:
            gamma = name.removeprefix("M_")
            return _with(self._variants["M"], name, evaluation_eta=f"{gamma},1")
        if arm == design.RIGHT:
            return self._replay(name, self._schedule_path(arm, task, "schedule"))
        if chosen.learned is None:
            return None
        return self._derived(arm, task, seed, chosen.learned, found)

    def _derived(
        self, arm: str, task: str, seed: int, learned: str, found: Sequence[Record]
    ) -> Variant | None:
        """Y, C and S: from the A-γλ runs of other seeds."""
        if arm == design.CONSTANT:
            donors = {
                record.seed: record
                for record in found
                if (record.task, record.variant) == (task, learned) and record.counts
            }
            others = [donors[n] for n in self.part.seeds if n != seed and n in donors]
            ends = [other.points[-1] for other in others if other.points]  # one may have failed
            if len(others) < len(self.part.seeds) - 1 or not ends:
                return None
            # Rounded as the data are, so that a run can be repeated from these.
            gamma = records.rounded(statistics.median(end.gamma for end in ends))
            lambda_ = records.rounded(statistics.median(end.lambda_ for end in ends))
            settings = {"eta_schedule": "fixed", "gamma": gamma, "lambda": lambda_}
            return Variant(design.CONSTANT, "constant", settings)
        donor = self._donor(arm, task, seed, learned)
        if donor is None:
            return None
        if arm == design.YOKED:
            return self._replay(arm, donor.folder.metrics_path)
        return self._replay(arm, self._schedule_path(arm, task, f"seed_{seed}"))

    def _replay(self, name: str, path: pathlib.Path) -> Variant:
        return Variant(
            name, name, {"eta_schedule": "replay", "eta_schedule_file": str(path), "gamma": 0.99}
        )

    def _schedule_path(self, arm: str, task: str, name: str) -> pathlib.Path:
        folder = self.out / "derived" / arm / suite_file.folder_name(task)
        refuse_links(folder, self.out)
        return folder / f"{name}.csv"


def _key(record: Record) -> tuple[str, str, int]:
    return record.task, record.variant, record.seed


def _name(task: str, variant: str, seed: int) -> str:
    """As `Run.name`."""
    return f"{variant}.{suite_file.folder_name(task)}.seed_{seed}"


def _with(base: Variant, name: str, **settings: object) -> Variant:
    return dataclasses.replace(base, name=name, settings={**base.settings, **settings})


def donor_of(seeds: Sequence[int], seed: int) -> int:
    """The seed whose A-γλ run a yoked run replays: the next one, cyclic."""
    return seeds[(seeds.index(seed) + 1) % len(seeds)]


def stage(run: Run, _: Mapping[str, int]) -> Stage:
    """Progress of a run of the study. Its score is its evaluations while training, so a run that
    is trained is finished."""
    if not run.folder.has_run():
        return Stage.NEW
    return Stage.DONE if is_trained(run) else Stage.STARTED


def read_commit(out: pathlib.Path) -> str:
    """The commit that the runs of a folder are trained at; empty if it is not written there."""
    try:
        return read_bounded(out / COMMIT, 1000).decode("utf-8").strip()
    except (OSError, ValueError):
        return ""


def read_costs(path: pathlib.Path) -> dict[str, float]:
    """CPU-seconds by name of the run; those of a run that was continued are added.

    A line that a kill tore is left out: it has no end, or another one was begun after it.
    """
    costs: dict[str, float] = {}
    try:
        text = read_bounded(path, _MAX_COSTS_BYTES).decode("utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        for name, seconds in csv.reader(line for line in lines if not _is_torn(line)):
            costs[name] = costs.get(name, 0.0) + float(seconds)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: is damaged ({one_line(error)})") from None
    return costs


def _is_torn(line: str) -> bool:
    """Whether a line of costs ends before its number."""
    return line.find(",", line.rfind('"') + 1) in (-1, len(line) - 1)


def add_cost(path: pathlib.Path, name: str, seconds: float) -> None:
    """Appends what a run has cost."""
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow([name, f"{seconds:.2f}"])
    append_line(path, row.getvalue())
