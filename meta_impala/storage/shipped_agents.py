"""The agents that come with the program, by name."""

from __future__ import annotations

import os
import pathlib

from meta_impala.config.fields import nearest
from meta_impala.errors import UserError
from meta_impala.system.user_path import user_path

FOLDER = pathlib.Path(__file__).parents[1] / "agents"
_SUFFIX = ".npz"


def names() -> list[str]:
    """The names that `find` knows."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}"))


def find(text: str) -> pathlib.Path:
    """The file of an agent.

    Args:
      text: a path, or one of `names` if there is no such file.

    Raises:
      UserError: if no file can have that path, or it is a word that names no agent.
    """
    path = user_path(text, "agent")
    if os.path.exists(path) or "/" in text or text.endswith(_SUFFIX):
        return path
    if text in names():
        return FOLDER / f"{text}{_SUFFIX}"
    raise UserError(
        f"--agent={text}: there is no such file; must be one that ends in .npz, or one of "
        f"{', '.join(names())}{nearest(text, names())}"
    )
