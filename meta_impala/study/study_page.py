"""The page of the study: one document, written as HTML (self-contained) and as Markdown.

It is made from the compact data alone, by `python tools/study.py report`.
"""

from __future__ import annotations

import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from meta_impala.storage.files import write_atomically
from meta_impala.study import (
    atari_comparators,
    design,
    records,
    study_ends,
    summary,
    task_figures,
)
from meta_impala.study import study_sections as sections
from meta_impala.study.blocks import Block, Figure, Heading, Table, Text
from meta_impala.study.records import Record

HTML, MARKDOWN, FIGURES = "study.html", "study.md", "figures"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 64rem; margin: 2rem auto;
  padding: 0 1.5rem; }
h1 { line-height: 1.2; } h2 { border-bottom: 1px solid #ccc; padding-bottom: .2rem;
  margin-top: 2.5rem; } h3 { margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left;
  vertical-align: top; } th { background: #f4f4f4; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
code { background: #f4f4f4; padding: .05rem .3rem; border-radius: 3px; font-size: .92em; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } figure svg { max-width: 100%;
  height: auto; } figcaption { color: #555; font-size: .9rem; }
.confirmed { color: #00684a; font-weight: 600; } .refuted { color: #b03a00; font-weight: 600; }
.undecided { color: #555; font-weight: 600; }
"""


class Document(NamedTuple):
    """A title and the blocks below it."""

    title: str
    blocks: list[Block]


def document(folder: pathlib.Path) -> Document:
    """The page of the compact data in a folder.

    Raises:
      UserError: if there are none, or they are damaged.
    """
    found = records.read(folder)
    random = {**atari_comparators.random_scores(), **records.read_random(folder)}
    for part in design.PARTS.values():
        if part.selection_seeds:
            design.require_random(part, random)
    tasks = {name: summary.tasks_of(found, part, random) for name, part in design.PARTS.items()}
    blocks: list[Block] = [*sections.head(tasks, found)]
    blocks += sections.questions(tasks)
    for name in design.PARTS:
        blocks += sections.of_part(tasks[name])
        for task in tasks[name]:
            blocks += _of_task(task, found)
        if name == design.ATARI.name:
            blocks += atari_comparators.comparators(tasks[name])
    blocks += study_ends.costs(tasks)
    blocks += study_ends.missing(tasks)
    blocks += study_ends.method(found)
    return Document("Does adapting γ and λ help, and why?", blocks)


def _of_task(task: summary.Task, found: Sequence[Record]) -> list[Block]:
    picture = task_figures.of_task(task)
    if picture is None:
        return []
    name = f"{task.part.name}_{task.name.rpartition('/')[2].lower()}"
    mark = "a diamond is the interquartile mean with its 95 % interval"
    if not task.grid:
        mark = "a bar is their mean"
    caption = f"{task.name}. Points are runs; {mark}. Made by: python tools/study.py report"
    return [Heading(3, task.name), Figure(name, caption, picture), *sections.of_task(task, found)]


def make(folder: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Writes the page; returns the files.

    Args:
      folder: of the compact data.
      out: gets `study.html`, `study.md` and `figures/*.svg`.
    """
    page = document(folder)
    (out / FIGURES).mkdir(parents=True, exist_ok=True)
    written = [out / HTML, out / MARKDOWN]
    write_atomically(written[0], as_html(page))
    write_atomically(written[1], as_markdown(page))
    for block in page.blocks:
        if isinstance(block, Figure):
            path = out / FIGURES / f"{block.name}.svg"
            write_atomically(path, block.svg)
            written.append(path)
    return written


def as_markdown(page: Document) -> str:
    """The page as Markdown; pictures are files beside it."""
    parts = [f"# {page.title}"]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Text):
            parts.append(_marked(block.text))
        elif isinstance(block, Figure):
            parts.append(f"![{block.name}]({FIGURES}/{block.name}.svg)\n\n{_marked(block.caption)}")
        else:
            parts.append(_markdown_table(block))
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _marked(text: str) -> str:
    """Text whose asterisks (F*) are no emphasis; `code` stays as it is."""
    pieces = text.split("`")
    pieces[::2] = [piece.replace("*", "\\*") for piece in pieces[::2]]
    return "`".join(pieces)


def _cell(text: str) -> str:
    return _marked(text).replace("|", "\\|")


def as_html(page: Document) -> str:
    """The page as one HTML file without anything outside it."""
    parts = [f"<h1>{html.escape(page.title)}</h1>"]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Text):
            parts.append(f"<p>{_inline(block.text)}</p>")
        elif isinstance(block, Figure):
            caption = f"<figcaption>{html.escape(block.caption)}</figcaption>"
            parts.append(f"<figure>{block.svg}{caption}</figure>")
        else:
            parts.append(_html_table(block))
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(page.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _inline(text: str) -> str:
    """Escaped text, in which `code` is code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
    rows = "\n".join("<tr>" + "".join(map(_html_cell, row)) + "</tr>" for row in table.rows)
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{rows}\n</table></div>'


def _html_cell(text: str) -> str:
    verdicts = (summary.CONFIRMED, summary.REFUTED, summary.UNDECIDED)
    verdict = text.removesuffix(" in part 1")
    if verdict in verdicts:
        return f'<td class="{verdict}">{text}</td>'
    is_number = bool(text) and all(c in "0123456789.,+−–%[] ofs" for c in text)
    return f"<td{_NUMBER if is_number else ''}>{_inline(text)}</td>"


_NUMBER = ' class="number"'
