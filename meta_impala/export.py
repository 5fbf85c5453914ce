"""Exports the newest checkpoint of a run as one small file, to be evaluated or shared.

    meta-impala export runs/pong --out=pong.npz
    meta-impala evaluate --agent=pong.npz --episodes=10

The file holds weights, η and config, and no optimiser slots. The run is only read.
"""

from __future__ import annotations

import pathlib

from absl import flags

from meta_impala import command
from meta_impala.errors import UserError
from meta_impala.storage.results_folder import check_file
from meta_impala.storage.trained_run import open_trained_run
from meta_impala.storage.trust import define_trust_flag, trust_of_flags
from meta_impala.system.user_path import define_path, one_path

FLAGS = flags.FLAGS

POSITIONAL = "[RUN]"


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path(
        "logdir",
        None,
        "Folder of the run, if it is not given as RUN; a running training is not disturbed.",
    )
    define_path("out", None, "File to write; must end in .npz.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logdir = one_path(arguments, "logdir", FLAGS.logdir)
    if not FLAGS.out:
        raise UserError("--out: must be given, the file to write, for example agent.npz")
    out = check_file(pathlib.Path(FLAGS.out), "out", ".npz")
    folder, config, description = open_trained_run(logdir, trust_of_flags())
    command.load_tensorflow()
    from meta_impala.storage.trained_agent import load_agent, save_agent
    from meta_impala.system.tensorflow_setup import configure_for_inference

    configure_for_inference()
    agent = load_agent(folder.checkpoints, config, description)
    save_agent(out, agent, config, description)
    command.say(
        f"{agent.checkpoint} of {folder.path} written to {out} ({out.stat().st_size:,} bytes)"
    )
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
