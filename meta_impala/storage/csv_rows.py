"""Tables of text with a header, as CSV: each line is parsed on its own.

A quote that is not closed, such as a flipped byte, ends with its line. Python's `csv` alone would
take all further lines into one cell.
"""

from __future__ import annotations

import csv


def rows_by_name(text: str) -> list[dict[str, str]]:
    """The rows of a table, by column; lines that are empty or begin with # are left out.

    Args:
      text: of the file; no cell has a line break.

    Raises:
      ValueError: naming the first line whose quotes are wrong, or that has not as many cells as the
        header.
    """
    header: list[str] = []
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        try:
            (cells,) = csv.reader([line], strict=True)
        except csv.Error as error:
            raise ValueError(f"line {number}: {error}") from None
        if not header:
            header = cells
        elif len(cells) != len(header):
            raise ValueError(f"line {number} has {len(cells)} cells, not {len(header)}")
        else:
            rows.append(dict(zip(header, cells, strict=True)))
    return rows
