"""Settings of a population, their flags, and the record that it continues from; needs no Ray."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.config.number_flags import (
    MAX_COUNT,
    define_float,
    define_frames,
    define_integer,
)
from meta_impala.config.text import shown
from meta_impala.errors import UserError, one_line
from meta_impala.storage.files import make_folder, write_atomically, writing
from meta_impala.storage.json_files import read_json_object

# In the folder of the members: what was given at the start of the population.
_RECORD = "settings.json"
_MAX_RECORD_BYTES = 2**20

# Settings of every member: the population makes its own schedule.
OF_ALL_MEMBERS = {"meta_parameters": "none", "learning_rate_schedule": "constant"}

# What is adapted, with the range it is drawn from.
ADAPTED = {
    "learning_rate": "0.0001,0.005",
    "entropy_cost": "0.0005,0.02",
    "gamma": "0.95,0.999",
    "lambda": "0.8,0.999",
}


@dataclasses.dataclass(frozen=True)
class Population:
    """Settings of a population.

    Attributes:
      size: how many members.
      frames_of_each: environment frames that each is trained for.
      interval: frames between two selections.
      ranges: name -> (low, high) of what is adapted.
      cpus: that Ray is to give each member.
    """

    size: int
    frames_of_each: int
    interval: int
    ranges: dict[str, tuple[float, float]]
    cpus: float


def define_population_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """The flags `--population_…`.

    Args:
      flag_values: where; the flags of the command, if not given.
    """
    define_integer(
        "population_size",
        8,
        "Members. Each trains --total_frames / --population_size frames.",
        low=2,
        high=1000,
        flag_values=flag_values,
    )
    define_frames(
        "population_interval",
        None,
        "Frames of a member between two selections. Default: a twentieth of its frames.",
        flag_values=flag_values,
    )
    define_float(
        "population_cpus",
        1.0,
        "CPUs that Ray reserves for each running member.",
        low_open=True,
        high=MAX_COUNT,
        flag_values=flag_values,
    )
    for name, default in ADAPTED.items():
        flags.DEFINE_string(
            f"population_{name}",
            default,
            f"LOW,HIGH: range of --{name} in the population.",
            flag_values=flag_values,
        )


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    most = 1.0 if name in ("gamma", "lambda") else math.inf
    if not 0.0 < low < high < most:
        limit = " and below 1" if most == 1.0 else ""
        raise UserError(
            f"--population_{name}={text}: must be LOW,HIGH, two numbers above 0{limit}, the lower "
            f"first, for example {ADAPTED[name]}"
        )
    return low, high


def check_packages() -> None:
    """Raises UserError if Ray Tune, which trains a population, is not installed."""
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise UserError("population: needs Ray Tune: pip install 'meta_impala[distributed]'")


def refuse_in_members(given: Mapping[str, Any]) -> None:
    """Refuses what no member of a population can have: η that it learns, and further learners, for
    which it would wait in vain.

    Args:
      given: flag name -> value.

    Raises:
      UserError: naming the flag.
    """
    if given.get("meta_parameters", "none") != "none":
        raise UserError(
            f"--meta_parameters={given['meta_parameters']}: must be none; the population adapts "
            "γ and λ"
        )
    for name, value in (("learner_addresses", "empty"), ("learner_index", "0")):
        if given.get(name):
            raise UserError(
                f"--{name}={shown(str(given[name]))}: must be {value}; every member of a "
                "population has one learner"
            )


def population_of(given: flags.FlagValues, config: Config, action_repeat: int) -> Population:
    """The population that the flags describe.

    Args:
      given: has the flags `--population_…`.
      config: of all members together, resolved.
      action_repeat: of the environment.

    Raises:
      UserError: naming the flag, its value and what is allowed.
    """
    size, interval, cpus = (given[f"population_{n}"].value for n in ("size", "interval", "cpus"))
    each = -(-config.total_frames // size)
    batch = config.batch_size * config.unroll_length * action_repeat
    if interval is None:
        interval = max(-(-each // 20), batch)
    config_lib.check_frames(dataclasses.replace(config, total_frames=each), action_repeat)
    if not batch <= interval <= each:
        raise UserError(
            f"--population_interval={interval}: must be at least a batch, {batch}, and at most the "
            f"frames of a member, {each}"
        )
    ranges = {name: _range(name, given[f"population_{name}"].value) for name in ADAPTED}
    return Population(size, each, interval, ranges, cpus)


def write_record(
    members: pathlib.Path, population: Population, config: Config, arguments: Sequence[str]
) -> None:
    """Records what a population is of.

    Args:
      members: folder of the members.
      population: what it is of.
      config: of all members together, resolved.
      arguments: of the training of each member, without what the population decides.

    Raises:
      RunFailed: if it cannot be written.
    """
    record = {
        "population": dataclasses.asdict(population),
        "config": json.loads(config_lib.to_json(config)),
        "arguments": list(arguments),
    }
    with writing(members):
        make_folder(members, parents=True)
        write_atomically(members / _RECORD, json.dumps(record, indent=2) + "\n")


def recorded_arguments(members: pathlib.Path) -> list[str] | None:
    """The newest arguments of the members' training; None without a record.

    Raises:
      UserError: if the record is damaged.
    """
    record = _read_record(members)
    if record is None:
        return None
    arguments = record.get("arguments")
    if not isinstance(arguments, list) or not all(isinstance(text, str) for text in arguments):
        raise UserError(f"{members / _RECORD}: is damaged (its arguments are no list of texts)")
    return arguments


def refuse_changes(members: pathlib.Path, population: Population, config: Config) -> bool:
    """Refuses settings that differ from the record. Arguments as `changes`.

    Returns:
      Whether there is a record. Populations of older versions have none.

    Raises:
      UserError: naming every setting that differs, or if the record is damaged.
    """
    differences = changes(members, population, config)
    if differences:
        raise UserError(
            f"cannot continue this population with {differences}: this never changes in a "
            "population; use another --logdir"
        )
    return differences is not None


def changes(members: pathlib.Path, population: Population, config: Config) -> str | None:
    """Compares what is given with the record; what a run may change freely, a population may.

    Args:
      members: folder of the members of a population that was started.
      population: what it is to be of.
      config: of all members together, resolved.

    Returns:
      Every setting that differs with both values, as text; None without a record.

    Raises:
      UserError: if the record is damaged.
    """
    record = _read_record(members)
    if record is None:
        return None
    path = members / _RECORD
    try:
        before = Population(**record["population"])
        saved = config_lib.from_json(json.dumps(record["config"]), path)
        old, new = _flags(before, saved), _flags(population, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({one_line(error)})") from None
    changed: dict[str, tuple[Any, Any]] = {
        name: (new[name], old[name]) for name in new if new[name] != old[name]
    }
    for name in config_lib.differing(saved, config):
        if name not in {*ADAPTED, *new}:
            field = config_lib.FIELDS[name].name
            changed[name] = (getattr(config, field), getattr(saved, field))
    return ", ".join(
        f"--{name}={shown(after)} (it has {shown(before)})"
        for name, (after, before) in changed.items()
    )


def _read_record(members: pathlib.Path) -> dict[str, Any] | None:
    path = members / _RECORD
    try:
        return read_json_object(path, _MAX_RECORD_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None


def _flags(population: Population, config: Config) -> dict[str, Any]:
    """What a population is of, by flag name."""
    return {
        "total_frames": config.total_frames,
        "seed": config.seed,
        "population_size": population.size,
        "population_interval": population.interval,
        "population_cpus": population.cpus,
        **{
            f"population_{name}": f"{low},{high}"
            for name, (low, high) in sorted(population.ranges.items())
        },
    }
