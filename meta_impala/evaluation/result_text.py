"""The result of an evaluation as the terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meta_impala.errors import printable

# The lines of the printed table; the file has more.
_PRINTED = (
    "environment",
    "protocol",
    "starts",
    "frames_trained",
    "gamma",
    "lambda",
    "episodes",
    "mean",
    "standard_error",
    "median",
    "min",
    "max",
    "human_normalised",
    "mean_episode_frames",
)
_FOUR_DECIMALS = ("gamma", "lambda", "human_normalised")


def table(found: Mapping[str, Any]) -> str:
    """The printed table of a result."""
    width = max(map(len, _PRINTED)) + 1
    lines = []
    for name in _PRINTED:
        value = found[name]
        if value is None:
            text = "none"
        elif isinstance(value, float):
            text = f"{value:,.{4 if name in _FOUR_DECIMALS else 2}f}"
        else:
            text = f"{value:,}" if isinstance(value, int) else printable(value)
        lines.append(f"{name + ':':<{width}} {text}")
    return "\n".join(lines)


def hint(found: Mapping[str, Any]) -> str:
    """What is worth knowing of a result beside its table; empty for nothing."""
    lines = []
    cut, limit = found["episodes_at_limit"], found["max_episode_frames"]
    if cut and limit is None:
        lines.append(f"{cut} of {found['episodes']} games lasted as long as the environment allows")
    elif cut:
        lines.append(
            f"{cut} of {found['episodes']} games had not ended after {limit:,} frames and were "
            "cut there; their returns count up to that point (--max_episode_frames changes it)"
        )
    if left_out := found.get("episodes_left_out", 0):
        lines.append(
            f"{left_out} of {found['episodes'] + left_out} games are left out: their returns are "
            "not finite"
        )
    if found["episodes"] == 1:
        lines.append("a standard error needs more games than one (--episodes)")
    return "\n".join(lines)
