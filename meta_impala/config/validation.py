"""Checks every setting, derives those left open, and says in one line what is not allowed."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

from meta_impala.config.fields import allowed_range, nearest
from meta_impala.config.image_layout import image_shape
from meta_impala.config.schema import FIELDS, Config, field_type, flag_name
from meta_impala.errors import UserError
from meta_impala.system.processors import processors

_ENVS_PER_ACTOR = 32

# What `auto` takes at most of actors that are threads of one process: some three cores of actors
# keep a learner busy, and every emulator is 0.1 s of the start.
_MOST_ACTORS = 8

_MOST_ENVS = 128

_FEWEST_ENVS = 8


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond every float
        return False


def check_field(field: dataclasses.Field, value: Any) -> None:
    name, metadata = flag_name(field), field.metadata
    kind, optional = field_type(field)
    if value is None and optional:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (isinstance(value, kind) if kind is not float else is_number) or (
        kind is int and isinstance(value, bool)
    ):
        raise UserError(f"--{name}={value!r}: must be of type {kind.__name__}")
    if metadata["choices"] and value not in metadata["choices"]:
        choices = " | ".join(metadata["choices"])
        raise UserError(
            f"--{name}={value}: must be one of {choices}{nearest(value, metadata['choices'])}"
        )
    if kind in (int, float):
        low, high = metadata["low"], metadata["high"]
        too_low = low is not None and (value <= low if metadata["low_open"] else value < low)
        too_high = high is not None and (value >= high if metadata["high_open"] else value > high)
        if not _is_finite(value) or too_low or too_high:
            raise UserError(f"--{name}={value}: must be finite and {allowed_range(metadata)}")


def resolve(config: Config) -> Config:
    """Checks every setting and derives those left open; needs no TensorFlow.

    `network=auto` stays: it needs the environment's observation (`resolve_network`).

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    for field in dataclasses.fields(config):
        check_field(field, getattr(config, field.name))
    learned = config.learned
    if config.lambda_ is None:
        config = dataclasses.replace(config, lambda_=0.99 if "lambda" in learned else 1.0)
    config = _choose_actors(config)
    if config.precision == "auto":
        config = dataclasses.replace(config, precision="float32")
    if config.eta_embedding_size is None:
        config = dataclasses.replace(config, eta_embedding_size=16 if config.varied else 0)
    if config.meta_gradient_mode == "auto":
        in_parts = config.num_learners > 1 or config.micro_batches > 1
        mode = "reverse_over_forward" if in_parts else "nested_tapes"
        if config.trace_decay:
            mode = "accumulative_trace"
        config = dataclasses.replace(config, meta_gradient_mode=mode)
    for name, start, low, high in (
        ("gamma", config.gamma, config.gamma_min, config.gamma_max),
        ("lambda", config.lambda_, config.lambda_min, config.lambda_max),
    ):
        if low >= high:
            raise UserError(f"--{name}_min={low}: must be below --{name}_max={high}")
        if name in learned and not low < start < high:  # type: ignore[operator]
            raise UserError(
                f"--{name}={start}: {name} is learned, so its start must lie in the open range "
                f"({low:g}, {high:g}): at its ends its logit is infinite"
            )
    most_judges = config.batch_size - (config.meta_data == "held_out")
    if learned and not 1 <= config.meta_batch_size <= most_judges:
        why = ", one less than --batch_size with --meta_data=held_out"
        raise UserError(
            f"--meta_batch_size={config.meta_batch_size}: must be in [1, {most_judges}] "
            f"(--batch_size{why if most_judges < config.batch_size else ''}) while "
            f"--meta_parameters={config.meta_parameters} is learned"
        )
    _check_method(config)
    _check_actors(config)
    _check_learners(config)
    _check_micro_batches(config)
    columns = config.share.batch_size
    if max(config.envs_per_actor, columns) % min(config.envs_per_actor, columns):
        of_each = " / the number of learners" if config.num_learners > 1 else ""
        raise UserError(
            f"--envs_per_actor={config.envs_per_actor}: must divide --batch_size="
            f"{config.batch_size}{of_each} or be a multiple of it"
        )
    try:
        widths = config.mlp_widths
    except ValueError:
        widths = (0,)
    if not all(1 <= width <= 65_536 for width in widths):
        raise UserError(
            f"--mlp_sizes={config.mlp_sizes}: must be widths from 1 to 65536, comma-separated, "
            "for example 64,64"
        )
    device = config.learner_device.lower()
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (index and (kind == "auto" or not index.isdigit())):
        raise UserError(
            f"--learner_device={config.learner_device}: must be auto, cpu, gpu or gpu:N"
        )
    return config


