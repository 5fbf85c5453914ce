"""How far the runs of a suite are, read from their folders alone."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping

from meta_impala import config as config_lib
from meta_impala.experiments.suite import Run
from meta_impala.storage import run_folder as run_folder_lib


class Stage(enum.Enum):
    """How far a run is."""

    NEW = "not begun"
    STARTED = "unfinished"
    TRAINED = "trained, not evaluated"
    DONE = "finished"


def frames_of(run: Run) -> int:
    """Frames trained, as its folder says."""
    frames = run.folder.read_status().get("frames", 0)
    return frames if isinstance(frames, int) else 0


def settings_changed(run: Run) -> str:
    """How a run that was begun differs from what the suite says now; empty if it does not.

    The folder alone says how far a run is (`stage_of`), but a suite, its preset or --set may have
    been changed since. A population's settings are in its members' hands.

    Raises:
      UserError: if its config cannot be read.
    """
    if run.variant.population or not run.folder.has_run():
        return ""
    saved = run.folder.load_config()
    names = config_lib.differing(saved, run.config)
    values = [
        f"--{name}={getattr(run.config, config_lib.FIELDS[name].name)} "
        f"(the run has {getattr(saved, config_lib.FIELDS[name].name)})"
        for name in names
    ]
    return f"{run.name} was trained with other settings: {', '.join(values)}" if names else ""


def stage_of(run: Run, evaluation: Mapping[str, int]) -> Stage:
    """How far a run is, as its folder says."""
    if not run.folder.has_run():
        return Stage.NEW
    status = run.folder.read_status()
    is_finished = status.get("state") == run_folder_lib.FINISHED
    if not is_finished or frames_of(run) < run.config.total_frames:
        return Stage.STARTED
    try:
        evaluated = json.loads(run.folder.evaluation_path.read_text(encoding="utf-8"))
        is_evaluated = (
            # The frames of a population are those of all members; one of them is evaluated.
            evaluated["frames_trained"] == status.get("frames_of_best", status["frames"])
            and evaluated["episodes"] >= evaluation["episodes"]
            and evaluated["starts"] == "noop"
            and evaluated["eta_is_from"] == "checkpoint"
        )
    except (OSError, ValueError, KeyError, TypeError):
        is_evaluated = False
    return Stage.DONE if is_evaluated else Stage.TRAINED
