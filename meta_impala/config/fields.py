"""How a setting is declared: default, help, unit, source, range, resume rule."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any

IMPALA = "IMPALA, arXiv 1802.01561"

BONNET = "Bonnet et al. 2022"

XU = "Xu et al. 2018, arXiv 1805.09801"

OURS = "our choice"

# What a resumed run may do with a setting: never change it, change it freely, or (the default)
# change it only with --override.
NEVER, FREELY, WITH_OVERRIDE = "never", "freely", "with --override"

MAX_FRAMES = 10**15


def setting(
    default: Any,
    help_text: str,
    *,
    source: str = "",
    unit: str = "",
    flag: str = "",
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: tuple[str, ...] = (),
    on_resume: str = WITH_OVERRIDE,
    auto: bool = False,
    is_recent: bool = False,
) -> Any:
    metadata = {
        "auto": auto,
        "is_recent": is_recent,
        "help": help_text,
        "source": source,
        "unit": unit,
        "flag": flag,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "choices": choices,
        "on_resume": on_resume,
    }
    return dataclasses.field(default=default, metadata=metadata)


def nearest(value: str, allowed: typing.Iterable[str]) -> str:
    """ " (did you mean X?)" or nothing."""
    matches = difflib.get_close_matches(value, list(allowed), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def allowed_range(metadata: typing.Mapping[str, Any]) -> str:
    """The values a number may have, in words."""
    low, high = metadata["low"], metadata["high"]
    if low is not None and high is not None:
        left = "(" if metadata["low_open"] else "["
        right = ")" if metadata["high_open"] else "]"
        return f"in {left}{low}, {high}{right}"
    if low is not None:
        return f"{'above' if metadata['low_open'] else 'at least'} {low}"
    return f"at most {high}"
