"""JSON in files: read, it may come from somebody else and is bounded in size, depth and digits;
written, it is what every reader of JSON accepts."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from meta_impala.storage.files import read_bounded

_MOST_DIGITS = 100


def read_json_object(path: pathlib.Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object of a file; the caller checks its entries.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
      ValueError: if it is larger, not JSON in UTF-8, nested too deeply, not an object, or has a
        whole number that no float can hold.
    """
    try:
        content = json.loads(read_bounded(path, max_bytes).decode("utf-8"), parse_int=_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it must hold one JSON object")
    return content


def json_document(value: Any, *, ensure_ascii: bool = True) -> str:
    """A JSON document of several lines; a number that is not finite, which JSON has not, is null.

    Args:
      value: of what JSON has.
      ensure_ascii: whether other characters are escaped.
    """
    plain = _without_infinities(value)
    return json.dumps(plain, indent=2, ensure_ascii=ensure_ascii, allow_nan=False) + "\n"


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(entry) for entry in value]
    return value


def _int(text: str) -> int:
    """A whole number of JSON; whoever computes with it would get an OverflowError beyond this."""
    digits = len(text.removeprefix("-"))
    if digits > _MOST_DIGITS:
        raise ValueError(f"it has a number of {digits} digits")
    return int(text)
