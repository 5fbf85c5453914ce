"""Runs a part of the study to its end, or until it is stopped; continues where it was.

Every run is the ordinary training command. Nothing is kept but the run folders, what each run has
cost in CPU-seconds, and the commit that all runs of a part are trained at.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from meta_impala.errors import UserError, one_line
from meta_impala.experiments import study_runs, suite_runner
from meta_impala.experiments.forked_process import starting_here
from meta_impala.experiments.stages import Stage
from meta_impala.experiments.study_runs import Cells
from meta_impala.experiments.suite import Run
from meta_impala.experiments.suite_runner import Process, SuiteRunner
from meta_impala.storage.files import make_folder, read_bounded, write_atomically
from meta_impala.system.signals import StopRequest

# An instance of it counts its steps, and a new one begins with the first phase again.
_NEVER_RESUMED = ("Switching",)


def pin_commit(out: pathlib.Path) -> str:
    """Writes down the commit of the code beside the runs, or checks that it is still the same.

    Raises:
      UserError: if the runs there were made at another commit, or the code was changed.
    """
    here = pathlib.Path(__file__).parent
    try:
        commit = git(here, "rev-parse", "HEAD")
        is_changed = bool(git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        raise UserError("the study is run from a git clone, so that its commit is known") from None
    if is_changed:
        raise UserError("the code differs from its commit; the study is run from a clean clone")
    path = out / study_runs.COMMIT
    try:
        make_folder(out, parents=True)
        if not path.exists():
            write_atomically(path, f"{commit}\n")
        pinned = read_bounded(path, 1000).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be used ({one_line(error)})") from None
    if pinned != commit:
        raise UserError(f"--out={out}: its runs were made at {pinned}; this is {commit}")
    return commit


def commit_of(out: pathlib.Path) -> str:
    """The commit of the runs in a folder, or of this code if it has none; empty if unknown."""
    if commit := study_runs.read_commit(out):
        return commit
    try:
        return git(pathlib.Path(__file__).parent, "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return ""


def git(folder: pathlib.Path, *arguments: str) -> str:
    """Output of a git command in a folder."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def open_runs(runs: Sequence[Run]) -> list[Run]:
    """Those that are not finished."""
    return [run for run in runs if study_runs.stage(run, {}) is not Stage.DONE]


def run_part(cells: Cells, parallel: int, stop: StopRequest) -> dict[str, str]:
    """Runs what can be run, derives what depends on it, and so on.

    Args:
      cells: of the part.
      parallel: runs at a time.
      stop: set when the user asks to stop.

    Returns:
      The reason of each run that failed.
    """
    failed: dict[str, str] = {}
    suite_runner.check_places(cells.out, ())  # of its logs, before there are any
    with suite_runner.locked(cells.out), starting_here(cells.part.tasks, cells.out) as start:
        while not stop.is_set():
            left = [
                run for run in open_runs(cells.ready(given_up=failed)) if run.name not in failed
            ]
            if not left:
                break
            suite_runner.check_places(cells.out, left)
            _begin_anew(cells.out, left)
            runner = SuiteRunner(
                left,
                cells.suite.evaluation,
                cells.out,
                parallel,
                stop,
                start=start,
                stage=study_runs.stage,
                ended=lambda run, process: _note_cost(cells.out, run, process),
                evaluates=False,
            )
            runner.run()
            failed |= runner.failed
    return failed


def _begin_anew(out: pathlib.Path, runs: Sequence[Run]) -> None:
    costs = out / study_runs.COSTS
    for run in runs:
        unfinished = study_runs.stage(run, {}) is Stage.STARTED
        if run.game in _NEVER_RESUMED and unfinished and not suite_runner.busy_elsewhere(run):
            shutil.rmtree(run.folder.path)
            # What it has cost so far is not a part of what the new attempt costs.
            if spent := study_runs.read_costs(costs).get(run.name):
                study_runs.add_cost(costs, run.name, -spent)


def _note_cost(out: pathlib.Path, run: Run, process: Process) -> None:
    seconds = getattr(process, "cpu_seconds", None)  # of a fork only
    if seconds is not None:
        study_runs.add_cost(out / study_runs.COSTS, run.name, seconds)
