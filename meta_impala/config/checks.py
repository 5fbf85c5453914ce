"""Combinations of settings that are refused. Each check is one rule: UserError with one line.

The configs here are derived (`derived.derive`), and each of their settings is valid on its own.
"""

from __future__ import annotations

import re

from meta_impala.config.hyper_parameters import TABLE
from meta_impala.config.schema import Config
from meta_impala.config.text import shown
from meta_impala.errors import UserError

# Arguments of `gymnasium.make` that the program sets.
_NOT_ARGUMENTS = ("id", "disable_env_checker", "render_mode")

_MAX_ACTOR_THREADS = 1024

_MAX_WIDTH = 65_536

_MAX_PORT = 65_535

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")


def check_environment_kwargs(config: Config) -> None:
    """The environment's arguments are a JSON object without those that the program sets itself."""
    flag = f"--environment_kwargs={shown(config.environment_kwargs)}"
    try:
        arguments = config.environment_arguments
    except (ValueError, RecursionError):
        raise UserError(
            f'{flag}: must be a JSON object, for example {{"size": 5}}, or empty'
        ) from None
    for name in arguments:
        if not name.isidentifier():
            raise UserError(f"{flag}: {shown(name)!r} is not the name of an argument")
        if name in _NOT_ARGUMENTS:
            raise UserError(f"{flag}: must not have {name}, which the program sets itself")


def check_meta_batch(config: Config) -> None:
    """The meta batch is a part of a batch."""
    is_held_out = config.meta_data == "held_out"
    largest = config.batch_size - is_held_out
    if config.learned and not 1 <= config.meta_batch_size <= largest:
        why = ", one less than --batch_size with --meta_data=held_out" if is_held_out else ""
        raise UserError(
            f"--meta_batch_size={config.meta_batch_size}: must be in [1, {largest}] "
            f"(--batch_size{why}) while --meta_parameters={config.meta_parameters} is learned"
        )


def check_trace(config: Config) -> None:
    """The settings of the trace need the mode that has one."""
    mode = config.meta_gradient_mode
    if config.trace_decay and mode != "accumulative_trace":
        raise UserError(
            f"--meta_gradient_mode={mode}: has no trace; --trace_decay={config.trace_decay:g} "
            "needs accumulative_trace (or auto)"
        )
    if config.trace_curvature and not config.trace_decay:
        raise UserError("--trace_curvature=True: needs --trace_decay above 0; at 0 nothing is kept")


def check_scope(config: Config) -> None:
    """γ(s) and λ(s) can only be learned, and without a trace."""
    if config.meta_parameter_scope != "state":
        return
    if config.meta_gradient_mode == "accumulative_trace":
        raise UserError(
            "--meta_parameter_scope=state: has no trace (it would keep a copy of the network "
            "for every weight of γ(s) and λ(s)); use --trace_decay=0 and nested_tapes or "
            "reverse_over_forward, or global"
        )
    possible = [row.name for row in TABLE.values() if row.per_state]
    if config.varied and not set(possible) & set(config.varied):
        raise UserError(
            "--meta_parameter_scope=state: must be global with --meta_parameters="
            f"{config.meta_parameters}; only {' and '.join(possible)} can be functions of the state"
        )
    if config.varied and not config.learned:
        raise UserError(
            f"--eta_schedule={config.eta_schedule}: must be learned with "
            "--meta_parameter_scope=state; the other schedules give one η for an unroll"
        )


def check_paths(config: Config) -> None:
    """Paths through e_η need an e_η."""
    if config.meta_gradient_paths != "returns" and config.learned and not config.eta_embedding_size:
        raise UserError(
            f"--meta_gradient_paths={config.meta_gradient_paths}: needs an embedding of η, "
            "--eta_embedding_size is 0; must be returns"
        )


def check_eta_schedule(config: Config) -> None:
    """What the schedules other than learned and fixed need."""
    schedule = config.eta_schedule
    if schedule != "replay" and (config.eta_schedule_file or config.eta_schedule_sha256):
        name = "eta_schedule_file" if config.eta_schedule_file else "eta_schedule_sha256"
        raise UserError(
            f"--{name}={shown(getattr(config, name))}: needs --eta_schedule=replay; it is "
            f"{schedule}"
        )
    if schedule in ("learned", "fixed"):
        return
    if not config.varied:
        raise UserError(
            f"--eta_schedule={schedule}: needs --meta_parameters to say what varies; it is none"
        )
    checks = {
        "random": _check_draws,
        "mixture": _check_mixture,
        "replay": _check_replay,
        "linear": _check_lines,
    }
    checks[schedule](config)


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


