"""How a setting is declared: default, help, unit, source, range, resume rule, meaning in old files.

A group of settings is a frozen dataclass whose fields are made by `setting`; `schema.Config` is
composed of the groups. Everything else (flag, JSON key, checks, resume rule) follows from here.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from typing import Any, Final

IMPALA = "IMPALA, arXiv 1802.01561"

BONNET = "Bonnet et al. 2022"

FLENNERHAG = "Flennerhag et al. 2022, arXiv 2109.04504"

XU = "Xu et al. 2018, arXiv 1805.09801"

OURS = "our choice"

# What a resumed run may do with a setting: never change it, change it freely, or (the default)
# change it only with --override.
NEVER, FREELY, WITH_OVERRIDE = "never", "freely", "with --override"

MAX_FRAMES = 10**15

MAX_SEED = 2**31 - 1

# `value_if_missing` of a setting that every file has.
REQUIRED: Final = object()


def setting(
    default: Any,
    help_text: str,
    *,
    value_if_missing: Any = REQUIRED,
    source: str = "",
    unit: str = "",
    flag: str = "",
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: tuple[str, ...] = (),
    or_module: bool = False,
    on_resume: str = WITH_OVERRIDE,
    auto: bool = False,
    is_frames: bool = False,
    from_command_line_only: bool = False,
    also_called: tuple[str, ...] = (),
) -> Any:
    """Declares a setting: a dataclass field whose metadata has these arguments by name.

    Args:
      default: value of a new run; None if it is derived from other settings.
      help_text: of the flag.
      value_if_missing: for a setting that is newer than some run folders or exported agents: its
        value in a file without it. It never changes, even if the default does.
      source: where the default comes from.
      unit: of the value.
      flag: name of flag and JSON key, if it is not the field's (`lambda` is a keyword).
      low: smallest value of a number.
      high: largest value of a number.
      low_open: whether `low` itself is refused.
      high_open: whether `high` itself is refused.
      choices: the values of a text; empty if any text may be allowed.
      or_module: whether the text may also be `module:Class`, code of the user's own.
      on_resume: NEVER, FREELY or WITH_OVERRIDE.
      auto: whether the flag also takes "auto", which is None in the config.
      is_frames: whether the flag also takes numbers such as 1e6, 10M and 200_000_000.
      from_command_line_only: whether a saved value is only a record and never used: it names
        addresses that this process connects to, so it has to be given at this start.
      also_called: its names in other programs; for suggestions only.

    Returns:
      The dataclass field.
    """
    metadata = {
        "help": help_text,
        "value_if_missing": value_if_missing,
        "source": source,
        "unit": unit,
        "flag": flag,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "choices": choices,
        "or_module": or_module,
        "on_resume": on_resume,
        "auto": auto,
        "is_frames": is_frames,
        "from_command_line_only": from_command_line_only,
        "also_called": also_called,
    }
    return dataclasses.field(default=default, metadata=metadata)


# Setting -> values that code outside the package has added to its choices in this process. They
# are no choices of the command line, which cannot bring the code along.
_added: dict[str, set[str]] = {}


def add_choice(name: str, value: str) -> None:
    """Lets a setting have a further value in this process.

    Args:
      name: of the setting.
      value: printable, without white space around it.
    """
    _added.setdefault(name, set()).add(value)


def added_choices(name: str) -> tuple[str, ...]:
    """The values that `add_choice` has added to a setting."""
    return tuple(sorted(_added.get(name, ())))


# Longer texts are not mistyped names, and comparing them takes time.
MAX_COMPARED = 100


def nearest(value: str, allowed: typing.Iterable[str]) -> str:
    """ " (did you mean X?)" or nothing; case is ignored."""
    if len(value) > MAX_COMPARED:
        return ""
    lowered = {name.lower(): name for name in allowed}
    matches = difflib.get_close_matches(value.lower(), lowered, n=1)
    return f" (did you mean {lowered[matches[0]]}?)" if matches else ""


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
