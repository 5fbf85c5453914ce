"""Names of the metric columns of what is learned besides γ and λ of the head that acts."""

from __future__ import annotations

from collections.abc import Iterable

_ALWAYS = ("gamma", "lambda")
PREFIXES = ("", "meta_gradient_", "x_step_")
_HEAD = "_head_"


def of_head(name: str, head: int) -> str:
    """The name of a meta-parameter of one policy and value head.

    Args:
      name: of the row.
      head: 1 is the head that acts; auxiliary heads follow.
    """
    return name if head == 1 else f"{name}{_HEAD}{head}"


def row_and_head(name: str) -> tuple[str, int]:
    """The name of the row, and the head: what `of_head` was made of."""
    row, separator, head = name.rpartition(_HEAD)
    return (row, int(head)) if separator and head.isdecimal() else (name, 1)


def of_all_heads(learned: Iterable[str], auxiliary_heads: int) -> tuple[str, ...]:
    """The names of what is learned, head by head."""
    learned = tuple(learned)
    return tuple(of_head(name, 1 + head) for head in range(1 + auxiliary_heads) for name in learned)


def learned_columns(learned: Iterable[str]) -> tuple[str, ...]:
    """The columns after the fixed ones: value, meta-gradient and step of x of each name.

    Args:
      learned: names of meta-parameters; γ and λ have fixed columns.
    """
    others = [name for name in learned if name not in _ALWAYS]
    return tuple(prefix + name for name in others for prefix in PREFIXES)
