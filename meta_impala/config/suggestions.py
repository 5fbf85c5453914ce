"""Suggestions for mistyped flags."""

from __future__ import annotations

import difflib

from absl import flags

from meta_impala.config.fields import MAX_COMPARED
from meta_impala.config.schema import FIELDS
from meta_impala.config.text import shown

_MOST = 3


def unknown_flag(name: str, flag_values: flags.FlagValues) -> str:
    """The message for a flag that does not exist, with the likely intended flags.

    Args:
      name: as given, without dashes and value.
      flag_values: the flags that exist.
    """
    similar = similar_flags(name, flag_values)
    hint = f" (did you mean {' or '.join(f'--{other}' for other in similar)}?)" if similar else ""
    return f"--{shown(name)}: there is no such flag{hint}"


def similar_flags(name: str, flag_values: flags.FlagValues) -> list[str]:
    """The likely intended flags, the likeliest first; at most three.

    In this order: equal except for case and dashes; its name in other programs; close in spelling;
    flags that begin with it, or contain it as a word.

    Args:
      name: as given, without dashes and value.
      flag_values: the flags that exist.
    """
    if len(name) > MAX_COMPARED:
        return []
    wanted = name.lower().replace("-", "_").strip("_")
    known = [other for other in flag_values if not other.startswith("?")]
    negated = {f"no{other}" for other in known if flag_values[other].boolean}
    if wanted in known or wanted in negated:
        return [wanted]
    synonyms = [
        other
        for other, field in FIELDS.items()
        if other in flag_values and wanted in field.metadata["also_called"]
    ]
    if synonyms:
        return synonyms
    # Negations only for a name written as one, or --no... would match too much.
    candidates = known + (sorted(negated) if wanted.startswith("no") else [])
    close = _closest(wanted, candidates, 0.75)
    if close:
        return close
    parts = [other for other in known if other.startswith(wanted) or wanted in other.split("_")]
    if 1 <= len(parts) <= _MOST and len(wanted) > 1:
        return sorted(parts, key=lambda other: (other not in FIELDS, other))
    return _closest(wanted, candidates, 0.6)


def _closest(wanted: str, candidates: list[str], cutoff: float) -> list[str]:
    """The closest in spelling, ties included (`adam_beta` has two)."""
    close = difflib.get_close_matches(wanted, candidates, _MOST, cutoff)
    ratios = [difflib.SequenceMatcher(None, other, wanted).ratio() for other in close]
    return [other for other, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.02]
