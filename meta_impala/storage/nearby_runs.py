"""Which folder is a run, and what is near a path: runs of a similar name, below it, around it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection

from meta_impala import config as config_lib
from meta_impala.config.fields import nearest
from meta_impala.errors import printable
from meta_impala.storage.json_files import read_json_object

_CONFIG, _STATUS, _CHECKPOINTS = "config.json", "status.json", "checkpoints"
_MEMBERS, _MADE_BY_POPULATION = "members", ("settings.json", "tune")
# Settings that the config of every version has.
_SETTINGS = config_lib.FIELDS.keys() - config_lib.values_if_missing().keys()
# Far above any config; up to so many are read.
_MAX_BYTES = 2**16
# Bounds of the search: a user may have named the root of a disk.
_MOST_FOLDERS, _MOST_LEVELS, _MOST_SHOWN = 1000, 5, 5


def hint(path: pathlib.Path) -> str:
    """ " (did you mean X?)", "; runs below it: ...", or nothing.

    Args:
      path: absolute; of a folder that is no run, or of nothing.
    """
    if path.is_dir():
        return _below(path)
    try:
        beside = sorted(entry.name for entry in os.scandir(path.parent) if entry.is_dir())
    except OSError:
        return ""
    return printable(nearest(path.name, [name for name in beside if _is_printable(name)]))


def is_run(folder: str, names: Collection[str], files: Collection[str]) -> bool:
    """Whether a folder is that of a run: other programs have a `config.json` too.

    Args:
      folder: its path.
      names, files: of the folders and files in it, as `os.walk` has them.
    """
    if _CONFIG not in files:
        return False
    if _STATUS in files or _CHECKPOINTS in names:
        return True
    try:
        content = read_json_object(pathlib.Path(folder, _CONFIG), _MAX_BYTES)
    except (OSError, ValueError):
        return False
    return content.keys() >= _SETTINGS


def holding(path: pathlib.Path) -> pathlib.Path | None:
    """The innermost folder of a run, or of a population, that a path is or lies in; None if none.

    Args:
      path: absolute; it need not be there. Links on the way are followed.
    """
    real = pathlib.Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        names = [name for name in (_CHECKPOINTS,) if os.path.isdir(folder / name)]
        files = [name for name in (_CONFIG, _STATUS) if os.path.isfile(folder / name)]
        if is_run(str(folder), names, files) or is_population(folder):
            return folder
    return None


def is_population(folder: pathlib.Path) -> bool:
    """Whether a population was begun in a folder; other programs may have `members` too."""
    return any(os.path.lexists(folder / _MEMBERS / name) for name in _MADE_BY_POPULATION)


def _is_printable(name: str) -> bool:
    return printable(name) == name


def _below(path: pathlib.Path) -> str:
    found: list[str] = []
    for searched, (folder, names, files) in enumerate(os.walk(path)):
        inside = os.path.relpath(folder, path)
        if _is_printable(inside) and is_run(folder, names, files):
            found.append(inside)
            names.clear()
        if inside.count(os.sep) >= _MOST_LEVELS:
            names.clear()
        names.sort()
        if searched >= _MOST_FOLDERS or len(found) > _MOST_SHOWN:
            break
    if not found:
        return ""
    more = ", …" if len(found) > _MOST_SHOWN else ""
    return f"; runs below it: {', '.join(found[:_MOST_SHOWN])}{more}"
