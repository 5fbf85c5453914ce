"""A trainer from a config and a folder, for programs that train without the command."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.environments import Description, registry
from meta_impala.errors import UserError
from meta_impala.storage import eta_replay
from meta_impala.storage.folder_lock import locked
from meta_impala.storage.manifest import list_checkpoints
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust, trusting
from meta_impala.system.signals import StopRequest
from meta_impala.training.trainer import Trainer


class LockingTrainer(Trainer):
    """A trainer that holds the lock of its folder while it trains, as the command does."""

    def __init__(
        self, config: Config, description: Description, folder: RunFolder, stop: StopRequest
    ) -> None:
        """As `Trainer`; the caller holds the lock."""
        super().__init__(config, description, folder, stop)
        self._newest = _newest_checkpoint(folder)

    def run(self) -> str:
        """As `Trainer.run`.

        Raises:
          UserError: if another trainer is running in the folder, or has been since this was made.
        """
        with locked(self.folder):
            newest = _newest_checkpoint(self.folder)
            if newest is not None and newest != self._newest:
                raise UserError(
                    f"{newest}: was saved by another trainer after this one was made; make a new "
                    "one, which continues from there"
                )
            try:
                return super().run()
            finally:
                self._newest = _newest_checkpoint(self.folder)


def _newest_checkpoint(folder: RunFolder) -> pathlib.Path | None:
    return next(iter(list_checkpoints(folder.checkpoints)), None)


def make_trainer(
    config: Config, logdir: str | os.PathLike[str], stop: StopRequest | None = None
) -> Trainer:
    """Builds the trainer of a new run, or of the run that a folder holds, unchanged.

    Args:
      config: of the run; what is None is derived. An existing run must have the same.
      logdir: its folder; made if it is not there. One trainer at a time may work in it.
      stop: set when the run is to save and stop; `StopRequest().install()` sets it by Ctrl-C.

    Returns:
      The trainer; `run()` trains to `config.total_frames`.

    Raises:
      UserError: if the config is not valid, or differs from that of the run, or another trainer is
        running in the folder.
    """
    folder = RunFolder(logdir)  # first: an environment may change the working directory
    config = config_lib.resolve(config)
    spec = registry.resolve(config.environment)
    # The calling program has named its modules itself.
    trust = trusting([config.environment, config.environment_kwargs, config.network])
    # One name for one environment, as in the command: either continues the runs of the other.
    config = dataclasses.replace(config, environment=spec.id)
    config_lib.resolve_frames(config, spec.action_repeat)
    if not folder.has_run():
        config = eta_replay.pin(config)
    description = registry.describe(
        config.environment, config.protocol, config.environment_arguments
    )
    config = config_lib.resolve_network(config, description.observation_shape)
    # Between this and `run` nobody holds it: a trainer that is never run keeps no folder.
    with locked(folder):
        if folder.has_run():
            config = _continued(config, folder, trust)
        trainer = LockingTrainer(config, description, folder, stop or StopRequest())
        eta_replay.keep(folder, config)
        folder.save_config(config)
    return trainer


def _continued(config: Config, folder: RunFolder, trust: Trust) -> Config:
    """The config of a run to be continued. Raises UserError if the given one differs."""
    given = {
        name: getattr(config, field.name)
        for name, field in config_lib.FIELDS.items()
        if getattr(config, field.name) is not None
    }
    saved = folder.load_config(trust)
    given["environment"] = registry.as_saved(config.environment, saved.environment)
    return config_lib.merge_for_resume(saved, given, override=False)
