"""Text that users choose (names of folders, labels, settings), made safe for figures and terminals.

matplotlib reads `$` as the start of a formula and leaves labels that begin with `_` out of legends;
names of files may contain bytes that are not UTF-8, control characters, or hundreds of letters.
"""

from __future__ import annotations

from meta_impala.errors import escaped

_LONGEST = 60


def printable(text: str) -> str:
    """The text with what cannot be printed replaced: `?` for undecodable bytes, escapes for control
    characters."""
    return escaped(text.encode("utf-8", "replace").decode("utf-8"))


def figure_text(text: str, longest: int = _LONGEST) -> str:
    """The text for matplotlib: unchanged, but without its middle if it is too long."""
    text = printable(text)
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
