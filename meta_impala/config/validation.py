"""From the given flags to the settings of a run: every check, and values for those left open.

A mistake is one line that names the flag, its value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from meta_impala.config import checks, eta_schedule_checks, meta_parameter_checks, window_checks
from meta_impala.config.composed_settings import AgentSettings
from meta_impala.config.derived import derive, spell_environment_kwargs
from meta_impala.config.fields import added_choices, allowed_range, nearest
from meta_impala.config.hyper_parameters import SETTINGS_OF_NAMES, check_names
from meta_impala.config.image_layout import image_shape
from meta_impala.config.schema import FIELDS, Config, field_type, flag_name
from meta_impala.config.text import normalized, shown
from meta_impala.errors import UserError

# Larger numbers are infinite in float32, smaller ones 0.
_LARGEST_FLOAT32, _SMALLEST_FLOAT32 = 3.4028234e38, 1.1754944e-38


def resolve(config: Config, *, is_stored: bool = False) -> Config:
    """Checks every setting and derives those left open; needs no TensorFlow.

    `network=auto` stays: it needs the environment's observation (`resolve_network`).

    Args:
      config: as given.
      is_stored: whether it is that of a run that is there: whatever it has in η' is accepted, and
        so are weights that its meta objective does not read.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    config = spell_environment_kwargs(config)  # first: the text that is saved is what is checked
    checked = {
        field.name: checked_value(field, getattr(config, field.name)) for field in FIELDS.values()
    }
    config = dataclasses.replace(config, **checked)
    for name, words in SETTINGS_OF_NAMES.items():
        check_names(name, getattr(config, name), words)
    config = derive(config)
    checks.check_environment_kwargs(config)
    meta_parameter_checks.check_meta_parameters(config)
    if not is_stored:
        meta_parameter_checks.check_reference(config)
        window_checks.check_meta_weights(config)
    checks.check_meta_batch(config)
    checks.check_trace(config)
    window_checks.check_inner_steps(config)
    window_checks.check_bootstrap(config)
    window_checks.check_auxiliary_heads(config)
    checks.check_scope(config)
    checks.check_paths(config)
    eta_schedule_checks.check_eta_schedule(config)
    checks.check_actor_threads(config)
    checks.check_ray(config)
    checks.check_addresses(config)
    checks.check_several_learners(config)
    checks.check_micro_batches(config)
    checks.check_sample_reuse(config)
    checks.check_envs_per_actor(config)
    checks.check_mlp_sizes(config)
    checks.check_image_scaling(config)
    checks.check_learner_device(config)
    checks.check_evaluation(config)
    return config


