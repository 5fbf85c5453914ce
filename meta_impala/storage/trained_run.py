"""A trained run or an agent file as commands need it, checked without TensorFlow.

Either the folder of a run (`open_trained_run`), or a file that `meta_impala.export` has written
(`read_agent_file`): its config, and what its network must fit. The weights are read later, by
`trained_agent`.
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any, NamedTuple

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import UserError, one_line
from meta_impala.storage import trust as trust_lib
from meta_impala.storage.arrays import MAX_BYTES, open_arrays
from meta_impala.storage.manifest import attempts_left, list_checkpoints
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust

AGENT_FORMAT = "meta_impala agent, version 1"
# Prefix of the weights in an agent file.
PARAMETERS = "parameters/"
_MAX_DIMENSIONS, _MAX_SIZE = 8, 2**20
_FLOAT = 4


class TrainedRun(NamedTuple):
    """The folder of a run with a checkpoint, its config (network included), its environment."""

    folder: RunFolder
    config: Config
    description: Description


class AgentFile(NamedTuple):
    """Config of the run that an agent file came from, and what its network must fit."""

    config: Config
    observation_shape: tuple[int, ...]
    num_actions: int


class OpenedAgent(NamedTuple):
    """An agent file, the config of its run (network included), and its environment."""

    path: pathlib.Path
    config: Config
    description: Description


def open_folder(logdir: str | None, trust: Trust = trust_lib.NOBODY) -> tuple[RunFolder, Config]:
    """The folder that `--logdir` names, and its config; writes nothing.

    Args:
      logdir: the flag's value.
      trust: whose modules the config may name.

    Raises:
      UserError: if it is not a run, has no checkpoint yet, or names a module that is not trusted.
    """
    if not logdir:
        raise UserError("--logdir: must be given, the folder of a run")
    folder = RunFolder(logdir)
    config = folder.load_config(trust)
    if not folder.has_checkpoint():
        folder.refuse_vanished_checkpoints()
        raise UserError(
            f"{folder.checkpoints}: no checkpoint yet; train first, or wait until the first one is "
            "saved"
        )
    return folder, config


def check_best_checkpoint(folder: RunFolder, config: Config) -> None:
    """Raises UserError if a run has no best checkpoint, and says whether one may still come."""
    if any(list_checkpoints(folder.best_checkpoint) for _ in attempts_left()):
        return
    if config.evaluation_frames and config.keep_best_checkpoint:
        why = "there is no best checkpoint yet; one is kept when the first evaluation is over"
    else:
        why = (
            "this run keeps no best checkpoint (--evaluation_frames and --keep_best_checkpoint of "
            "its training)"
        )
    raise UserError(f"{folder.best_checkpoint}: {why}")


def open_trained_run(logdir: str | None, trust: Trust = trust_lib.NOBODY) -> TrainedRun:
    """The same with the environment.

    Raises:
      UserError: as `open_folder`, and if the environment cannot be made here.
    """
    folder, config = open_folder(logdir, trust)
    description = _describe(config, folder.config_path)
    config = config_lib.resolve_network(config, description.observation_shape)
    refuse_larger_network(folder, config, description.observation_shape)
    return TrainedRun(folder, config, description)


def _describe(config: Config, source: pathlib.Path) -> Description:
    """The environment of a config as it is here."""
    try:
        return registry.describe(
            config.environment, config.protocol, config.environment_arguments,
            in_thread=config.actors == "threads",
        )  # fmt: skip
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"{source}: {error}") from None


def refuse_no_meta_gradient(run: TrainedRun) -> None:
    """Raises UserError if a run does not learn η by J' of equation (14)."""
    path, config = run.folder.config_path, run.config
    if config.meta_parameters == "none":
        raise UserError(
            f"{path}: nothing is learned (meta_parameters is none), so there is no meta-gradient; "
            "must be a run with --meta_parameters, for example gamma,lambda"
        )
    if not config.learned:
        raise UserError(
            f"{path}: η is not learned (eta_schedule is {config.eta_schedule}), so there is no "
            "meta-gradient; must be a run with --eta_schedule=learned"
        )
    if config.meta_objective != "validation":
        raise UserError(
            f"{path}: the meta objective is {config.meta_objective}, which has none of the terms "
            "that are looked at; must be a run with --meta_objective=validation"
        )


