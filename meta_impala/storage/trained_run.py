"""What a command needs of a run that has trained, checked without TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder


class TrainedRun(NamedTuple):
    """The folder of a run with a checkpoint, its config (network included), its environment."""

    folder: RunFolder
    config: Config
    description: Description


def open_folder(logdir: str | None) -> tuple[RunFolder, Config]:
    """The folder that `--logdir` names, and its config; writes nothing.

    Raises:
      UserError: if it is no run, or has no checkpoint yet.
    """
    if not logdir:
        raise UserError("--logdir: must be given, the folder of a run")
    folder = RunFolder(logdir)
    config = folder.load_config()
    if not folder.has_checkpoint():
        raise UserError(
            f"{folder.checkpoints}: no checkpoint yet; train first, or wait until the first one is "
            "saved"
        )
    return folder, config


def open_trained_run(logdir: str | None) -> TrainedRun:
    """The same with the environment.

    Raises:
      UserError: as `open_folder`, and if the environment cannot be made here.
    """
    folder, config = open_folder(logdir)
    try:
        description = registry.describe(
            config.environment, config.protocol, config.environment_arguments
        )
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"{folder.config_path}: {error}") from None
    config = config_lib.resolve_network(config, description.observation_shape)
    return TrainedRun(folder, config, description)