def checked_value(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value of a setting in the form that is used, checked on its own.

    Text is normalised (`text.normalized`), whole numbers of a float setting become floats.

    Args:
      field: the setting.
      value: of any type; it may come from a file.

    Raises:
      UserError: for a wrong type, a number out of range or not finite, or an unknown choice.
    """
    name = flag_name(field)
    kind, optional = field_type(field)
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(
            f"--{name}={shown(_quoted(value))}: must be of type {kind.__name__}, not "
            f"{type(value).__name__}"
        )
    if isinstance(value, str):
        return _checked_text(field, value)
    if kind is not bool:
        number: Any = value
        _check_number(field, number)
    return value


def _quoted(value: Any) -> Any:
    """Text with quotes, so that a message tells '8' from 8; everything else unchanged."""
    return repr(value) if isinstance(value, str) else value


def _checked_text(field: dataclasses.Field[Any], value: str) -> str:
    name, choices = flag_name(field), field.metadata["choices"]
    try:
        value = normalized(value)
    except ValueError as error:
        raise UserError(f"--{name}={shown(value)}: {error}") from None
    if not choices or value in choices or value in added_choices(field.name):
        return value
    allowed = " | ".join(choices)
    if field.metadata["or_module"]:
        if ":" in value and _names_class(value):
            return value
        allowed += ", or module:Class, a class of your own"
    raise UserError(f"--{name}={shown(value)}: must be one of {allowed}{nearest(value, choices)}")


def _names_class(text: str) -> bool:
    """Whether it is `module:Class`, as Python writes names."""
    module, _, name = text.rpartition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _check_number(field: dataclasses.Field[Any], value: float) -> None:
    name, metadata = flag_name(field), field.metadata
    low, high = metadata["low"], metadata["high"]
    too_low = low is not None and (value <= low if metadata["low_open"] else value < low)
    too_high = high is not None and (value >= high if metadata["high_open"] else value > high)
    is_finite = isinstance(value, int) or abs(value) <= _LARGEST_FLOAT32  # false for NaN
    if not is_finite or too_low or too_high:
        raise UserError(f"--{name}={shown(value)}: must be finite and {allowed_range(metadata)}")
    if metadata["low_open"] and value < _SMALLEST_FLOAT32:
        raise UserError(
            f"--{name}={shown(value)}: must be at least {_SMALLEST_FLOAT32:.2g}; smaller numbers "
            "are 0 in float32"
        )


def check_addresses(config: Config) -> None:
    """Checks the learners' addresses and this one's index; a further learner needs nothing else.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    for name in ("learner_addresses", "learner_index", "stall_timeout"):
        checked_value(FIELDS[name], getattr(config, name))
    checks.check_addresses(config)


def check_frames(config: Config, action_repeat: int) -> None:
    """Checks that the run is at least one batch long.

    Args:
      config: resolved.
      action_repeat: of its environment.

    Raises:
      UserError: if it is not.
    """
    batch_frames = config.batch_size * config.unroll_length * action_repeat
    if config.total_frames < batch_frames:
        raise UserError(
            f"--total_frames={config.total_frames}: must be at least one batch, {batch_frames} "
            f"frames (batch {config.batch_size} × unroll {config.unroll_length} × action repeat "
            f"{action_repeat})"
        )


def refuse_background(settings: AgentSettings, game: str | None) -> None:
    """Refuses a background that is not there to be subtracted.

    Args:
      settings: resolved.
      game: of the environment; None if it is not Atari.

    Raises:
      UserError: for `image_scaling=background` on anything but an Atari game.
    """
    if settings.image_scaling != "unit" and game is None:
        raise UserError(
            f"--image_scaling={settings.image_scaling}: must be unit with --environment="
            f"{settings.environment}; only Atari games have a background"
        )


# The smallest image side for which the valid convolutions of a torso have an output.
_MINIMUM_SIDE = {"shallow": 20, "nature": 36, "deep": 8, "minatar": 3}

# Sides of the observations that `auto` takes the torso "minatar" for.
_MINATAR_SIDES = range(5, 21)


def resolve_network(config: Config, observation_shape: tuple[int, ...]) -> Config:
    """Chooses the torso for `network=auto`, or checks that the one asked for fits.

    Args:
      config: resolved.
      observation_shape: of one observation of its environment.

    Raises:
      UserError: for an image torso on observations that are not images or are too small.
    """
    if config.network == "auto":
        return dataclasses.replace(config, network=_choose_network(observation_shape))
    minimum = _MINIMUM_SIDE.get(config.network, 0)
    image = image_shape(observation_shape)
    if minimum and (image is None or min(image[:2]) < minimum):
        raise UserError(
            f"--network={config.network}: needs images of at least {minimum}×{minimum}, the "
            f"observations of {config.environment} are {list(observation_shape)}; use mlp"
        )
    return config


def _choose_network(observation_shape: tuple[int, ...]) -> str:
    image = image_shape(observation_shape)
    if image is None:
        return "mlp"
    height, width, channels = image
    if (height, width) == (84, 84):
        return "shallow"
    if channels > 1 and height in _MINATAR_SIDES and width in _MINATAR_SIDES:
        return "minatar"
    return "mlp"
