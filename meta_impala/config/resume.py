"""`config.json`, and what a continued run, or another learner of a run, may change."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Container, Mapping
from typing import Any

from meta_impala.config.fields import FREELY, NEVER, REQUIRED, nearest
from meta_impala.config.meta_parameter_checks import check_reference
from meta_impala.config.schema import FIELDS, Config
from meta_impala.config.text import shown
from meta_impala.config.validation import resolve
from meta_impala.config.window_checks import check_meta_weights
from meta_impala.errors import UserError

# Settings that come from the command line of this start only, by flag name.
_COMMAND_LINE_ONLY = {
    name: field for name, field in FIELDS.items() if field.metadata["from_command_line_only"]
}

# Settings in which the learners of a run may differ.
_PER_LEARNER_FIELDS = {
    "env_threads", "queue_capacity", "learner_device", *_COMMAND_LINE_ONLY,
}  # fmt: skip

# Unknown keys of a file that are named in its message.
_MOST_NAMES = 5


def join_learners(first: Config, given: dict[str, Any]) -> Config:
    """The config of a further learner: the first one's settings, with its own addresses.

    Args:
      first: the config of learner 0.
      given: flag name -> value, of the flags the user gave this one.

    Raises:
      UserError: naming every setting that was given and differs from the first learner's.
    """
    first = without_addresses(first)
    given = _without_same(first, given)
    wanted = resolve(
        dataclasses.replace(first, **{FIELDS[name].name: value for name, value in given.items()}),
        is_stored=True,
    )
    different = [
        f"--{name}={after} (it has {before})"
        for name in given
        if name not in _PER_LEARNER_FIELDS
        and (before := getattr(first, FIELDS[name].name))
        != (after := getattr(wanted, FIELDS[name].name))
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


def values_if_missing() -> dict[str, Any]:
    """The values of these settings in files that are older than they are, by flag name."""
    return {
        name: field.metadata["value_if_missing"]
        for name, field in FIELDS.items()
        if field.metadata["value_if_missing"] is not REQUIRED
    }


def from_json(text: str, path: str | os.PathLike[str]) -> Config:
    """The config of a run folder or an exported agent, written by this version or an older one.

    A setting newer than the file has its `value_if_missing`. Settings that come from the
    command line only have their defaults (`saved_addresses` reads them).

    Args:
      text: of the file.
      path: of the file, for messages.

    Raises:
      UserError: if the text is not JSON, or a key is missing, unknown or has a bad value.
    """
    values = _object(text, path)
    known = values_if_missing() | values
    missing = [name for name in FIELDS if name not in known]
    unknown = [name for name in values if name not in FIELDS]
    if missing:
        raise UserError(f"{path}: missing keys: {', '.join(missing)}")
    if unknown:
        names = [shown(name) + nearest(name, FIELDS) for name in unknown[:_MOST_NAMES]]
        more = "" if len(unknown) <= _MOST_NAMES else f" and {len(unknown) - _MOST_NAMES} more"
        raise UserError(f"{path}: unknown keys: {', '.join(names)}{more}")
    try:
        config = resolve(
            Config(**{FIELDS[name].name: value for name, value in known.items()}), is_stored=True
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return without_addresses(config)


def refuse_addresses(given: Mapping[str, Any], typed: Container[str]) -> None:
    """Checks flags that a file gives, such as a suite, which may be from somebody else.

    Args:
      given: flag name -> value, of the file and of the command line.
      typed: names of those that the command line gives.

    Raises:
      UserError: if the file gives a setting that comes from the command line only.
    """
    for name, field in _COMMAND_LINE_ONLY.items():
        if name in given and name not in typed and given[name] != field.default:
            raise UserError(
                f"--{name}={shown(given[name])}: says what this program connects to, so that it "
                f"must not come from a file; give it on the command line (--set={name}=VALUE)"
            )


def without_addresses(config: Config) -> Config:
    """The config with the defaults of all settings that come from the command line only."""
    defaults: dict[str, Any] = {field.name: field.default for field in _COMMAND_LINE_ONLY.values()}
    return dataclasses.replace(config, **defaults)


def saved_addresses(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The recorded values of settings that come from the command line only.

    For messages about a run that is continued without them.

    Args:
      text: of the file.
      path: of the file, for messages.

    Returns:
      Flag name -> value, of those that differ from their defaults.

    Raises:
      UserError: if the text is not a JSON object.
    """
    values = _object(text, path)
    return {
        name: values[name]
        for name, field in _COMMAND_LINE_ONLY.items()
        if name in values and values[name] != field.default
    }


