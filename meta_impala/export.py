"""Exports the newest checkpoint of a run as one small file, to be evaluated or shared.

    python -m meta_impala.export --logdir=runs/pong --out=pong.npz
    python -m meta_impala.evaluate --agent=pong.npz --episodes=10

The file holds weights, η and config, and no optimiser slots. The run is only read.
"""

from __future__ import annotations

import os
import pathlib
import signal

from absl import flags

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.environments import (
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import UserError
from meta_impala.runtime.run_folder import RunFolder

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command."""
    flags.DEFINE_string("logdir", None, "Folder of the run; a running training is not disturbed.")
    flags.DEFINE_string("out", None, "File to write; must end in .npz.")


def main() -> int:
    """Runs the command; returns its exit code."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(command.EXIT_CODE_INTERRUPTED))
    if not FLAGS.logdir:
        raise UserError("--logdir: must be given, the folder of a run")
    out = pathlib.Path(FLAGS.out or "").expanduser()
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise UserError(f"--out={FLAGS.out or ''}: must be a file .npz in a folder that exists")
    folder = RunFolder(FLAGS.logdir)
    config = folder.load_config()
    try:
        description = registry.describe(config.environment, config.protocol)
    except (UnknownEnvironmentError, UnsupportedEnvironmentError) as error:
        raise UserError(f"{folder.config_path}: {error}") from None
    config = config_lib.resolve_network(config, description.observation_shape)
    command.import_tensorflow()
    from meta_impala.runtime import evaluation, export

    evaluation.configure_tensorflow()
    agent = evaluation.load_agent(folder.checkpoints, config, description)
    export.save(out, agent, config, description)
    print(f"{agent.checkpoint} of {folder.path} written to {out} ({out.stat().st_size:,} bytes)")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