def check_addresses(config: Config) -> None:
    """Checks where the learners are, and which one this is.

    Raises:
      UserError: one line with the flag, its value and what is allowed.
    """
    for name in ("learner_addresses", "learner_index", "stall_timeout"):
        check_field(FIELDS[name], getattr(config, name))
    addresses, number = config.addresses, config.num_learners
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65_535):
            raise UserError(
                f"--learner_addresses={config.learner_addresses}: must be host:port, "
                "comma-separated, for example 10.0.0.1:2222,10.0.0.2:2222"
            )
    if len(set(addresses)) < len(addresses):
        raise UserError(
            f"--learner_addresses={config.learner_addresses}: every learner must have an address "
            "of its own"
        )
    if config.learner_index >= number:
        raise UserError(
            f"--learner_index={config.learner_index}: must be below the number of "
            f"--learner_addresses, {number}"
        )


def _check_learners(config: Config) -> None:
    """Several learners: their shares, and what they cannot do."""
    check_addresses(config)
    number = config.num_learners
    if number == 1:
        return
    if config.batch_size % number:
        raise UserError(
            f"--batch_size={config.batch_size}: must be a multiple of the number of "
            f"--learner_addresses, {number}"
        )
    if config.learned and config.meta_batch_size % number:
        raise UserError(
            f"--meta_batch_size={config.meta_batch_size}: must be a multiple of the number of "
            f"--learner_addresses, {number}"
        )
    if config.learned and config.meta_gradient_mode != "reverse_over_forward":
        raise UserError(
            f"--meta_gradient_mode={config.meta_gradient_mode}: must be reverse_over_forward (or "
            "auto, without --trace_decay) with several --learner_addresses: only its parts add up"
        )
    if config.learned and config.meta_advantage_normalization != "none":
        raise UserError(
            f"--meta_advantage_normalization={config.meta_advantage_normalization}: must be none "
            "with several --learner_addresses"
        )
    if config.deterministic:
        raise UserError(
            "--deterministic=True: needs one learner; must be false with several "
            "--learner_addresses"
        )


def _check_micro_batches(config: Config) -> None:
    """What divides, and what cannot be computed in parts."""
    count = config.micro_batches
    if count == 1:
        return
    given = f"--micro_batches={count}"
    share = config.share
    columns, less = share.batch_size, ""
    if config.learned and config.meta_data == "held_out":
        columns, less = columns - share.meta_batch_size, " less --meta_batch_size"
    if columns % count:
        raise UserError(
            f"{given}: must divide --batch_size={config.batch_size}{less} (of a learner)"
        )
    if not config.learned:
        return
    if share.meta_batch_size % count:
        raise UserError(
            f"{given}: must divide --meta_batch_size={config.meta_batch_size} (of one learner)"
        )
    if config.meta_gradient_mode != "reverse_over_forward":
        raise UserError(
            f"--meta_gradient_mode={config.meta_gradient_mode}: must be reverse_over_forward (or "
            f"auto, without --trace_decay) with {given}: only its parts add up"
        )
    if config.meta_advantage_normalization != "none":
        raise UserError(
            f"--meta_advantage_normalization={config.meta_advantage_normalization}: must be none "
            f"with {given}"
        )


def _check_method(config: Config) -> None:
    """The switches of the meta-gradient that do not go together, and the sets of η."""
    mode = config.meta_gradient_mode
    if config.trace_decay and mode != "accumulative_trace":
        raise UserError(
            f"--meta_gradient_mode={mode}: has no trace; --trace_decay={config.trace_decay:g} "
            "needs accumulative_trace (or auto)"
        )
    if config.trace_curvature and not config.trace_decay:
        raise UserError("--trace_curvature=True: needs --trace_decay above 0; at 0 nothing is kept")
    if config.meta_parameter_scope == "state":
        if mode == "accumulative_trace":
            raise UserError(
                "--meta_parameter_scope=state: has no trace (it would keep a copy of the network "
                "for every weight of γ(s) and λ(s)); use --trace_decay=0 and nested_tapes or "
                "reverse_over_forward, or global"
            )
        if config.varied and not config.learned:
            raise UserError(
                f"--eta_schedule={config.eta_schedule}: must be learned with "
                "--meta_parameter_scope=state; what is drawn is one η for an unroll"
            )
    if config.meta_gradient_paths != "returns" and config.learned and not config.eta_embedding_size:
        raise UserError(
            f"--meta_gradient_paths={config.meta_gradient_paths}: needs an embedding of η, "
            "--eta_embedding_size is 0; must be returns"
        )
    if config.eta_schedule in ("random", "mixture") and not config.varied:
        raise UserError(
            f"--eta_schedule={config.eta_schedule}: needs --meta_parameters to say what is drawn; "
            "they are none"
        )
    if config.eta_schedule == "mixture":
        _check_mixture(config)
    if config.eta_schedule == "random":
        _check_draws(config)