def _object(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold one JSON object")
    return values


def differing(saved: Config, wanted: Config) -> list[str]:
    """Settings in which they differ, of those that do not change freely in a run; flag names.

    A network left to "auto", and the digest of a file left to be computed, were chosen when the run
    started; a file may be named from another folder; a place where nothing joins the network makes
    no difference.
    """
    names = [
        name
        for name, field in FIELDS.items()
        if field.metadata["on_resume"] != FREELY
        and getattr(saved, field.name) != getattr(wanted, field.name)
    ]
    if wanted.network == "auto":
        names = [name for name in names if name != "network"]
    if not wanted.eta_schedule_sha256:
        names = [name for name in names if name != "eta_schedule_sha256"]
    if _may_be_one_file(saved.eta_schedule_file, wanted.eta_schedule_file):
        names = [name for name in names if name != "eta_schedule_file"]
    if not (saved.embedding_place_matters or wanted.embedding_place_matters):
        names = [name for name in names if name != "eta_embedding_place"]
    return names


def differences(saved: Config, wanted: Config) -> list[str]:
    """The settings of `differing` with both values, for messages."""
    return [_difference(name, saved, wanted) for name in differing(saved, wanted)]


def _difference(name: str, saved: Config, wanted: Config) -> str:
    field = FIELDS[name].name
    before, after = getattr(saved, field), getattr(wanted, field)
    return f"--{name}={shown(after)} (the run has {shown(before)})"


def merge_for_resume(saved: Config, changes: dict[str, Any], *, override: bool | None) -> Config:
    """The config of a continued run: the saved one with the flags given this time.

    Settings that come from the command line only are those of `changes`, or their defaults.

    Args:
      saved: the run's config.
      changes: flag name -> value, of the flags the user gave.
      override: whether --override was given; None if there is no such flag.

    Raises:
      UserError: naming every difference that is not allowed; or what the changed config has in η',
        or in weights that nothing reads, and a new run may not.
    """
    saved = without_addresses(saved)
    changes = _without_same(saved, changes)
    wanted = dataclasses.replace(
        saved, **{FIELDS[name].name: value for name, value in changes.items()}
    )
    if "meta_gradient_mode" not in changes:
        saved, wanted = _adapt_meta_gradient_mode(saved, wanted)
    wanted = resolve(wanted, is_stored=True)
    _refuse_differences(saved, wanted, override=override)
    if differing(saved, wanted):
        check_reference(wanted)
        check_meta_weights(wanted, saved)
    if wanted.network == "auto":
        wanted = dataclasses.replace(wanted, network=saved.network)
    return wanted


def _without_same(saved: Config, given: dict[str, Any]) -> dict[str, Any]:
    """The given flags without those that are spelled in another way and mean what is saved."""
    # Left open, it is that of the file as it was when the run began.
    same = {"eta_schedule_sha256": ""}
    path = given.get("eta_schedule_file")
    if isinstance(path, str) and _may_be_one_file(saved.eta_schedule_file, path):
        same["eta_schedule_file"] = path
    return {name: value for name, value in given.items() if (name, value) not in same.items()}


def _may_be_one_file(one: str, other: str) -> bool:
    """Whether one path is absolute and ends as the other: `/home/x/runs/a.csv` and `runs/a.csv`.

    A run saves an absolute path, those of older versions what was typed; and what is typed now may
    be typed in another folder, or on another machine. The run reads its copy in any case.
    """
    absolute, relative = (one, other) if os.path.isabs(one) else (other, one)
    if not os.path.isabs(absolute) or os.path.isabs(relative):
        return False
    end = [part for part in pathlib.PurePath(os.path.normpath(relative)).parts if part != ".."]
    if end and end[0].startswith("~"):
        del end[0]
    parts = pathlib.PurePath(os.path.normpath(absolute)).parts
    return bool(end) and parts[-len(end) :] == tuple(end)


def _adapt_meta_gradient_mode(saved: Config, wanted: Config) -> tuple[Config, Config]:
    """Both configs with the mode that fits the wanted number of parts.

    nested_tapes and reverse_over_forward compute the same number, so a run may change between
    them when its number of learners or micro-batches changes.
    """
    if saved.meta_gradient_mode not in ("nested_tapes", "reverse_over_forward"):
        return saved, wanted
    wanted = resolve(dataclasses.replace(wanted, meta_gradient_mode="auto"), is_stored=True)
    if (wanted.micro_batches, wanted.num_learners) == (saved.micro_batches, saved.num_learners):
        return saved, dataclasses.replace(wanted, meta_gradient_mode=saved.meta_gradient_mode)
    return dataclasses.replace(saved, meta_gradient_mode=wanted.meta_gradient_mode), wanted


def _refuse_differences(saved: Config, wanted: Config, *, override: bool | None) -> None:
    never: list[str] = []
    guarded: list[str] = []
    for name in differing(saved, wanted):
        is_never = FIELDS[name].metadata["on_resume"] == NEVER
        (never if is_never else guarded).append(_difference(name, saved, wanted))
    if never:
        raise UserError(
            f"cannot continue this run with {', '.join(never)}: this never changes in a run; use "
            "another folder"
        )
    if guarded and not override:
        raise UserError(
            f"cannot continue this run with {', '.join(guarded)}; "
            f"{'' if override is None else 'give --override to change it, or '}use another folder"
        )
