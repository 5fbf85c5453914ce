"""The manifest of a checkpoint: its run, its counters, and the digest of every file.

`verify` reads every file before anything is restored; a file that the manifest does not list is
an error. No TensorFlow here.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Any

from meta_impala import __version__
from meta_impala.errors import UserError, one_line
from meta_impala.storage.arrays import MAX_BYTES
from meta_impala.storage.files import open_regular, read_bounded, write_atomically

FORMAT = 2  # 1 had no manifest
SOURCE = "source.npz"
# Before the name of a checkpoint while one of the same frames, with more updates, takes its place.
REPLACED = ".replaced-"
_MANIFEST, _DIGEST = "manifest.json", "manifest.sha256"
_MAX_MANIFEST_BYTES = 2**22
_MAX_DIGEST_BYTES = 100
_NAME = re.compile(r"frames-(\d{1,18})", re.ASCII)
_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.02


class Damaged(Exception):
    """A checkpoint is not what was saved; the message names the difference."""


def list_checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints of a folder, newest first; links do not count.

    One that is about to be replaced is there too, until the other has its name: a trainer that was
    killed in between has left no other.
    """
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = {
        entry.name: match
        for entry in entries
        if (match := _NAME.fullmatch(entry.name.removeprefix(REPLACED)))
        and entry.is_dir(follow_symlinks=False)
    }
    numbered = [
        (int(match[1]), folder / name)
        for name, match in found.items()
        if name == match[0] or match[0] not in found
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def name_of(path: pathlib.Path) -> str:
    """The name of a checkpoint, also while it is about to be replaced."""
    return path.name.removeprefix(REPLACED)


def version_of(path: pathlib.Path) -> bytes | None:
    """What tells a checkpoint from one of the same frames and more updates; None if it is gone."""
    try:
        return read_bounded(path / _DIGEST, _MAX_DIGEST_BYTES)
    except (OSError, ValueError):
        return None


def newest_version(folder: pathlib.Path) -> tuple[str, bytes | None] | None:
    """Name and version of the newest checkpoint of a folder; None if there is none."""
    path = next(iter(list_checkpoints(folder)), None)
    return None if path is None else (name_of(path), version_of(path))


def attempts_left() -> Iterator[int]:
    """How many attempts are left to read what training may be replacing, a moment apart."""
    for left in reversed(range(_ATTEMPTS)):
        yield left
        if left:
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)


def write_manifest(
    folder: pathlib.Path, identity: Mapping[str, Any], progress: Mapping[str, Any]
) -> None:
    """Writes the manifest of every file in a folder."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
    }
    manifest = {
        "format": FORMAT,
        "meta_impala": __version__,
        "identity": dict(identity),
        "progress": dict(progress),
        "files": files,
    }
    content = (json.dumps(manifest, indent=1) + "\n").encode()
    write_atomically(folder / _MANIFEST, content)
    write_atomically(folder / _DIGEST, _digest_line(content))


def verify(path: pathlib.Path, max_bytes: int | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are as they were saved.

    Args:
      path: of the checkpoint.
      max_bytes: of its files together, without the source; nothing larger is read.

    Returns:
      The manifest: `identity` and `progress` are objects, `files` is name -> bytes and sha256.

    Raises:
      Damaged: if a file is missing, differs, or is not listed.
      UserError: if it is of a format that this version does not know.
    """
    try:
        content = read_bounded(path / _MANIFEST, _MAX_MANIFEST_BYTES)
        if read_bounded(path / _DIGEST, _MAX_DIGEST_BYTES) != _digest_line(content):
            raise Damaged(f"{_MANIFEST} does not match its digest")
        manifest = _parse(path, content)
        _check_files(path, manifest["files"], max_bytes)
    except FileNotFoundError as error:
        raise Damaged(f"{pathlib.Path(str(error.filename)).name} is missing") from error
    except OSError as error:
        raise Damaged(f"it cannot be read: {one_line(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{_MANIFEST} is not a manifest") from error
    return manifest


def _parse(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    """Raises Damaged, or ValueError and its like, unless it is a manifest of this format."""
    manifest = json.loads(content)
    if not isinstance(manifest["progress"], dict):
        raise Damaged(f"{_MANIFEST} is not a manifest")
    if type(manifest["format"]) is not int or manifest["format"] != FORMAT:
        raise UserError(
            f"{path}: a checkpoint of format {manifest['format']} (meta_impala "
            f"{manifest['meta_impala']}); this version reads format {FORMAT}"
        )
    if not isinstance(manifest["identity"], dict):
        raise Damaged(f"{_MANIFEST} is not a manifest")
    for name, entry in manifest["files"].items():
        if pathlib.PurePath(name).name != name or "\0" in name:
            raise Damaged(f"{name} is not the name of a file")
        if type(entry["bytes"]) is not int or not isinstance(entry["sha256"], str):
            raise Damaged(f"{_MANIFEST} is not a manifest")
    return manifest


def _check_files(path: pathlib.Path, files: Mapping[str, Any], max_bytes: int | None) -> None:
    """Raises Damaged unless the folder has exactly these files, with these digests."""
    size = sum(entry["bytes"] for name, entry in files.items() if name != SOURCE)
    if max_bytes is not None and size > max_bytes:
        raise Damaged(f"it has {size} bytes; at most {max_bytes}")
    if SOURCE in files and files[SOURCE]["bytes"] > MAX_BYTES:
        raise Damaged(f"{SOURCE} has {files[SOURCE]['bytes']} bytes; at most {MAX_BYTES}")
    for name, entry in files.items():
        status = os.lstat(path / name)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{name} is not a regular file")
        if status.st_size != entry["bytes"]:
            raise Damaged(f"{name} has {status.st_size} bytes, not {entry['bytes']}")
    for found in sorted(os.listdir(path)):
        # TensorFlow looks for every file that begins so.
        if found.startswith("state") and found not in files:
            raise Damaged(f"{found} is not in the manifest")
    for name, entry in files.items():
        if file_digest(path / name) != entry["sha256"]:
            raise Damaged(f"{name} does not match its digest")


def _digest_line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}\n".encode()


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
