"""Variants: the runs that share every setting but game, seed and what a resumed run may change."""

from __future__ import annotations

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meta_impala import config as config_lib
from meta_impala.config.hyper_parameters import TABLE
from meta_impala.config.schema import field_type

_LETTERS = {name: row.symbol for name, row in TABLE.items()}


def base_label(config: Mapping[str, Any]) -> str:
    """What is learned, or the fixed γ and λ: `meta {γ, λ}, γ' 0.995` or `IMPALA, γ 0.99`."""
    if "population" in config:
        return f"population of {config['population']['size']}"
    if config["meta_parameters"] == "none":
        fixed = f"IMPALA, γ {config['gamma']:g}"
        return fixed if config["lambda"] == 1.0 else f"{fixed}, λ {config['lambda']:g}"
    learned = ", ".join(_LETTERS.get(name, name) for name in config["meta_parameters"].split(","))
    schedule = config.get("eta_schedule", "learned")
    if schedule != "learned":
        return f"{schedule} {{{learned}}}, nothing learned"
    reference = config.get("reference_gamma")
    label = f"meta {{{learned}}}" + (f", γ' {reference:g}" if reference is not None else "")
    if "gamma" not in config["meta_parameters"].split(","):
        label += f", γ {config['gamma']:g}"
    return label


def _what_defines(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a variant; 1 is 1.0."""
    free = {
        name
        for name, field in config_lib.FIELDS.items()
        if field.metadata["on_resume"] == config_lib.FREELY
    }
    given = {
        name: float(value) if _is_whole_float(name, value) else value
        for name, value in config.items()
    }
    settings = {
        name: value
        for name, value in (config_lib.values_if_missing() | given).items()
        if name not in free | {"environment", "seed", "protocol"}
    }
    joins = settings.get("eta_embedding_size") or settings.get("last_action_and_reward")
    if settings.get("core") == "lstm" or not joins:  # see `Config.embedding_place_matters`
        settings.pop("eta_embedding_place", None)
    if "population" in settings:  # a result, not a setting
        population = settings.pop("population")
        settings = {n: v for n, v in settings.items() if n not in population["ranges"]}
        settings |= {f"population_{n}": population[n] for n in ("size", "interval", "ranges")}
    return settings


def _is_whole_float(name: str, value: Any) -> bool:
    """Whether it is a setting with a float for a value that somebody wrote as a whole number."""
    field = config_lib.FIELDS.get(name)
    return type(value) is int and field is not None and field_type(field)[0] is float


def labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each config: equal for one variant, different for two.

    Variants that `base_label` cannot tell apart get the settings in which they differ appended.
    """
    defining = [_what_defines(config) for config in configs]
    keys = list(map(_exact, defining))
    found = _labels(configs, defining, str)
    pairs = set(zip(found, keys, strict=True))
    if not len(pairs) == len(set(found)) == len(set(keys)):  # 32 and "32" look the same
        found = _labels(configs, defining, _exact)
    return found


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _labels(
    configs: Sequence[Mapping[str, Any]],
    defining: Sequence[Mapping[str, Any]],
    text: Callable[[Any], str],
) -> list[str]:
    alike: dict[str, list[int]] = collections.defaultdict(list)
    for index, config in enumerate(configs):
        alike[base_label(config)].append(index)
    found = [""] * len(configs)
    for label, indices in alike.items():
        names = sorted({name for index in indices for name in defining[index]})
        differing = [
            name
            for name in names
            if len({_exact(defining[index].get(name)) for index in indices}) > 1
        ]
        for index in indices:
            values = [f"{name}={text(defining[index].get(name))}" for name in differing]
            found[index] = ", ".join([label, *values])
    return found
