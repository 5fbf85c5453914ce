"""HTML from values: text of files and users is always escaped, this package's own is not.

Everything that is put into a page is a `str`, which is escaped, or a `Markup`, which is not. Only
the functions here make a `Markup`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

from meta_impala import errors
from meta_impala.config.text import shown


class Markup(str):
    """HTML that is safe to put into a page as it is."""

    __slots__ = ()


def escaped(value: object, longest: int = 200) -> Markup:
    """Any value as text: control characters escaped, shortened, then escaped for HTML."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(shown(value, longest)))


def element(name: str, *content: object, **attributes: str) -> Markup:
    """An element with its content, in order.

    Args:
      name: of the element.
      content: texts (escaped) and `Markup`.
      attributes: `class_` becomes `class`, `data_label` becomes `data-label`; a value is
        escaped where it does not print.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(errors.escaped(value))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{pairs}>{joined(content)}</{name}>")


def joined(parts: Iterable[object]) -> Markup:
    """Concatenates parts."""
    return Markup("".join(escaped(part, longest=4000) for part in parts))


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    class_: str = "",
    labels: Sequence[str] | None = None,
) -> Markup:
    """A table whose first column names its rows; on a narrow screen every row becomes a card.

    Args:
      head: names of the columns.
      rows: as many cells each.
      class_: of the table.
      labels: of the cards' lines; None for `head`.
    """
    names = list(labels) if labels is not None else [str(name) for name in head]
    header = element("tr", *(element("th", name, scope="col") for name in head))
    body = []
    for first, *others in rows:
        cells = [element("th", first, scope="row")]
        cells += [
            element("td", cell, data_label=name)
            for name, cell in zip(names[1:], others, strict=True)
        ]
        body.append(element("tr", *cells))
    return element("table", element("thead", header), element("tbody", *body), class_=class_)


def data_address(kind: str, content: bytes) -> str:
    """A file as an address that holds it whole.

    Args:
      kind: its media type, such as `image/png`.
      content: the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
