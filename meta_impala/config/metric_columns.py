"""Names of the metric columns of what is learned besides γ and λ."""

from __future__ import annotations

from collections.abc import Iterable

_ALWAYS = ("gamma", "lambda")
PREFIXES = ("", "meta_gradient_", "x_step_")


def learned_columns(learned: Iterable[str]) -> tuple[str, ...]:
    """The columns after the fixed ones: value, meta-gradient and step of x of each name.

    Args:
      learned: names of meta-parameters; γ and λ have fixed columns.
    """
    others = [name for name in learned if name not in _ALWAYS]
    return tuple(prefix + name for name in others for prefix in PREFIXES)
