"""The blocks of a page: headings, paragraphs, tables, pictures."""

from __future__ import annotations

from typing import NamedTuple


class Heading(NamedTuple):
    """A heading of level 2 or 3."""

    level: int
    text: str


class Text(NamedTuple):
    """A paragraph; `code` between backquotes."""

    text: str


class Table(NamedTuple):
    """A table of text."""

    columns: list[str]
    rows: list[list[str]]


class Figure(NamedTuple):
    """A picture: its name (of a file), caption, and SVG text."""

    name: str
    caption: str
    svg: str


Block = Heading | Text | Table | Figure


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with a typographic minus sign; – for None."""
    if value is None or value != value:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
