"""Where a command leaves its results: checked before the work, made and written after it."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from meta_impala.errors import UserError, one_line
from meta_impala.storage import nearby_runs
from meta_impala.storage.files import (
    aside_of,
    make_folder,
    remove_empty,
    replacing,
    write_atomically,
)

# Files that commands leave in the folder of a run itself: training writes none with such an ending.
_BESIDE_TRAINING = frozenset({".htm", ".html", ".mp4", ".npz", ".pdf", ".png", ".svg"})


def make_outdir(outdir: str | None, flag: str = "outdir", *, in_run: bool = False) -> pathlib.Path:
    """The folder of the results, absolute; made if it is not there.

    Args:
      outdir: its path.
      flag: that names it.
      in_run: whether it is a place in a run's folder that is meant for these results.

    Raises:
      UserError: if none was given, it is in the folder of a run, or it cannot be made or written.
    """
    path, _ = _made(outdir, flag, in_run)
    return path


def check_outdir(outdir: str | None, flag: str = "outdir", *, in_run: bool = False) -> pathlib.Path:
    """As `make_outdir`, but leaves nothing: before work that may fail."""
    path, made = _made(outdir, flag, in_run)
    remove_empty(made)
    return path


def _made(outdir: str | None, flag: str, in_run: bool) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The folder, and those that were made for it."""
    if not outdir:
        raise UserError(f"--{flag}: must be given, the folder of the results")
    made: list[pathlib.Path] = []
    try:
        path = pathlib.Path(os.path.abspath(pathlib.Path(outdir).expanduser()))
        if not in_run:
            refuse_run(path, f"--{flag}={outdir}")
        made = make_folder(path, parents=True)
        _probe(path / f".writable.{os.getpid()}")
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a NUL character
        remove_empty(made)
        raise UserError(
            f"--{flag}={outdir}: cannot be made or written to ({one_line(error)})"
        ) from None
    return path, made


def refuse_run(path: pathlib.Path, given: str, *, below_only: bool = False) -> None:
    """Checks that results do not come among the files of a run, which they could replace.

    Args:
      path: of the folder that is to hold them; absolute.
      given: the flag and its value, for the message.
      below_only: whether it may be the folder of a run itself.

    Raises:
      UserError: if it is the folder of a run or population, or lies in one.
    """
    run = nearby_runs.holding(path)
    if run is not None and not (below_only and run == path.resolve()):
        raise UserError(f"{given}: is in the folder of a run ({run}); must be elsewhere")


def refuse_links(path: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Checks a default place of results in a folder that may be from somebody else.

    Args:
      path: of a folder below `root`, which need not be there.
      root: the folder that the user named; it may be a link itself.

    Returns:
      The path.

    Raises:
      UserError: if a folder on the way is a symbolic link, behind which files of another folder
        would be replaced.
    """
    for folder in (path, *path.parents):
        if folder == root:
            break
        if folder.is_symlink():
            raise UserError(f"{folder}: is a symbolic link; must be a folder of {root}")
    return path


def check_file(
    path: pathlib.Path,
    flag: str,
    *endings: str,
    of_command: bool = True,
    in_run: bool = False,
) -> pathlib.Path:
    """Checks that a file can be written, before the work whose result it is to hold.

    Args:
      path: of the file, which is left as it is.
      flag: that names it.
      endings: of which its name must have one, such as `.png`; none for any.
      of_command: whether it is a flag; otherwise it is an argument of a function.
      in_run: whether it may be in the folder of a run itself, whatever its ending.

    Returns:
      The path.

    Raises:
      UserError: naming the flag, if it cannot, or if it would be among the files of a run.
    """
    given = f"{'--' * of_command}{flag}={path}"
    if endings and path.suffix.lower() not in endings:
        allowed = f"{', '.join(endings[:-1])} or {endings[-1]}" if endings[1:] else endings[0]
        raise UserError(f"{given}: must end in {allowed}")
    try:
        # What is not a regular file, such as a device, would be replaced by one.
        if not path.parent.is_dir() or (path.exists() and not path.is_file()):
            raise UserError(f"{given}: must be a file in a folder that exists")
        is_beside = in_run or path.suffix.lower() in _BESIDE_TRAINING
        refuse_run(path.parent, given, below_only=is_beside)
        _probe(aside_of(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{given}: cannot be written ({one_line(error)})") from None
    return path


def _probe(path: pathlib.Path) -> None:
    """Makes a file and removes it. Raises OSError if the folder cannot be written."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC))
    path.unlink()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file as a whole.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(f"--outdir: cannot write {path} ({one_line(error)})") from None


def save_figure(figure: Any, path: pathlib.Path, dpi: int = 150) -> None:
    """Writes a matplotlib figure, as a whole, in the format that the name ends in.

    Raises:
      UserError: if it cannot be written.
    """
    try:
        with replacing(path) as file:
            figure.savefig(file, dpi=dpi, format=path.suffix[1:].lower())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({one_line(error)})") from None
