"""What must not be in a folder, or around it, where a run, a population or a result is to be."""

from __future__ import annotations

import os
import pathlib

from meta_impala.errors import UserError
from meta_impala.storage import nearby_runs
from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.results_folder import check_file
from meta_impala.storage.run_folder import RunFolder


def check_for_run(folder: RunFolder, *, override: bool | None = False) -> None:
    """For a run.

    Args:
      folder: of the run.
      override: whether checkpoints may be continued whose settings are lost; None if there is no
        flag that would say so.

    Raises:
      UserError: if the folder is a population's or that of a member, holds checkpoints without
        their settings, or is above or in other runs.
    """
    if folder.has_population():
        raise UserError(
            f"--logdir={folder.path}: holds a population, which only `meta-impala population` "
            "continues; must be a folder of its own"
        )
    _refuse_member(folder)
    if folder.has_run():
        return
    if folder.has_checkpoint() and not override:
        remedy = "restore it, or use another folder"
        if override is not None:
            remedy += ", or give --override to continue them with the settings of this start"
        raise UserError(
            f"--logdir={folder.path}: holds checkpoints, but not their config.json; {remedy}"
        )
    _refuse_runs_around(folder)


def check_for_population(folder: RunFolder) -> None:
    """For a population, whose result takes the place of a run's files.

    Args:
      folder: of the population.

    Raises:
      UserError: if the folder holds a run that no population has made, or is above or in
        other runs.
    """
    is_result = folder.population_path.exists()  # written before its config.json
    is_run = folder.has_run() or (folder.has_checkpoint() and not folder.has_population())
    if is_run and not is_result:
        raise UserError(
            f"--logdir={folder.path}: holds a run, whose files a population would replace; must be "
            "a folder of its own"
        )
    if not folder.has_population():
        _refuse_runs_around(folder)


def check_evaluation_file(path: pathlib.Path, *, of_command: bool = True) -> None:
    """For the file of an evaluation's result, given as `out`.

    Args:
      path: of the file.
      of_command: whether it is a flag; otherwise it is an argument of a function.

    Raises:
      UserError: if it cannot be written, does not end in .json, or is a file of a run's training.
    """
    check_file(path, "out", of_command=of_command, in_run=True)
    in_run = RunFolder(path.parent).has_run() or nearby_runs.holding(path.parent) is not None
    if path.suffix != ".json" or (in_run and not path.name.startswith("evaluation")):
        raise UserError(
            f"{'--' * of_command}out={path}: must end in .json, and begin with evaluation in a "
            "run's folder, where the other names are the training's"
        )


def _population_of(folder: RunFolder) -> pathlib.Path | None:
    """The population that a folder is a member of; None if it is of none."""
    members = RunFolder(os.path.realpath(folder.path.parent)).path
    is_member = members.name == "members" and nearby_runs.is_population(members.parent)
    return members.parent if is_member else None


def _refuse_member(folder: RunFolder) -> None:
    """A member that is trained by itself is no longer where its population left it.

    The population holds the lock of its own folder while it trains its members.
    """
    population = _population_of(folder)
    if population is not None and not is_locked(population):
        raise UserError(
            f"--logdir={folder.path}: is a member of the population {population}, which only "
            "`meta-impala population` continues; must be a folder of its own"
        )


def _refuse_runs_around(folder: RunFolder) -> None:
    """Nothing finds a run below another one, whose checkpoints come and go."""
    above = nearby_runs.holding(folder.path.parent)
    if above is not None and above != _population_of(folder):
        raise UserError(
            f"--logdir={folder.path}: is in the folder of a run ({above}), where no command would "
            "find it; must be a folder of its own"
        )
    if below := nearby_runs.hint(folder.path):
        raise UserError(
            f"--logdir={folder.path}: must be a folder of its own, since no command would find the "
            f"runs below it any more{below}"
        )
