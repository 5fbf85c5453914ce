"""The progress of the runs of a suite, read from their folders alone."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from meta_impala import config as config_lib
from meta_impala.evaluation.record import DEFAULT_MAX_EPISODE_FRAMES, games_played, own_limit
from meta_impala.experiments import pbt_settings
from meta_impala.experiments.suite import Run
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.json_files import read_json_object
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust

_MAX_EVALUATION_BYTES = 2**24


class Stage(enum.Enum):
    """Progress of a run."""

    NEW = "not started"
    STARTED = "unfinished"
    TRAINED = "trained, not evaluated"
    DONE = "finished"


def frames_of(run: Run) -> int:
    """Frames trained, according to its folder; of a population under way by all its members."""
    folders = _members(run) if _is_population_under_way(run) else [run.folder]
    frames = [folder.read_status().get("frames", 0) for folder in folders]
    return sum(count for count in frames if isinstance(count, int))


def _is_population_under_way(run: Run) -> bool:
    """Its own folder becomes a run only at the end."""
    return bool(run.variant.population) and not run.folder.has_run() and bool(_members(run))


def _members(run: Run) -> list[RunFolder]:
    return [RunFolder(path) for path in sorted(run.folder.members.glob("member_*"))]


def settings_changed(run: Run) -> str:
    """How the saved settings of a run differ from those of the suite; empty if they do not.

    A suite, its preset or --set may have been changed since the run was started. Members of a
    population change settings, so it is compared with its record; those of older versions have none
    and are not checked.

    Raises:
      UserError: if its config or its record cannot be read.
    """
    if run.population is not None:
        if run.folder.has_run() and not run.folder.has_population():
            return f"{run.name} was trained as a run of its own, not as a population"
        changes = pbt_settings.changes(run.folder.members, run.population, run.config)
    elif run.folder.has_run():
        # Nothing is imported here: the names are only compared.
        saved = run.folder.load_config(Trust(everything=True))
        changes = ", ".join(config_lib.differences(saved, run.config))
    else:
        changes = ""
    return f"{run.name} was trained with other settings: {changes}" if changes else ""


def is_trained(run: Run) -> bool:
    """Whether a run has come to its end."""
    is_finished = run.folder.read_status().get("state") == run_folder_lib.FINISHED
    return is_finished and frames_of(run) >= run.config.total_frames


def stage_of(run: Run, evaluation: Mapping[str, int]) -> Stage:
    """Progress of a run, according to its folder."""
    if _is_population_under_way(run):
        return Stage.STARTED
    if not run.folder.has_run():
        return Stage.NEW
    if not is_trained(run):
        return Stage.STARTED
    status = run.folder.read_status()
    try:
        evaluated = read_json_object(run.folder.evaluation_path, _MAX_EVALUATION_BYTES)
        seed, played = evaluation.get("seed"), games_played(evaluated)
        is_evaluated = (
            # The frames of a population are those of all members; one of them is evaluated.
            evaluated["frames_trained"] == status.get("frames_of_best", status["frames"])
            and played >= evaluation["episodes"]
            and evaluated["starts"] == "noop"
            and evaluated["eta_is_from"] == "checkpoint"
            and (evaluated.get("seed", seed) == seed or played > evaluation["episodes"])
            and _has_whole_games(run, evaluated)
        )
    except (OSError, ValueError, KeyError, TypeError):
        is_evaluated = False
    return Stage.DONE if is_evaluated else Stage.TRAINED


def _has_whole_games(run: Run, evaluated: Mapping[str, Any]) -> bool:
    """Whether the games of an evaluation were not cut before the limit of the environment."""
    limit = evaluated.get("max_episode_frames")  # null: that of the environment
    if limit is None:
        return True
    own = own_limit(run.config.environment, run.config.environment_arguments)
    return bool(limit == (own or DEFAULT_MAX_EPISODE_FRAMES))
