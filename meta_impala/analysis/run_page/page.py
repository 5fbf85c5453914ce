"""A report of runs as one HTML file: no scripts, no network access, no other files.

What goes into it comes from `sections` and `panels`. A content security policy forbids everything
that is not in the file, in addition to the escaping.
"""

from __future__ import annotations

import datetime
import importlib.resources
from collections.abc import Sequence

from meta_impala import __version__
from meta_impala.analysis.run_page import charts, panels, sections
from meta_impala.analysis.run_page.markup import Markup, element, escaped, joined
from meta_impala.analysis.run_page.run_record import RunRecord
from meta_impala.errors import UserError

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"


def html(records: Sequence[RunRecord], title: str, now: datetime.datetime) -> str:
    """The file's text.

    Args:
      records: of the runs, at most `charts.MOST_RUNS`.
      title: its heading.
      now: when it is made.

    Raises:
      UserError: if there are more runs than can be told apart.
    """
    if len(records) > charts.MOST_RUNS:
        raise UserError(
            f"{len(records)} runs: must be at most {charts.MOST_RUNS}, the number of lines that "
            "can be distinguished; give fewer (`compare` takes any number)"
        )
    about = f"Made {now:%Y-%m-%d %H:%M} by meta_impala {__version__}."
    about += " Charts are against environment frames. Where there is a pale line, the full one is "
    about += "its running mean over 5 % of the rows."
    body = [
        element("header", element("h1", title), element("p", about, class_="note")),
        sections.runs(records),
        sections.check_ups(records),
        sections.differences(records),
        panels.sections(records, sections.legend(records)),
        sections.evaluations(records),
        sections.videos(records),
        sections.explanations(records),
        sections.settings(records),
    ]
    return _document(title, joined(body))


def title_of(records: Sequence[RunRecord]) -> str:
    """A heading: the environments that were played."""
    names = dict.fromkeys(str(record.config.get("environment", "?")) for record in records)
    short = [name.removeprefix("ALE/").removeprefix("meta_impala/") for name in names]
    shown = ", ".join(short[:3]) + (f" and {len(short) - 3} more" if len(short) > 3 else "")
    return shown if len(records) == 1 else f"{shown}: {len(records)} runs"


def _document(title: str, body: Markup) -> str:
    style = importlib.resources.files(__package__).joinpath("page.css").read_text("utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
