"""The folder where a command leaves its results: made, checked, and written to file by file."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from meta_impala.errors import UserError
from meta_impala.storage.files import write_atomically


def make_outdir(outdir: str | None) -> pathlib.Path:
    """The folder of the results, made if it is not there.

    Raises:
      UserError: if none was given, or it cannot be made or written to.
    """
    if not outdir:
        raise UserError("--outdir: must be given, the folder of the results")
    path = pathlib.Path(outdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--outdir={outdir}: cannot be made or written to ({error.strerror})"
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
        raise UserError(f"--outdir: cannot write {path} ({error.strerror})") from None


def save_figure(figure: Any, path: pathlib.Path) -> None:
    """Writes a matplotlib figure as a PNG, as a whole.

    Raises:
      UserError: if it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.png")
    try:
        figure.savefig(aside, dpi=150)
        os.replace(aside, path)
    except OSError as error:
        raise UserError(f"--outdir: cannot write {path} ({error.strerror})") from None
