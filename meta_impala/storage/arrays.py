"""Named NumPy arrays in a file (`.npz`) that cannot hold anything else, least of all code.

A file from elsewhere declares shapes, types and sizes in its headers. They are checked before
anything of that size is allocated, and nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import contextlib
import math
import pathlib
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple

import numpy as np

from meta_impala.storage.files import open_regular, replacing

MAX_BYTES = 2**31
# What was written by `write_arrays` is not compressed, and weights shrink by a tenth. A file that
# unpacks to more than this many times its size is not read as a whole.
_MAX_RATIO = 4
_SMALL_BYTES = 2**20
_MAX_ENTRIES = 10_000
_MAX_HEADER_BYTES = 10_000
_MAX_DIMENSIONS = 32
_KINDS = "biufU"  # no objects, no records, no bytes

_MALFORMED = (
    zipfile.BadZipFile, zlib.error, EOFError, MemoryError, NotImplementedError, RuntimeError,
    struct.error, SyntaxError, TypeError, LookupError, OverflowError, ValueError,
)  # fmt: skip


def write_arrays(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False
) -> None:
    """Writes an `.npz` file whole or not at all, flushed to disk.

    Raises:
      ValueError: for an array of objects.
      OSError: if it cannot be written.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"{name} is an array of objects")
    save = np.savez_compressed if compressed else np.savez
    with replacing(path) as file:
        save(file, allow_pickle=False, **arrays)


class Header(NamedTuple):
    """What an array's header declares."""

    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the array, as an exact integer."""
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayFile:
    """An `.npz` file that is open: headers first, arrays one by one.

    Attributes:
      headers: by name; every one agrees with the size that the file states for its array.
    """

    def __init__(self, archive: zipfile.ZipFile, max_bytes: int) -> None:
        self._archive = archive
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self.headers: dict[str, Header] = {}
        entries = archive.infolist()
        if len(entries) > _MAX_ENTRIES:
            raise ValueError(f"it has {len(entries)} arrays; at most {_MAX_ENTRIES}")
        size = sum(entry.file_size for entry in entries)
        if size > max_bytes:
            raise ValueError(f"it would unpack to {size} bytes; at most {max_bytes}")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in self._entries or name == entry.filename:
                raise ValueError(f"{entry.filename} is there twice, or is not an array")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed in a way that is not supported")
            self._entries[name] = entry
            with archive.open(entry) as stream:
                header = _read_header(stream)
                if header.nbytes != entry.file_size - stream.tell():
                    raise ValueError(f"{name} has another size than its header says")
            self.headers[name] = header

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together, unpacked."""
        return sum(header.nbytes for header in self.headers.values())

    def read(self, name: str) -> np.ndarray:
        """One array; the memory that it takes is what its header says.

        Raises:
          ValueError: if there is no array of this name, or it is damaged.
        """
        if name not in self._entries:
            raise ValueError(f"{name} is missing")
        with _as_value_error(), self._archive.open(self._entries[name]) as stream:
            header = _read_header(stream)
            data = bytearray()
            while part := stream.read(_SMALL_BYTES):  # to the end, which checks the CRC
                data += part
                if len(data) > header.nbytes:
                    break
            if len(data) != header.nbytes:
                raise ValueError(f"{name} has another size than its header says")
            if not data:
                return np.empty(header.shape, header.dtype)
            array = np.frombuffer(data, header.dtype)
            if header.dtype.kind == "U":  # else Python fails later, where the text is used
                codes = np.frombuffer(data, np.dtype("u4").newbyteorder(header.dtype.byteorder))
                if codes.size and codes.max() > sys.maxunicode:
                    raise ValueError(f"{name} has numbers that are not characters")
            return array.reshape(header.shape, order="F" if header.is_fortran else "C")

    def text(self, name: str) -> str:
        """A short text, saved as an array of one string.

        Raises:
          ValueError: if it is not one, or too long.
        """
        header = self.headers.get(name)
        if header is None or header.shape or header.dtype.kind != "U":
            raise ValueError(f"{name} is missing, or no text")
        if header.nbytes > _SMALL_BYTES:
            raise ValueError(f"{name} has {header.nbytes} bytes; at most {_SMALL_BYTES}")
        return str(self.read(name))


@contextlib.contextmanager
def open_arrays(path: pathlib.Path, max_bytes: int = MAX_BYTES) -> Iterator[ArrayFile]:
    """Opens an `.npz` file; nothing but headers is read.

    Args:
      path: of the file.
      max_bytes: of all arrays, unpacked.

    Raises:
      ValueError: if it is not an `.npz` file, holds objects, or declares more bytes.
      OSError: if it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        with _as_value_error():
            opened = ArrayFile(zipfile.ZipFile(file), max_bytes)
        yield opened


def read_arrays(path: pathlib.Path, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file.

    Raises:
      ValueError: if it is not an `.npz` file, holds objects, or unpacks to more than `max_bytes` or
        to much more than its own size.
      OSError: if it cannot be read, or is not a regular file.
    """
    with open_arrays(path, max_bytes) as file:
        allowed = _MAX_RATIO * path.stat().st_size + _SMALL_BYTES
        if file.nbytes > allowed:
            raise ValueError(f"it would unpack to {file.nbytes} bytes; at most {allowed}")
        return {name: file.read(name) for name in file.headers}


@contextlib.contextmanager
def _as_value_error() -> Iterator[None]:
    try:
        yield
    except _MALFORMED as error:
        raise ValueError(f"is not a file of arrays ({error})") from error


def _read_header(stream: IO[bytes]) -> Header:
    """The header of the `.npy` format, versions 1 to 3."""
    magic = _exactly(stream, 8)
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise ValueError("it does not begin like an array of NumPy")
    length_format = "<H" if magic[6] == 1 else "<I"
    (length,) = struct.unpack(length_format, _exactly(stream, struct.calcsize(length_format)))
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header has {length} bytes; at most {_MAX_HEADER_BYTES}")
    text = _exactly(stream, length).decode("latin-1" if magic[6] < 3 else "utf-8")
    fields = ast.literal_eval(text.strip())
    shape, is_fortran = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the shape {shape} is not a shape")
    if len(shape) > _MAX_DIMENSIONS or not isinstance(is_fortran, bool):
        raise ValueError("a header is malformed")
    if not isinstance(fields["descr"], str):
        raise ValueError("an array is of records")
    dtype = np.dtype(fields["descr"])
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"an array is of type {dtype}; must be numbers or text")
    return Header(shape, dtype, is_fortran)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("it ends in the middle of a header")
    return data
