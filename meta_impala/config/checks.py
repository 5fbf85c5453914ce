"""Combinations of settings that are refused. Each check is one rule: UserError with one line.

The configs here are derived (`derived.derive`), and each of their settings is valid on its own.
"""

from __future__ import annotations

import re

from meta_impala.config.hyper_parameters import GAMMA, LAMBDA, TABLE, in_order
from meta_impala.config.schema import Config
from meta_impala.config.text import shown
from meta_impala.errors import UserError

# Arguments of `gymnasium.make` that the program sets.
_NOT_ARGUMENTS = ("id", "disable_env_checker", "render_mode")

_MAX_ACTOR_THREADS = 1024

_MAX_WIDTH = 65_536

_MAX_PORT = 65_535

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


def largest_meta_batch(config: Config) -> int:
    """B' is at most B, and one less where it is not learned from."""
    return config.batch_size - (config.meta_data == "held_out")


def check_meta_batch(config: Config) -> None:
    """The meta batch is a part of a batch."""
    is_held_out = config.meta_data == "held_out"
    largest = largest_meta_batch(config)
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
    """What is a function of the state is learned, acts at single steps, and has no trace."""
    scope = config.meta_parameter_scope
    if scope == "global":
        return
    given = f"--meta_parameter_scope={scope}"
    if config.meta_gradient_mode == "accumulative_trace":
        raise UserError(
            f"{given}: has no trace (it would keep a copy of the network for each weight of η(s)); "
            "use --trace_decay=0 and nested_tapes or reverse_over_forward, or global"
        )
    if scope != "state":
        _check_names_of_states(config, given)
    elif config.varied and not {GAMMA, LAMBDA} & set(config.varied):
        raise UserError(
            f"{given}: is that of gamma and lambda, and --meta_parameters="
            f"{config.meta_parameters} has neither; must be global, or some of these names"
        )
    if config.varied and not config.learned:
        raise UserError(
            f"--eta_schedule={config.eta_schedule}: must be learned with {given}; the other "
            "schedules give one η for an unroll"
        )


def _check_names_of_states(config: Config, given: str) -> None:
    possible = [row.name for row in TABLE.values() if row.per_state]
    for name in in_order(config.meta_parameter_scope):
        if name not in possible:
            raise UserError(
                f"{given}: {name} acts on the update as a whole, which has no state; must be among "
                f"{', '.join(possible)}"
            )
        if config.varied and name not in config.varied:
            raise UserError(
                f"{given}: {name} is not learned; must be among --meta_parameters="
                f"{config.meta_parameters}"
            )


def check_paths(config: Config) -> None:
    """Paths through e_η need an e_η."""
    if config.meta_gradient_paths != "returns" and config.learned and not config.eta_embedding_size:
        raise UserError(
            f"--meta_gradient_paths={config.meta_gradient_paths}: needs an embedding of η, "
            "--eta_embedding_size is 0; must be returns"
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


def check_image_scaling(config: Config) -> None:
    """A torso of the user's own gets the observations as they are."""
    if config.image_scaling != "unit" and ":" in config.network:
        raise UserError(
            f"--image_scaling={config.image_scaling}: must be unit with --network="
            f"{shown(config.network)}, which scales the observations itself"
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
    if config.eta_is_per_state:
        raise UserError(
            f"{given}: must be empty with --meta_parameter_scope={config.meta_parameter_scope}"
        )
    if not config.eta_embedding_size:
        raise UserError(
            f"{given}: would have no effect, since η is not an input of the network "
            "(--eta_embedding_size=0); must be empty"
        )
