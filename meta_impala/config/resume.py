"""`config.json`, and what a continued run, or another learner of a run, may change."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from meta_impala.config.fields import FREELY, NEVER, nearest
from meta_impala.config.schema import FIELDS, Config
from meta_impala.config.validation import resolve
from meta_impala.errors import UserError

# What the learners of a run may differ in.
_OF_A_LEARNER = (
    "learner_index", "env_threads", "queue_capacity", "learner_device", "ray_address",
)  # fmt: skip


def join_learners(first: Config, given: dict[str, Any]) -> Config:
    """The config of another learner than the first: the first one's, and what is its own.

    Args:
      first: the config of learner 0.
      given: flag name -> value, of the flags the user gave this one.

    Raises:
      UserError: naming every other setting that differs.
    """
    wanted = resolve(
        dataclasses.replace(first, **{FIELDS[name].name: value for name, value in given.items()})
    )
    names = [name for name in given if name not in _OF_A_LEARNER]
    different = [
        f"--{name}={getattr(wanted, FIELDS[name].name)} (it has {before})"
        for name in names
        if (before := getattr(first, FIELDS[name].name)) != getattr(wanted, FIELDS[name].name)
    ]
    if different:
        raise UserError(
            f"--learner_index={wanted.learner_index}: learner 0 has other settings: "
            f"{', '.join(different)}; must be the same, or left out"
        )
    return wanted


def to_json(config: Config) -> str:
    """`config.json`: flag names and values, in the order of the dataclass."""
    values = {name: getattr(config, field.name) for name, field in FIELDS.items()}
    return json.dumps(values, indent=2) + "\n"


def from_json(text: str, path: str | os.PathLike[str]) -> Config:
    """The config of a run folder.

    Raises:
      UserError: if the text is not JSON, or a key is missing, unknown or has a bad value.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold one JSON object")
    # A run older than a setting was made as its default makes it.
    missing = [n for n, f in FIELDS.items() if n not in values and not f.metadata["is_recent"]]
    unknown = [name for name in values if name not in FIELDS]
    if missing:
        raise UserError(f"{path}: missing keys: {', '.join(missing)}")
    if unknown:
        raise UserError(
            f"{path}: unknown keys: {', '.join(name + nearest(name, FIELDS) for name in unknown)}"
        )
    try:
        return resolve(Config(**{FIELDS[name].name: value for name, value in values.items()}))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def differing(saved: Config, wanted: Config) -> list[str]:
    """Settings in which they differ, of those that do not change freely in a run; flag names.

    A network left to "auto" was chosen when the run began.
    """
    return [
        name
        for name, field in FIELDS.items()
        if field.metadata["on_resume"] != FREELY
        and getattr(saved, field.name) != getattr(wanted, field.name)
        and not (name == "network" and wanted.network == "auto")
    ]


def merge_for_resume(saved: Config, changes: dict[str, Any], *, override: bool) -> Config:
    """The config of a continued run: the saved one with the flags given this time.

    Args:
      saved: the run's config.
      changes: flag name -> value, of the flags the user gave.
      override: whether --override was given.

    Raises:
      UserError: naming every difference that is not allowed.
    """
    wanted = dataclasses.replace(
        saved, **{FIELDS[name].name: value for name, value in changes.items()}
    )
    modes = ("nested_tapes", "reverse_over_forward")
    if "meta_gradient_mode" not in changes and saved.meta_gradient_mode in modes:
        # Two ways to one number. Which one serves may change with the number of parts.
        wanted = resolve(dataclasses.replace(wanted, meta_gradient_mode="auto"))
        parts = (wanted.micro_batches, wanted.num_learners)
        if parts == (saved.micro_batches, saved.num_learners):
            wanted = dataclasses.replace(wanted, meta_gradient_mode=saved.meta_gradient_mode)
        else:
            saved = dataclasses.replace(saved, meta_gradient_mode=wanted.meta_gradient_mode)
    wanted = resolve(wanted)
    never: list[str] = []
    guarded: list[str] = []
    for name in differing(saved, wanted):
        field = FIELDS[name]
        before, after = getattr(saved, field.name), getattr(wanted, field.name)
        difference = f"--{name}={after} (the run has {before})"
        (never if field.metadata["on_resume"] == NEVER else guarded).append(difference)
    if wanted.network == "auto":
        wanted = dataclasses.replace(wanted, network=saved.network)
    if never:
        raise UserError(
            f"cannot continue this run with {', '.join(never)}: this never changes in a run; use "
            "another --logdir"
        )
    if guarded and not override:
        raise UserError(
            f"cannot continue this run with {', '.join(guarded)}; give --override to change it, "
            "or use another --logdir"
        )
    return wanted
