"""Run folders by their paths, or by the path of a folder that holds some."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence

from meta_impala.config.text import shown
from meta_impala.errors import UserError
from meta_impala.storage.nearby_runs import is_run
from meta_impala.storage.run_folder import RunFolder


def find(paths: Iterable[str]) -> list[RunFolder]:
    """Every run at these paths or below them, sorted below each path; none twice.

    Symbolic links are not followed, and nothing is searched below a run. Below a path the
    `config.json` of another program makes no run.

    Raises:
      UserError: if a path holds no run.
    """
    found: dict[str, RunFolder] = {}
    for text in paths:
        runs = _below(text)
        if not runs:
            what = "holds no run" if os.path.isdir(_expanded(text)) else "is not a folder"
            raise UserError(
                f"{shown(text)}: {what}; must be the folder of a run (with a config.json), or a "
                "folder above runs"
            )
        for run in runs:
            found.setdefault(os.path.realpath(run.path), run)
    return list(found.values())


def _expanded(text: str) -> str:
    return os.path.expanduser(text)


def _below(text: str) -> list[RunFolder]:
    runs = []
    try:
        for path, names, files in os.walk(_expanded(text)):
            names.sort()
            is_named = path == _expanded(text) and "config.json" in files
            if is_named or is_run(path, names, files):
                runs.append(RunFolder(pathlib.Path(path)))
                names.clear()
    except ValueError as error:  # a null character in the path
        raise UserError(f"{text!r}: is not a path ({error})") from None
    return runs


def labels_of(folders: Sequence[RunFolder], given: Sequence[str] | None = None) -> list[str]:
    """One label per run: those given, or the shortest ends of the paths that tell them apart.

    Raises:
      UserError: if there are not as many labels as runs.
    """
    if given:
        if len(given) != len(folders):
            raise UserError(
                f"--labels: must be one per run, has {len(given)} for {len(folders)} runs"
            )
        return list(given)
    parts = [folder.path.resolve().parts[1:] or ("/",) for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-depth:]) for path in parts]
        if len(set(ends)) == len(ends):
            break
    return ends
