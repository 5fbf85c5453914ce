"""Checks whether the settings of a run can fit into memory.

The check is a lower bound: settings that pass may still not fit, but those that are refused would
have been killed by the system, without a message.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import psutil

from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.errors import RunFailed, UserError, one_line

_FLOAT = 4
# θ, θ', the optimiser's slot before and after, and the gradient.
_COPIES_OF_PARAMETERS = 5
# Of an Atari emulator; 1.6 MiB were measured.
_EMULATOR = 2**20


def needed_bytes(config: Config, description: Description) -> dict[str, int]:
    """Lower bounds of the memory of a resolved config: flags -> bytes that they need."""
    size = math.prod(description.observation_shape)
    row = size * description.observation_dtype.itemsize
    rows = config.unroll_length + 1
    waiting, environments = config.queue_capacity * config.block_size, 0
    if config.actors == "threads" or config.ray_address in ("", "local"):
        environments = config.num_actors * config.envs_per_actor
    # The last layer below the logits.
    last = config.core_size if config.core == "lstm" else 1
    if config.core != "lstm" and config.network == "mlp":
        last = config.mlp_widths[-1] if config.mlp_widths else size
    return {
        # τ and τ' as received, and τ as the network's input.
        f"--batch_size={config.batch_size} --unroll_length={config.unroll_length}": (
            config.batch_size * rows * (2 * row + size * _FLOAT)
        ),
        f"--num_actors={config.num_actors} --envs_per_actor={config.envs_per_actor} "
        f"--queue_capacity={config.queue_capacity}": (
            (waiting + environments) * rows * row + environments * _emulator(description)
        ),
        f"--environment={config.environment} ({description.num_actions:,} actions)": (
            _COPIES_OF_PARAMETERS * last * description.num_actions * _FLOAT
        ),
        f"--mlp_sizes={config.mlp_sizes} --core_size={config.core_size}": (
            _COPIES_OF_PARAMETERS * config.least_weights(size) * _FLOAT
        ),
    }


def check(config: Config, description: Description) -> None:
    """Raises UserError if a resolved config needs more than the machine has."""
    _refuse_more(needed_bytes(config, description))


def check_games(num_envs: int, description: Description) -> None:
    """Raises UserError if so many environments, side by side, need more than the machine has."""
    size = math.prod(description.observation_shape)
    # Their observations, and these as the network's input.
    row = size * (description.observation_dtype.itemsize + _FLOAT)
    _refuse_more({f"--num_envs={num_envs}": num_envs * (row + _emulator(description))})


def _emulator(description: Description) -> int:
    """Bytes of an environment itself; 0 where they are not known."""
    return _EMULATOR if description.game else 0


def _refuse_more(needed: Mapping[str, int]) -> None:
    """Raises UserError if more is needed, by flags, than the machine has."""
    total, has = sum(needed.values()), psutil.virtual_memory().total
    if total > has:
        flags = max(needed, key=lambda name: needed[name])
        raise UserError(
            f"{flags}: the settings need at least {total / 2**30:,.1f} GiB of memory; must be at "
            f"most the {has / 2**30:,.1f} GiB of this machine"
        )


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises RunFailed, in one line, for errors inside that mean too little memory."""
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise RunFailed(
            f"not enough memory ({one_line(error)}); "
            "a smaller --batch_size, --unroll_length, --envs_per_actor or network needs less"
        ) from error
