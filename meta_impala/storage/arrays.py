"""Named NumPy arrays in a file that cannot hold anything else, least of all code."""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

MAX_BYTES = 2**31


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an `.npz` file and flushes it to disk.

    Raises:
      ValueError: for an array of objects.
      OSError: if it cannot be written.
    """
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())


def read_arrays(path: pathlib.Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Reads an `.npz` file without ever unpickling.

    Args:
      path: of the file.
      max_bytes: of all arrays, unpacked.

    Raises:
      ValueError: if it is no such file, would unpack to more, or holds objects.
      OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > max_bytes:
            raise ValueError(f"{path.name} would unpack to {size} bytes; at most {max_bytes}")
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, MemoryError, NotImplementedError) as error:
        raise ValueError(f"{path.name} is not a file of arrays ({error})") from error
