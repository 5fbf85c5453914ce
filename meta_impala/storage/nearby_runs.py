"""Suggestions for a path that is not a run folder: runs of a similar name, or runs below it."""

from __future__ import annotations

import os
import pathlib

from meta_impala.config.fields import nearest
from meta_impala.errors import printable

_CONFIG = "config.json"
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


def _is_printable(name: str) -> bool:
    return printable(name) == name


def _below(path: pathlib.Path) -> str:
    found: list[str] = []
    for searched, (folder, names, files) in enumerate(os.walk(path)):
        inside = os.path.relpath(folder, path)
        if _CONFIG in files and _is_printable(inside):
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