_MAX_ACTOR_THREADS = 1024

_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")


def _choose_actors(config: Config) -> Config:
    """What `auto` stands for, on this machine."""
    if config.num_actors is None:
        count = processors()
        if config.actors == "threads":
            count = min(count, _MOST_ACTORS)
        config = dataclasses.replace(config, num_actors=count)
    if config.envs_per_actor is None:
        wanted = _ENVS_PER_ACTOR
        if config.actors == "threads":  # which make theirs one after the other
            wanted = min(wanted, max(_FEWEST_ENVS, _MOST_ENVS // max(1, config.num_actors)))
        columns = max(1, config.share.batch_size)
        sizes = [n for n in range(1, columns + 1) if columns % n == 0 and n <= wanted]
        sizes.append(columns * math.ceil(wanted / columns))
        nearest_size = min(sizes, key=lambda n: abs(math.log(n / wanted)))
        config = dataclasses.replace(config, envs_per_actor=nearest_size)
    return config


def _check_actors(config: Config) -> None:
    """Where the actors run."""
    if config.actors == "threads":
        if config.num_actors > _MAX_ACTOR_THREADS:
            raise UserError(
                f"--num_actors={config.num_actors}: must be at most {_MAX_ACTOR_THREADS} with "
                "--actors=threads"
            )
        if config.ray_address:
            raise UserError(f"--ray_address={config.ray_address}: must be empty, or --actors=ray")
        return
    if config.deterministic:
        raise UserError(
            "--deterministic=True: must be False with --actors=ray; processes on a cluster do not "
            "take turns"
        )
    address = config.ray_address
    if address.startswith("ray://"):
        raise UserError(
            f"--ray_address={address}: must be HOST:PORT of the cluster's head, from a machine of "
            "the cluster; the Ray client is not for streams of data"
        )
    match = _HOST_AND_PORT.fullmatch(address)
    if address not in ("", "local", "auto") and not (match and 0 < int(match[2]) < 65_536):
        raise UserError(
            f"--ray_address={address}: must be empty, local, auto or HOST:PORT of the cluster's "
            "head, for example 10.0.0.1:6379"
        )


def _check_mixture(config: Config) -> None:
    try:
        pairs = config.eta_pairs
    except ValueError:
        pairs = ()
    if not pairs or not all(0.0 <= value <= 1.0 for pair in pairs for value in pair):
        raise UserError(
            f"--eta_mixture={config.eta_mixture}: must be pairs γ,λ of numbers in [0, 1], "
            "separated by semicolons, for example 0.99,1;0.995,1"
        )
    for index, name in enumerate(("gamma", "lambda")):
        fixed = config.gamma if name == "gamma" else config.lambda_
        if name not in config.varied and any(p[index] != fixed for p in pairs):
            raise UserError(
                f"--eta_mixture={config.eta_mixture}: {name} must be {fixed:g} (--{name}) "
                f"throughout with --meta_parameters={config.meta_parameters}"
            )


def _check_draws(config: Config) -> None:
    for name in config.varied:
        text = config.eta_random_gamma if name == "gamma" else config.eta_random_lambda
        try:
            low, high = map(float, text.split(","))
        except ValueError:
            low = high = 0.0
        if not 0.0 < low < high < 1.0:
            raise UserError(
                f"--eta_random_{name}={text}: must be two numbers LOW,HIGH with "
                "0 < LOW < HIGH < 1, for example 0.9,0.999"
            )


def resolve_frames(config: Config, action_repeat: int) -> None:
    """Checks that the run is at least one batch long.

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


# The smallest image side that the valid convolutions of a torso leave anything of.
_MINIMUM_SIDE = {"shallow": 20, "nature": 36, "deep": 8, "minatar": 3}

# Sides of the observations that `auto` takes the torso "minatar" for.
_MINATAR_SIDES = range(5, 21)


def resolve_network(config: Config, observation_shape: tuple[int, ...]) -> Config:
    """Chooses the torso for `network=auto`, or checks that the one asked for fits.

    Args:
      config: resolved.
      observation_shape: of one observation of its environment.

    Raises:
      UserError: for an image torso on something that is no image or too small for it.
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