def refuse_larger_network(folder: RunFolder, config: Config, shape: tuple[int, ...]) -> None:
    """Refuses a config whose network is larger than the weights that were saved.

    Args:
      folder: of the run.
      config: its config, network included.
      shape: of an observation.

    Raises:
      UserError: if the config is of a larger network than any checkpoint has weights for.
    """
    sizes: list[int] = []
    for _ in attempts_left():
        sizes = [_bytes_of_weights(path) for path in list_checkpoints(folder.checkpoints)]
        if any(sizes):  # else training may just have removed what was there
            break
    if sizes:
        _check_size(folder.config_path, config, shape, max(sizes))


def _bytes_of_weights(checkpoint: pathlib.Path) -> int:
    """The bytes that are there, in files of any length; 0 if the checkpoint has just gone."""
    try:
        files = [file.lstat() for file in checkpoint.glob("state.data*")]
    except FileNotFoundError:
        return 0
    # Some file systems report no blocks, or not yet (FUSE, ZFS): then a length counts, which a
    # sparse file has without any weights, but only for a network of a bounded size.
    allocated = 512 * sum(file.st_blocks for file in files)
    return max(allocated, min(sum(file.st_size for file in files), MAX_BYTES))


def _check_size(source: pathlib.Path, config: Config, shape: tuple[int, ...], nbytes: int) -> None:
    """Raises UserError if the weights of a config's network need more than these bytes."""
    least = config.least_weights(math.prod(shape))
    if _FLOAT * least > nbytes:
        raise UserError(
            f"{source}: --mlp_sizes={config.mlp_sizes} --core_size={config.core_size}: the "
            f"network would have {_FLOAT * least:,} bytes of weights, but there are {nbytes:,}"
        )


def read_agent_file(path: pathlib.Path, trust: Trust = trust_lib.NOBODY) -> AgentFile:
    """Reads config and shapes of an agent file; no weights.

    A file that is older than a setting means that setting's `value_if_missing`.

    Args:
      path: of the file.
      trust: whose modules the config may name.

    Raises:
      UserError: if it is not an agent file, is damaged, or names a module that is not trusted.
    """
    try:
        with open_arrays(path) as file:
            about, saved = json.loads(file.text("about")), file.text("config")
            weights = [h for name, h in file.headers.items() if name.startswith(PARAMETERS)]
        if about["format"] != AGENT_FORMAT:
            raise UserError(f'{path}: has the format "{about["format"]}"; must be "{AGENT_FORMAT}"')
        shape, num_actions = _shape(about["observation_shape"]), _size(about["num_actions"])
    except FileNotFoundError:
        raise UserError(f"--agent={path}: there is no such file") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = " ".join(one_line(error).split())
        raise UserError(
            f"--agent={path}: is not an exported agent, or is damaged ({reason})"
        ) from None
    config = config_lib.from_json(saved, path)
    trust_lib.refuse_modules(config, path, trust)
    nbytes = sum(header.nbytes for header in weights)
    _check_size(path, config_lib.resolve_network(config, shape), shape, nbytes)
    return AgentFile(config, shape, num_actions)


def open_agent_file(path: pathlib.Path, trust: Trust = trust_lib.NOBODY) -> OpenedAgent:
    """An agent file with its environment as it is here.

    Raises:
      UserError: as `read_agent_file`, and if the environment cannot be made here, or is another one
        than the agent was made for.
    """
    named = read_agent_file(path, trust)
    config = named.config
    description = _describe(config, path)
    refuse_other_environment(path, named, description)
    config = config_lib.resolve_network(config, description.observation_shape)
    return OpenedAgent(path, config, description)


def refuse_other_environment(
    path: pathlib.Path, named: AgentFile, description: Description
) -> None:
    """Raises UserError if an agent file was made for other observations or actions than these."""
    expected = (named.observation_shape, named.num_actions)
    if expected != (description.observation_shape, description.num_actions):
        raise UserError(
            f"{path}: was made for observations {list(named.observation_shape)} and "
            f"{named.num_actions} actions, but {named.config.environment} has "
            f"{list(description.observation_shape)} and {description.num_actions} here"
        )


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_DIMENSIONS:
        raise ValueError(f"observation_shape {value}")
    return tuple(map(_size, value))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= _MAX_SIZE:
        raise ValueError(f"size {value}")
    return value
