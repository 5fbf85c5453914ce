"""The folder where a command leaves its results: made, checked, and written to file by file."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from meta_impala.errors import UserError, one_line
from meta_impala.storage.files import make_folder, replacing, write_atomically


def make_outdir(outdir: str | None) -> pathlib.Path:
    """The folder of the results, absolute; made if it is not there.

    Raises:
      UserError: if none was given, or it cannot be made or written to.
    """
    if not outdir:
        raise UserError("--outdir: must be given, the folder of the results")
    try:
        path = pathlib.Path(os.path.abspath(pathlib.Path(outdir).expanduser()))
        make_folder(path, parents=True)
        probe = path / f".writable.{os.getpid()}"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC))
        probe.unlink()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a NUL character
        raise UserError(
            f"--outdir={outdir}: cannot be made or written to ({one_line(error)})"
        ) from None
    return path


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
