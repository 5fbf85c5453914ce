"""Trains a meta-gradient IMPALA agent, or continues the run of a folder.

    python -m meta_impala.train --environment=Pong --logdir=runs/pong

The folder holds everything: config, status, metrics, checkpoints. Starting again with the same
folder continues the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

from absl import flags

from meta_impala import command, memory
from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import RunFailed, UserError
from meta_impala.runtime import ray_cluster, weights_and_biases
from meta_impala.runtime import run_folder as run_folder_lib
from meta_impala.runtime.folder_lock import FolderLock
from meta_impala.runtime.run_folder import RunFolder
from meta_impala.runtime.signals import StopRequest

if TYPE_CHECKING:
    from meta_impala.runtime.supervisor import Supervisor

FLAGS = flags.FLAGS


def define_flags() -> None:
    """The flags of this command."""
    command.define_config_flags()
    flags.DEFINE_string(
        "logdir", None, "Folder of the run: made if it is not there, continued if it holds a run."
    )
    flags.DEFINE_bool(
        "override",
        False,
        "Continue a run with changed settings, except those that never change in a run "
        "(environment, protocol, network, what is learned).",
    )


def _config_for(folder: RunFolder) -> Config:
    """The config of the run to start or to continue; checks everything that needs no TensorFlow."""
    given = command.given_config_flags()
    # One name for one environment, so that Pong and ALE/Pong-v5 are the same run.
    if folder.has_run():
        if "environment" in given:
            given["environment"] = _environment_id(given["environment"])
        return config_lib.merge_for_resume(folder.load_config(), given, override=FLAGS.override)
    config = Config(**{config_lib.FIELDS[name].name: value for name, value in given.items()})
    config = config_lib.resolve(config)
    return dataclasses.replace(config, environment=_environment_id(config.environment))


def _environment_id(name: str) -> str:
    try:
        return registry.resolve(name).id
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={name}: {error}") from None


def _describe(config: Config) -> Description:
    try:
        return registry.describe(config.environment, config.protocol)
    except UnsupportedEnvironmentError as error:
        raise UserError(f"--environment={config.environment}: {error}") from None


def _is_finished(folder: RunFolder, config: Config) -> bool:
    status = folder.read_status()
    frames = status.get("frames")
    return (
        status.get("state") == run_folder_lib.FINISHED
        and isinstance(frames, int)
        and frames >= config.total_frames
    )


def main() -> int:
    """Runs the command; returns its exit code."""
    stop = StopRequest()
    stop.install()
    if not FLAGS.logdir:
        raise UserError("--logdir: must be given, the folder of the run")
    folder = RunFolder(FLAGS.logdir)
    folder.prepare()
    # Held to the end of the process. Nothing was read or written before.
    lock = FolderLock(folder.path)
    folder.clean()
    try:
        return _train(folder, stop)
    finally:
        lock.release()


def _train(folder: RunFolder, stop: StopRequest) -> int:
    config = _config_for(folder)
    weights_and_biases.check(config)
    ray_cluster.check(config)
    config_lib.resolve_frames(config, registry.resolve(config.environment).action_repeat)
    if folder.has_run() and _is_finished(folder, config):
        command.say(
            f"{folder.path}: this run is finished ({config.total_frames:,} frames); give a larger "
            "--total_frames to train on, or another --logdir"
        )
        return 0
    description = _describe(config)
    config = config_lib.resolve_network(config, description.observation_shape)
    memory.check(config, description)
    folder.save_config(config)

    command.import_tensorflow()
    from meta_impala.runtime.supervisor import Supervisor, configure_tensorflow

    configure_tensorflow(config)
    with contextlib.ExitStack() as stack:
        if not stop.is_set():  # all that takes some seconds
            stack.enter_context(ray_cluster.connected(config))
        if stop.is_set():
            frames = folder.write_stopped()
            command.say(
                f"stopped by {stop.signal_name} after {frames:,} frames, before anything was "
                "trained"
            )
            return 0
        try:
            supervisor = Supervisor(config, description, folder, stop)
        except Exception as error:
            if not isinstance(error, UserError):  # a run that is refused has not failed
                folder.write_failure(error)
            raise
        return _run(supervisor, config, folder, stop)


def _run(supervisor: Supervisor, config: Config, folder: RunFolder, stop: StopRequest) -> int:
    if supervisor.restored_from:
        command.say(f"continuing {folder.path} from {supervisor.frames:,} frames")
    else:
        learned = config.meta_parameters.replace(",", " and ")
        command.say(
            f"training on {config.environment} for {config.total_frames:,} frames in "
            f"{folder.path}; learned of η: {learned}"
        )
    try:
        state = supervisor.run()
    except RunFailed as error:
        error.args = (f"{error}; {supervisor.what_is_safe()}",)
        raise
    if state == run_folder_lib.FINISHED:
        command.say(f"finished after {supervisor.frames:,} frames; results are in {folder.path}")
    else:
        command.say(
            f"stopped by {stop.signal_name} after {supervisor.frames:,} frames; the same command "
            "continues the run"
        )
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main)
