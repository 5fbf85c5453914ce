"""What the schedules of η other than `learned` need, and the values that they may give.

Each check raises UserError with one line. The configs here are derived.
"""

from __future__ import annotations

import math
import re

from meta_impala.config.eta_settings import PAIRS_OF_OTHERS
from meta_impala.config.hyper_parameters import (
    GAMMA,
    LAMBDA,
    TABLE,
    allowed_without_learning,
    numbers_by_name,
    numbers_of,
    stops_learning,
)
from meta_impala.config.schema import Config
from meta_impala.config.text import shown
from meta_impala.errors import UserError

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

# Settings that are empty by default, and the schedule that they are for.
_ONLY_FOR = {
    "eta_schedule_file": "replay",
    "eta_schedule_sha256": "replay",
    "eta_random_ranges": "random",
    "eta_linear_ends": "linear",
}


def check_eta_schedule(config: Config) -> None:
    """What the schedules other than learned and fixed need."""
    schedule = config.eta_schedule
    for name, wanted in _ONLY_FOR.items():
        if getattr(config, name) and schedule != wanted:
            raise UserError(
                f"--{name}={shown(getattr(config, name))}: needs --eta_schedule={wanted}; it is "
                f"{schedule}"
            )
    if schedule in ("fixed", "random", "mixture"):
        _check_constants(config)
    if schedule in ("learned", "fixed"):
        return
    if not config.varied:
        raise UserError(
            f"--eta_schedule={schedule}: needs --meta_parameters to say what varies; it is none"
        )
    if schedule in ("random", "mixture"):
        _check_acts_at_steps(config)
    if schedule in PAIRS_OF_OTHERS:
        _check_names_of_pairs(config)
    checks = {
        "random": _check_draws,
        "mixture": _check_mixture,
        "replay": _check_replay,
        "linear": _check_lines,
    }
    checks[schedule](config)


def _check_constants(config: Config) -> None:
    """The constants, at which such a run is evaluated, lie where the network can be told them."""
    for name in config.varied:
        low, high = allowed_without_learning(config, name)
        constant = numbers_of(config, name).value
        if not low <= constant <= high:
            raise UserError(
                f"--meta_parameter_ranges={config.meta_parameter_ranges}: the range of {name}, "
                f"[{low:g}, {high:g}], must contain its constant, {constant:g}, with "
                f"--eta_schedule={config.eta_schedule}"
            )
        _check_clip(name, f"--{name}={constant:g}", constant)


def _check_clip(name: str, given: str, *values: float) -> None:
    if any(stops_learning(name, value) for value in values):
        raise UserError(f"{given}: {name} must be above 0 where --meta_parameters names it")


def _check_acts_at_steps(config: Config) -> None:
    """What is drawn for an unroll acts on that unroll alone."""
    for name in config.varied:
        if not TABLE[name].per_state:
            raise UserError(
                f"--meta_parameters={config.meta_parameters}: {name} acts on the update as a "
                "whole, so unrolls of one batch cannot differ in it; must not be named with "
                f"--eta_schedule={config.eta_schedule}"
            )


def _check_names_of_pairs(config: Config) -> None:
    """What has two numbers also varies."""
    flag = PAIRS_OF_OTHERS[config.eta_schedule]
    for name in numbers_by_name(flag, getattr(config, flag), 2):
        if name not in config.varied:
            raise UserError(
                f"--{flag}={shown(getattr(config, flag))}: {name} does not vary; must be among "
                f"--meta_parameters={config.meta_parameters}"
            )


def _check_replay(config: Config) -> None:
    if not config.eta_schedule_file:
        raise UserError(
            "--eta_schedule_file=: must be given with --eta_schedule=replay, the metrics.csv of "
            "another run"
        )
    digest = config.eta_schedule_sha256
    if digest and not _SHA256.fullmatch(digest):
        raise UserError(
            f"--eta_schedule_sha256={shown(digest)}: must be 64 hexadecimal digits in lower case, "
            "or empty"
        )


def _checked_pair(config: Config, name: str, wanted: str) -> tuple[str, tuple[float, float]]:
    """The flag with the two numbers of a meta-parameter, and these; NaN if they are none.

    Raises:
      UserError: if they are not given.
    """
    schedule = config.eta_schedule
    flag = PAIRS_OF_OTHERS[schedule]
    try:
        pair = config.eta_pair(schedule, name)
    except KeyError:
        raise UserError(
            f"--{flag}={shown(getattr(config, flag))}: must have {name}:{wanted} with "
            f"--meta_parameters={config.meta_parameters}"
        ) from None
    except ValueError:
        pair = (math.nan, math.nan)
    return f"eta_{schedule}_{name}" if name in (GAMMA, LAMBDA) else flag, pair


def _check_lines(config: Config) -> None:
    for name in config.varied:
        flag, (start, end) = _checked_pair(config, name, "START,END")
        low, high = allowed_without_learning(config, name)
        if not (low <= start <= high and low <= end <= high):
            example = ", for example 0.99,0.997" if name in (GAMMA, LAMBDA) else f" for {name}"
            raise UserError(
                f"--{flag}={shown(getattr(config, flag))}: must be two numbers START,END in "
                f"[{low:g}, {high:g}]{example}"
            )
        _check_clip(name, f"--{flag}={shown(getattr(config, flag))}", start, end)


def _check_draws(config: Config) -> None:
    for name in config.varied:
        flag, (low, high) = _checked_pair(config, name, "LOW,HIGH")
        lowest, highest = allowed_without_learning(config, name)
        if not lowest < low < high < highest:
            example = ", for example 0.9,0.999" if name in (GAMMA, LAMBDA) else f" for {name}"
            raise UserError(
                f"--{flag}={shown(getattr(config, flag))}: must be two numbers LOW,HIGH with "
                f"{lowest:g} < LOW < HIGH < {highest:g}{example}"
            )


def _check_mixture(config: Config) -> None:
    try:
        members = config.eta_members
    except ValueError:
        members = ()
    given = f"--eta_mixture={shown(config.eta_mixture)}"
    discounts = [m[name] for m in members for name in (GAMMA, LAMBDA) if name in m]
    if not members or not all(0.0 <= value <= 1.0 for value in discounts):
        raise UserError(
            f"{given}: must be pairs γ,λ of numbers in [0, 1], or NAME:NUMBER,..., separated by "
            "semicolons, for example 0.99,1;0.995,1"
        )
    for name in dict.fromkeys((*config.varied, *(name for member in members for name in member))):
        low, high = allowed_without_learning(config, name)
        values = [member.get(name) for member in members]
        if name in config.varied and not all(v is not None and low <= v <= high for v in values):
            raise UserError(
                f"{given}: every member must have {name}:NUMBER in [{low:g}, {high:g}] with "
                f"--meta_parameters={config.meta_parameters}"
            )
        fixed = numbers_of(config, name).value
        if name not in config.varied and any(value not in (None, fixed) for value in values):
            raise UserError(
                f"{given}: {name} must be {fixed:g} (--{name}) throughout with "
                f"--meta_parameters={config.meta_parameters}"
            )
