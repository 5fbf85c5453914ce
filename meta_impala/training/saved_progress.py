"""What a trainer saves beside its variables, checked when a run continues.

The digests of a checkpoint show that it was not changed, not who made it: the manifest of a foreign
folder may hold any JSON.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from meta_impala.errors import UserError
from meta_impala.storage.checkpoint import Saved
from meta_impala.storage.run_folder import RunFolder

_MAX_COUNT = 2**63
_MAX_GAMES = 100_000


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_number(value: Any) -> bool:
    """Any float, NaN too, or an int that fits into one."""
    return isinstance(value, float) or (type(value) is int and abs(value) < _MAX_COUNT)


def _is_duration(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0


def _is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) <= _MAX_GAMES and all(map(check, value))
    )


def _is_numbers_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


# Of `MetricsWindow.state`.
_WINDOW: dict[str, Callable[[Any], bool]] = {
    "seconds": _is_duration,
    "cpu_seconds": _is_duration,
    "returns": _is_list_of(_is_number),
    "lengths": _is_list_of(_is_count),
    "episodes": _is_count,
    "bad_updates": _is_count,
    "updates": _is_count,
    "applied": _is_count,
    "meta_known": _is_count,
    "lags": _is_number,
    "fills": _is_number,
    "sums": _is_numbers_by_name,
    "last": _is_numbers_by_name,
}


def _is_window(value: Any) -> bool:
    return isinstance(value, dict) and _wrong(value, _WINDOW) is None


_PROGRESS: dict[str, Callable[[Any], bool]] = {
    "window": _is_window,
    "next_row": _is_count,
    "actor_restarts": _is_count,
    "pair": lambda value: isinstance(value, bool),
    "bad_in_a_row": _is_count,
    "own_meta_weights": _is_numbers_by_name,
    "bad_meta_in_a_row": _is_count,
}


def _wrong(values: Mapping[str, Any], checks: Mapping[str, Callable[[Any], bool]]) -> str | None:
    """The name of the first entry of a wrong type; missing ones are accepted."""
    return next(
        (name for name, check in checks.items() if name in values and not check(values[name])),
        None,
    )


def check_progress(progress: Mapping[str, Any], checkpoint: pathlib.Path) -> Mapping[str, Any]:
    """The progress of a checkpoint, if all of it is of the types that were saved.

    Raises:
      UserError: naming the first entry that is not.
    """
    name = _wrong(progress, _PROGRESS)
    if name == "window" and isinstance(progress[name], dict):
        name = f"window.{_wrong(progress[name], _WINDOW)}"
    if name is not None:
        raise UserError(f"{checkpoint}: its progress is damaged ({name} is not what was saved)")
    return progress


def refuse_other_terms(
    progress: Mapping[str, Any], checkpoint: pathlib.Path, weights: Mapping[str, float]
) -> None:
    """For a run whose J' has terms from outside the package: config.json does not have them.

    Args:
      progress: as checked; one of an older version does not say, and is taken as it is.
      checkpoint: its path.
      weights: name -> weight, as registered here (`losses.OWN_META_WEIGHTS`).

    Raises:
      UserError: if the run was trained with other terms or weights.
    """
    saved = progress.get("own_meta_weights", weights)
    if saved != weights:
        raise UserError(
            f"{checkpoint}: was trained with the own terms {dict(saved) or 'none'} in J' (name: "
            f"weight), but here are {dict(weights) or 'none'}; must be the same in "
            "losses.OWN_META_WEIGHTS before make_trainer"
        )


def refuse_unread_terms(weights: Mapping[str, float], meta_objective: str) -> None:
    """For a run whose meta objective has no terms of J': one from outside would have no effect.

    Args:
      weights: name -> weight, as registered here.
      meta_objective: of the run.

    Raises:
      UserError: if one of them is not 0.
    """
    for name, weight in weights.items():
        if weight:
            raise UserError(
                f'losses.OWN_META_WEIGHTS["{name}"]={weight:g}: has no effect with '
                f"--meta_objective={meta_objective}; must be 0 or left out, or "
                "--meta_objective=validation"
            )


def progress_of(
    saved: Saved | None,
    folder: RunFolder,
    own_meta_weights: Mapping[str, float],
    meta_objective: str = "validation",
) -> Mapping[str, Any]:
    """What was saved with the checkpoint that a trainer continues from, checked.

    Args:
      saved: the checkpoint; None for a new run, whose progress is empty.
      folder: of the run.
      own_meta_weights: of the learner.
      meta_objective: of the run.

    Raises:
      UserError: as the functions above.
    """
    has_terms = meta_objective == "validation"
    if not has_terms:
        refuse_unread_terms(own_meta_weights, meta_objective)
    if saved is None:
        folder.refuse_vanished_checkpoints()
        return {}
    progress = check_progress(saved.progress, saved.path)
    if has_terms:  # otherwise an older version may have saved some that it did not read
        refuse_other_terms(progress, saved.path, own_meta_weights)
    return progress
