"""Wrong values in the place of every value of a file: JSON by keys, CSV by cells and lines, TOML
and flag files by lines."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

JSON = [
    None, True, "", "x" * 300, "\x1b[2J\u202e", "\0", [], {}, [[[]]], {"": None}, 0, -1, 2**63,
    10**400, -(10**400), math.inf, -math.inf, math.nan, 1e308, 0.5, 1e-320, "9" * 5000,
]  # fmt: skip
CELLS = [
    "", "x", "nan", "inf", "-inf", "1e400", "-1", "9" * 30, "9" * 5000, "0", "1e308", '"', "\0",
    "\x1b[2J", "γ", "0x10", "1_000", "٣", " 5 ", "None", "1,2",
]  # fmt: skip

TOML = [
    '""', '"x"', '"\\u0000\\u001b[2J"', "0", "-1", "0.5", "nan", "-inf", "1e400", "9" * 30, "true",
    "[]", "[[]]", "[0, 1, 0]", '["a", 1]', "{}", "{ a = 1 }", "1979-05-27", "07:32:00",
    "'/dev/zero'", "x", "[" * 5000,
]  # fmt: skip
HEADINGS = ["[x]", "[[x]]", "[settings]", "[[settings]]", "[variants]", "[[variants]]", "["]
FLAGS = ["--", "---", "x", "-x", "--=", "--x=1", "--nogamma", "--gamma", "--flagfile=/dev/zero",
         "--flagfile=.", "--preset=catch", "\0", "\x1b[2J", "--seed=" + "9" * 5000]  # fmt: skip


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value within a JSON value; of lists, of the first three."""
    yield path
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value[:3])
    for key, inner in entries:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple, new: Any) -> Any:
    """A copy with another value at a place."""
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = changed(copied[path[0]], path[1:], new)
    return copied


def of_json(text: str) -> Iterator[tuple[str, str]]:
    """(what, text) with every wrong value at every place."""
    content = json.loads(text)
    for path in places(content):
        for new in JSON:
            yield f"{path} {new!r:.40}", json.dumps(changed(content, path, new))


def of_csv(text: str) -> Iterator[tuple[str, str]]:
    """(what, text) with every wrong cell, and lines that are missing, cut, long or doubled."""
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if not line.startswith("#"))

    def with_line(row: int, *new: str) -> str:
        return "\n".join([*lines[:row], *new, *lines[row + 1 :]]) + "\n"

    for row in sorted({head, head + 1, len(lines) - 1}):
        cells = lines[row].split(",")
        for column in range(len(cells)):
            for new in CELLS:
                line = ",".join([*cells[:column], new, *cells[column + 1 :]])
                yield f"line {row}, cell {column}: {new[:20]!r}", with_line(row, line)
        yield f"line {row} missing", with_line(row)
        yield f"line {row} cut", with_line(row, cells[0])
        yield f"line {row} long", with_line(row, f"{lines[row]},1,2,3")
        yield f"line {row} doubled", with_line(row, lines[row], lines[row])
        yield f"line {row} quoted", with_line(row, '"' + "x" * 200_000)
    yield "empty", ""
    yield "a comment", "# x\n"
    yield "a header", lines[head] + "\n"
    yield "NUL", "\0\1"


def _of_lines(
    text: str, new_values: list[str], new_lines: list[str], mark: str
) -> Iterator[tuple[str, str]]:
    """Another value after the = of every line, other lines in its place, lines missing or doubled.

    Args:
      text: of the file.
      new_values: after the =.
      new_lines: in place of a line.
      mark: with which comments begin.
    """
    lines = text.splitlines()
    for row, line in enumerate(lines):
        if not line or line.startswith(mark):
            continue
        name, equals, _ = line.partition("=")
        changes = [f"{name}={new}" for new in new_values] if equals else []
        for new in (*changes, *new_lines, "", f"{line}\n{line}", line[: len(line) // 2]):
            what = f"line {row}: {new[:40]!r}"
            yield what, "\n".join([*lines[:row], new, *lines[row + 1 :]]) + "\n"


def of_toml(text: str) -> Iterator[tuple[str, str]]:
    """(what, text) with every wrong value and heading in every line."""
    return _of_lines(text, TOML, HEADINGS, "#")


def of_flags(text: str) -> Iterator[tuple[str, str]]:
    """(what, text) with every wrong value and flag in every line."""
    return _of_lines(text, CELLS, FLAGS, "#")


_OF_KIND = {".json": of_json, ".csv": of_csv, ".toml": of_toml, ".flags": of_flags}


def of_file(path: pathlib.Path) -> list[tuple[str, str]]:
    """(what, text) for a JSON, CSV, TOML or flag file."""
    return list(_OF_KIND[path.suffix](path.read_text("utf-8")))