def _check_lines(config: Config) -> None:
    for name in config.varied:
        text = config.eta_linear_gamma if name == "gamma" else config.eta_linear_lambda
        try:
            start, end = map(float, text.split(","))
        except ValueError:
            start = end = -1.0
        if not (0.0 <= start <= 1.0 and 0.0 <= end <= 1.0):
            raise UserError(
                f"--eta_linear_{name}={shown(text)}: must be two numbers START,END in [0, 1], for "
                "example 0.99,0.997"
            )


def _check_mixture(config: Config) -> None:
    try:
        pairs = config.eta_pairs
    except ValueError:
        pairs = ()
    given = f"--eta_mixture={shown(config.eta_mixture)}"
    if not pairs or not all(0.0 <= value <= 1.0 for pair in pairs for value in pair):
        raise UserError(
            f"{given}: must be pairs γ,λ of numbers in [0, 1], separated by semicolons, for "
            "example 0.99,1;0.995,1"
        )
    for index, (name, fixed) in enumerate((("gamma", config.gamma), ("lambda", config.lambda_))):
        if name not in config.varied and any(pair[index] != fixed for pair in pairs):
            raise UserError(
                f"{given}: {name} must be {fixed:g} (--{name}) throughout with "
                f"--meta_parameters={config.meta_parameters}"
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
                f"--eta_random_{name}={shown(text)}: must be two numbers LOW,HIGH with "
                "0 < LOW < HIGH < 1, for example 0.9,0.999"
            )


def check_actor_threads(config: Config) -> None:
    """Actors as threads are limited in number and have no Ray cluster."""
    if config.actors != "threads":
        return
    if config.num_actors > _MAX_ACTOR_THREADS:
        raise UserError(
            f"--num_actors={config.num_actors}: must be at most {_MAX_ACTOR_THREADS} with "
            "--actors=threads"
        )
    if config.ray_address:
        raise UserError(
            f"--ray_address={shown(config.ray_address)}: must be empty, or --actors=ray"
        )


def check_ray(config: Config) -> None:
    """Actors on Ray have an address of a cluster, and no fixed order."""
    if config.actors != "ray":
        return
    if config.deterministic:
        raise UserError(
            "--deterministic=True: must be False with --actors=ray; actors on a cluster do not run "
            "in a fixed order"
        )
    address = config.ray_address
    if address.startswith("ray://"):
        raise UserError(
            f"--ray_address={shown(address)}: must be HOST:PORT of the cluster's head, from a "
            "machine of the cluster; the Ray client is not made for streams of data"
        )
    match = _HOST_AND_PORT.fullmatch(address)
    if address not in ("", "local", "auto") and not (match and 0 < int(match[2]) <= _MAX_PORT):
        raise UserError(
            f"--ray_address={shown(address)}: must be empty, local, auto or HOST:PORT of the "
            "cluster's head, for example 10.0.0.1:6379"
        )


def check_addresses(config: Config) -> None:
    """Every learner has its own address, and this learner is one of them."""
    addresses, given = config.addresses, f"--learner_addresses={shown(config.learner_addresses)}"
    for address in addresses:
        host, _, port = address.rpartition(":")
        is_port = port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= _MAX_PORT
        if not host or not is_port:
            raise UserError(
                f"{given}: must be host:port, comma-separated, for example "
                "10.0.0.1:2222,10.0.0.2:2222"
            )
    if len(set(addresses)) < len(addresses):
        raise UserError(f"{given}: every learner must have its own address")
    if config.learner_index >= config.num_learners:
        raise UserError(
            f"--learner_index={config.learner_index}: must be below the number of "
            f"--learner_addresses, {config.num_learners}"
        )


