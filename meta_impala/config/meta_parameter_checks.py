"""Settings of meta-parameters that do not go together: ranges, starts, and what is learned."""

from __future__ import annotations

import math
from collections.abc import Iterable

from meta_impala.config.hyper_parameters import (
    GAMMA,
    LAMBDA,
    TABLE,
    numbers_by_name,
    numbers_of,
)
from meta_impala.config.schema import Config
from meta_impala.errors import UserError


def check_meta_parameters(config: Config) -> None:
    """Every rule about them.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    _check_discounts(config)
    for flag, count, names in (
        ("meta_parameter_ranges", 2, config.varied),
        ("meta_parameter_starts", 1, config.varied),
        ("meta_parameter_references", 1, tuple(TABLE)),
    ):
        for name in numbers_by_name(flag, getattr(config, flag), count):
            if name not in names:
                raise UserError(
                    f"--{flag}={getattr(config, flag)}: {name} is not learned; must be among "
                    f"--meta_parameters={config.meta_parameters}"
                )
    _check_what_varies(config)
    _check_what_is_tracked(config)
    for name in config.varied:
        if name not in (GAMMA, LAMBDA):
            _check_row(config, name)


def _check_discounts(config: Config) -> None:
    """The ranges of γ and λ are not empty, and what is learned starts inside its range."""
    assert config.lambda_ is not None
    for name, start, low, high in (
        (GAMMA, config.gamma, config.gamma_min, config.gamma_max),
        (LAMBDA, config.lambda_, config.lambda_min, config.lambda_max),
    ):
        if low >= high:
            raise UserError(f"--{name}_min={low}: must be below --{name}_max={high}")
        if name in config.learned and not low < start < high:
            raise UserError(
                f"--{name}={start}: {name} is learned, so its start must lie in the open range "
                f"({low:g}, {high:g}): at its ends its logit is infinite"
            )


def _check_what_varies(config: Config) -> None:
    """What varies has a use, and what is fed varies."""
    for name in config.embedded:
        if name not in (GAMMA, LAMBDA, *config.varied):
            raise UserError(
                f"--embedded_meta_parameters={config.embedded_meta_parameters}: {name} is not "
                f"learned; must be among --meta_parameters={config.meta_parameters}"
            )
    _check_decay(config, "meta_parameters", config.varied)
    _check_decay(config, "reference_tracking", config.tracked)


def _check_decay(config: Config, flag: str, names: Iterable[str]) -> None:
    if "rmsprop_decay" in names and config.inner_optimizer != "rmsprop":
        raise UserError(
            f"--{flag}={getattr(config, flag)}: rmsprop_decay needs --inner_optimizer=rmsprop, "
            f"it is {config.inner_optimizer}"
        )


def _fixed_references(config: Config) -> dict[str, float]:
    """The values that are given for η', by name."""
    given = numbers_by_name("meta_parameter_references", config.meta_parameter_references, 1)
    return {name: number for name, (number,) in given.items()}


def _interval(low: float, high: float) -> str:
    return f"[{low:g}, ∞)" if math.isinf(high) else f"[{low:g}, {high:g}]"


def _check_references(config: Config) -> None:
    """The values of η' make sense, and can be told to the network."""
    given = f"--meta_parameter_references={config.meta_parameter_references}"
    fixed = _fixed_references(config)
    for name, value in fixed.items():
        low, high = TABLE[name].domain
        if not low <= value <= high:
            raise UserError(f"{given}: {name} must lie in {_interval(low, high)}")
    if not config.learned:
        return
    for name in _fed_at_reference(config):
        if name in (GAMMA, LAMBDA, *config.tracked):
            continue  # fed as they are; or learned, and so in their range
        numbers = numbers_of(config, name)
        if not numbers.low <= numbers.reference <= numbers.high:
            raise UserError(
                f"{given}: {name} is {numbers.reference:g} in η', of which the network is fed its "
                f"place in the range; must lie in {_interval(numbers.low, numbers.high)}, the "
                "range of --meta_parameter_ranges"
            )


def _fed_at_reference(config: Config) -> tuple[str, ...]:
    """What of η' the network is fed: in J', or in the last update of a bootstrapped target."""
    is_fed = config.meta_network_eta == "reference" or config.meta_objective == "bootstrapped"
    return config.embedded if is_fed and config.eta_embedding_size else ()


def check_reference(config: Config) -> None:
    """What is given of η' makes sense, is read, and leaves something to be learned.

    For a run that starts: one that is there plays the same games whatever η' it has.

    Raises:
      UserError: as `check_meta_parameters`.
    """
    given = f"--meta_parameter_references={config.meta_parameter_references}"
    fixed = _fixed_references(config)
    _check_decay(config, "meta_parameter_references", fixed)
    _check_references(config)
    _check_are_read(config, given, fixed)
    _check_are_read(config, f"--reference_tracking={config.reference_tracking}", config.tracked)
    is_next = config.meta_objective == "bootstrapped" and config.bootstrap_steps == 1
    if config.learned and is_next and fixed.get("learning_rate_factor") == 0:
        raise UserError(
            f"{given}: learning_rate_factor must be above 0 with --bootstrap_steps=1, or nothing "
            "would be learned: the target would be θ' itself"
        )


def _check_are_read(config: Config, given: str, names: Iterable[str]) -> None:
    """Names of η' that something reads."""
    if not config.learned or config.meta_objective == "bootstrapped":
        return  # there is no J', or its target makes a whole update at η'
    fed = _fed_at_reference(config)
    possible = [name for name, row in TABLE.items() if row.in_returns or name in fed]
    for name in names:
        if name not in possible:
            raise UserError(
                f"{given}: J' does not read {name} of η', its terms have weights of their own and "
                f"it makes no update; must be among {', '.join(possible)}, what the network is fed "
                "of η' (--embedded_meta_parameters), or with --meta_objective=bootstrapped any"
            )


def _check_what_is_tracked(config: Config) -> None:
    """What follows the current η has no other value in η'."""
    given = f"--reference_tracking={config.reference_tracking}"
    fixed = _fixed_references(config)
    for name in config.tracked:
        if name in fixed:
            raise UserError(
                f"{given}: {name} has a fixed value in η'; must not be in "
                f"--meta_parameter_references={config.meta_parameter_references}"
            )


def _check_row(config: Config, name: str) -> None:
    """The range of a row that varies is not empty; a learned one starts inside."""
    numbers = numbers_of(config, name)
    low, high = numbers.low, numbers.high
    if low >= high:
        raise UserError(
            f"--meta_parameters={config.meta_parameters}: the range of {name} is empty, ({low:g}, "
            f"{high:g}); give one by --meta_parameter_ranges={name}:LOW,HIGH"
        )
    lowest, highest = TABLE[name].domain
    if low < lowest or high > highest:
        raise UserError(
            f"--meta_parameter_ranges={config.meta_parameter_ranges}: {name} must lie in "
            f"{_interval(lowest, highest)}"
        )
    if name in config.learned and not low < numbers.value < high:
        raise UserError(
            f"--meta_parameter_starts={config.meta_parameter_starts}: {name} is learned, so its "
            f"start must lie in the open range ({low:g}, {high:g}), it is {numbers.value:g}"
        )
