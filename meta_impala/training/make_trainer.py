"""A trainer from a config and a folder, for programs that train without the command."""

from __future__ import annotations

import os

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.environments import registry
from meta_impala.storage import eta_replay
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import trusting
from meta_impala.system.signals import StopRequest
from meta_impala.training.trainer import Trainer


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
      UserError: if the config is not valid, or differs from that of the run.
    """
    config = config_lib.resolve(config)
    spec = registry.resolve(config.environment)
    config_lib.resolve_frames(config, spec.action_repeat)
    description = registry.describe(
        config.environment, config.protocol, config.environment_arguments
    )
    config = config_lib.resolve_network(config, description.observation_shape)
    folder = RunFolder(os.path.abspath(logdir))
    folder.prepare()
    if folder.has_run():
        given = {
            name: getattr(config, field.name)
            for name, field in config_lib.FIELDS.items()
            if getattr(config, field.name) is not None
        }
        # The calling program has named its modules itself.
        trust = trusting([config.environment, config.network])
        config = config_lib.merge_for_resume(folder.load_config(trust), given, override=False)
    else:
        config = eta_replay.pin(config)
        eta_replay.keep(folder, config)
    trainer = Trainer(config, description, folder, stop or StopRequest())
    folder.save_config(config)
    return trainer