def check_several_learners(config: Config) -> None:
    """Several learners have equal shares of an update whose parts add up."""
    number = config.num_learners
    if number == 1:
        return
    for name, size in (
        ("batch_size", config.batch_size),
        ("meta_batch_size", config.meta_batch_size if config.learned else 0),
    ):
        if size % number:
            raise UserError(
                f"--{name}={size}: must be a multiple of the number of --learner_addresses, "
                f"{number}"
            )
    _check_sum_of_parts(config, "several --learner_addresses")
    if config.deterministic:
        raise UserError(
            "--deterministic=True: needs one learner; must be false with several "
            "--learner_addresses"
        )


def check_sample_reuse(config: Config) -> None:
    """A batch that is used several times is not part of a pair, a window or a target."""
    if config.sample_reuse == 1 or not config.learned:
        return
    given = f"--sample_reuse={config.sample_reuse}"
    if config.meta_data == "swap":
        raise UserError(f"{given}: must be 1 with --meta_data=swap, where batches come in pairs")
    if config.inner_steps > 1:
        raise UserError(f"{given}: must be 1 with --inner_steps={config.inner_steps}")
    if config.meta_objective == "bootstrapped":
        raise UserError(f"{given}: must be 1 with --meta_objective=bootstrapped")


def check_micro_batches(config: Config) -> None:
    """Micro-batches are equal parts of a learner's share, of an update whose parts add up."""
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
    if config.learned and share.meta_batch_size % count:
        raise UserError(
            f"{given}: must divide --meta_batch_size={config.meta_batch_size} (of one learner)"
        )
    _check_sum_of_parts(config, given)


def _check_sum_of_parts(config: Config, why: str) -> None:
    """The meta-gradient is a sum over parts of the batch."""
    if not config.learned:
        return
    if config.meta_gradient_mode != "reverse_over_forward":
        raise UserError(
            f"--meta_gradient_mode={config.meta_gradient_mode}: must be reverse_over_forward (or "
            f"auto, without --trace_decay) with {why}: only its parts add up"
        )
    if config.meta_advantage_normalization != "none":
        raise UserError(
            f"--meta_advantage_normalization={config.meta_advantage_normalization}: must be none "
            f"with {why}"
        )


def check_envs_per_actor(config: Config) -> None:
    """Blocks of unrolls fit into batches."""
    columns = config.share.batch_size
    if max(config.envs_per_actor, columns) % min(config.envs_per_actor, columns):
        of_each = " / the number of learners" if config.num_learners > 1 else ""
        raise UserError(
            f"--envs_per_actor={config.envs_per_actor}: must divide --batch_size="
            f"{config.batch_size}{of_each} or be a multiple of it"
        )


def check_mlp_sizes(config: Config) -> None:
    """Widths of layers."""
    try:
        widths = config.mlp_widths
    except ValueError:
        widths = (0,)
    if not all(1 <= width <= _MAX_WIDTH for width in widths):
        raise UserError(
            f"--mlp_sizes={shown(config.mlp_sizes)}: must be widths from 1 to {_MAX_WIDTH}, "
            "comma-separated, for example 64,64"
        )


def check_learner_device(config: Config) -> None:
    """A known kind of device; whether this machine has it is checked later."""
    kind, _, index = config.learner_device.lower().partition(":")
    is_number = index.isascii() and index.isdecimal()
    if kind not in ("auto", "cpu", "gpu") or (index and (kind == "auto" or not is_number)):
        raise UserError(
            f"--learner_device={shown(config.learner_device)}: must be auto, cpu, gpu or gpu:N"
        )


def check_evaluation(config: Config) -> None:
    """The evaluation while training: what needs it, and the η of its games."""
    if config.keep_best_checkpoint and not config.evaluation_frames:
        raise UserError(
            "--keep_best_checkpoint=True: needs --evaluation_frames above 0, which says when games "
            "are played"
        )
    if not config.evaluation_eta:
        return
    given = f"--evaluation_eta={shown(config.evaluation_eta)}"
    try:
        values = config.evaluation_eta_values or ()
    except ValueError:
        values = ()
    if not values or not all(0.0 <= value <= 1.0 for value in values):
        raise UserError(
            f"{given}: must be GAMMA,LAMBDA, two numbers in [0, 1], for example 0.995,1"
        )
    if config.learned and config.meta_parameter_scope == "state":
        raise UserError(f"{given}: must be empty with --meta_parameter_scope=state")
    if not config.eta_embedding_size:
        raise UserError(
            f"{given}: would have no effect, since η is not an input of the network "
            "(--eta_embedding_size=0); must be empty"
        )
