"""Trains a meta-gradient IMPALA agent, or continues the run of a folder.

    meta-impala train --preset=laptop --environment=Pong --logdir=runs/pong

The folder holds everything: config, status, metrics, checkpoints. Starting again with the same
folder continues the run.

Several learners are one such process each: the first (`--learner_index=0`) keeps the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from typing import TYPE_CHECKING

from absl import flags

from meta_impala import command, start_banner
from meta_impala import config as config_lib
from meta_impala.actors.making import EarlyEnvironment, early_environment
from meta_impala.config import (
    ActorSettings,
    AgentSettings,
    Config,
    LearnerSettings,
    RunSettings,
)
from meta_impala.config.flags import define_config_flags, given_config_flags
from meta_impala.config.number_flags import define_integer
from meta_impala.config.presets import define_preset_flag
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.environments import (
    Description,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    registry,
)
from meta_impala.errors import RunFailed, UserError, warn
from meta_impala.storage import eta_replay
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.folder_lock import locked
from meta_impala.storage.folder_use import check_for_run
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.run_status import describe_dead_trainer
from meta_impala.storage.trust import define_trust_flag, refuse_modules, trust_of_flags
from meta_impala.system import signals
from meta_impala.system.signals import StopRequest
from meta_impala.system.user_path import define_path
from meta_impala.training import memory, weights_and_biases

if TYPE_CHECKING:
    from meta_impala.learner.group import ConnectedLearners, LearnerGroup
    from meta_impala.training.trainer import Trainer

FLAGS = flags.FLAGS

_SECONDS_TO_LEAVE = 20.0

# What `--help` lists.
EVERYDAY = (
    "preset",
    "logdir",
    "environment",
    "total_frames",
    "seed",
    "meta_parameters",
    "gamma",
    "lambda",
    "network",
    "batch_size",
    "learning_rate",
    "num_actors",
    "envs_per_actor",
    "override",
    "deterministic",
)


def define_flags() -> None:
    """The flags of this command."""
    define_config_flags()
    define_preset_flag()
    define_trust_flag()
    define_path(
        "logdir", None, "Folder of the run: made if it is not there, continued if it holds a run."
    )
    flags.DEFINE_bool(
        "override",
        False,
        "Continue a run with changed settings, except those that never change in a run: "
        "environment, protocol, network, both optimisers, what is learned and by which objective.",
    )
    flags.DEFINE_string(
        "stop_signals",
        signals.DEFAULT_STOP_SIGNALS,
        "Signals that save a checkpoint and end the program, comma-separated. QUIT, unless it is "
        "one of them, writes the stacks of all threads to stacks.txt and the run continues.",
    )
    flags.DEFINE_string(
        "max_runtime",
        "",
        "The program saves a checkpoint and ends after this time, as after a signal: seconds, "
        "or 2d, 3h30m, 90s. Empty for no limit.",
    )
    define_integer(
        "exit_code_stopped",
        0,
        "Exit code of a run that was saved before it was finished, for example 75 for a scheduler "
        "that is to start it again.",
        low=0,
        high=255,
    )


def _config_for(folder: RunFolder) -> Config:
    """The config of the run to start or to continue; checks everything that needs no TensorFlow."""
    check_for_run(folder, override=FLAGS.override)
    given = given_config_flags()
    # One name for one environment, so that Pong and ALE/Pong-v5 are the same run.
    if folder.has_run():
        name = given.get("environment")
        given_id = None if name is None else _environment_id(name)
        saved = folder.load_config(trust_of_flags())
        if given_id is not None:
            given["environment"] = registry.as_saved(given_id, saved.environment)
        config = config_lib.merge_for_resume(saved, given, override=FLAGS.override)
        eta_replay.load(folder, config)
        return config
    config = Config(**{config_lib.FIELDS[name].name: value for name, value in given.items()})
    config = config_lib.resolve(config)
    config = eta_replay.pin(config)
    return dataclasses.replace(config, environment=_environment_id(config.environment))


def _environment_id(name: str) -> str:
    try:
        return registry.resolve(name).id
    except UnknownEnvironmentError as error:
        raise UserError(f"--environment={name}: {error}") from None


def _describe(config: Config) -> Description:
    try:
        return registry.describe(
            config.environment, config.protocol, config.environment_arguments,
            in_thread=config.actors == "threads",
        )  # fmt: skip
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
    stop.install(signals.parse_signals(FLAGS.stop_signals))
    seconds = signals.parse_duration(FLAGS.max_runtime)
    if seconds is not None:
        stop.request_after(seconds, f"--max_runtime={FLAGS.max_runtime}")
    if FLAGS.learner_index:
        return _join_run(stop)
    if not FLAGS.logdir:
        raise UserError("--logdir: must be given, the folder of the run")
    folder = RunFolder(FLAGS.logdir)
    # Held to the end of the process. Nothing was read or written before.
    with locked(folder):
        stop.save_stacks = folder.write_stacks
        if died := describe_dead_trainer(folder, is_held_here=True):
            warn(f"warning: {died}")
        return _train(folder, stop)


def _prepare(folder: RunFolder) -> tuple[Config, Description] | None:
    """What needs no TensorFlow: the config and the environment; None if the run is finished."""
    config = _config_for(folder)
    weights_and_biases.check(config)
    ray_cluster.check(config.part(ActorSettings))
    spec = registry.resolve(config.environment)
    config_lib.check_frames(config, spec.action_repeat)
    config_lib.refuse_background(config.part(AgentSettings), spec.game)
    if folder.has_run() and _is_finished(folder, config):
        command.say(
            f"{folder.path}: this run is finished ({config.total_frames:,} frames); give a larger "
            "--total_frames to train on, or another --logdir"
        )
        return None
    description = _describe(config)
    config = config_lib.resolve_network(config, description.observation_shape)
    memory.check(config.share, description)
    if note := start_banner.short_target(config):
        warn(f"warning: {note}")
    return config, description


def _train(folder: RunFolder, stop: StopRequest) -> int:
    def leave() -> None:
        code = command.EXIT_CODE_FAILED
        try:
            code = _stopped_before_training(folder, stop)
        except RunFailed as error:  # a full disk, a folder that was removed
            warn(f"error: {error}")
        finally:  # nobody else ends a process that hangs
            os._exit(code)

    # The environment's module and constructor are run here; nothing is there to be saved.
    with stop.leaving(_SECONDS_TO_LEAVE, leave):
        prepared = _prepare(folder)
    if prepared is None:
        return 0
    config, description = prepared
    stop.hold()
    if stop.is_set() and config.num_learners == 1:
        return _stopped_before_training(folder, stop)
    command.say(command.LOADING)
    with stop.leaving(_SECONDS_TO_LEAVE, leave):
        early = _early_environment(config, folder)
    command.load_tensorflow(quietly=True)
    from meta_impala.system.tensorflow_setup import configure_tensorflow
    from meta_impala.training.trainer import Trainer

    with contextlib.ExitStack() as stack:
        group = None
        try:
            if not stop.is_set():  # all of this takes some seconds
                configure_tensorflow(deterministic=config.deterministic)
                stack.enter_context(ray_cluster.connected(config.part(ActorSettings)))
                group = _learners(config, stop)
            # Several learners stop together, once they run.
            if group is None or (group.size == 1 and stop.is_set()):
                return _stopped_before_training(folder, stop)
            _share_replay(group, folder, config)
            trainer = Trainer(config, description, folder, stop, group, early=early)
            # Not before: a refused start leaves the run unchanged.
            eta_replay.keep(folder, config)
            folder.save_config(config)
        except Exception as error:
            if not isinstance(error, UserError):  # a run that is refused has not failed
                folder.write_failure(error)
            raise
        _say_what_is_trained(trainer, config, description, folder)
        return _run(trainer, folder, stop)


def _early_environment(config: Config, folder: RunFolder) -> EarlyEnvironment | None:
    """The first actor's emulators, which start while TensorFlow is imported."""
    if config.num_learners > 1:
        return None
    return early_environment(
        config.part(RunSettings), config.part(ActorSettings), is_new=not folder.has_run()
    )


def _stopped_before_training(folder: RunFolder, stop: StopRequest) -> int:
    frames = folder.write_stopped()
    command.say(
        f"stopped by {stop.signal_name} after {frames:,} frames, before anything was trained"
    )
    return FLAGS.exit_code_stopped


def _run(trainer: Trainer, folder: RunFolder, stop: StopRequest) -> int:
    try:
        state = trainer.run()
    except RunFailed as error:
        error.args = (f"{error}; {trainer.describe_latest_checkpoint()}",)
        raise
    if state == run_folder_lib.FINISHED:
        command.say(f"finished after {trainer.frames:,} frames; results are in {folder.path}")
    else:
        command.say(
            f"stopped by {stop.signal_name or 'another learner'} after {trainer.frames:,} "
            "frames; the same command continues the run"
        )
        return FLAGS.exit_code_stopped
    return 0


def _say_what_is_trained(
    trainer: Trainer, config: Config, description: Description, folder: RunFolder
) -> None:
    from meta_impala.system.tensorflow_setup import learner_device

    device = learner_device(config.learner_device)
    variables = trainer.learner.state.network.trainable_variables
    for line in start_banner.lines(
        config,
        description,
        folder.path,
        num_parameters=sum(variable.shape.num_elements() for variable in variables),
        device=device,
        frames=trainer.frames if trainer.restored_from else 0,
    ):
        command.say(line)
    if device.startswith("CPU"):
        hint = start_banner.hint(config, description, trainer.frames)
        if hint:
            command.say(hint)


def _learners(config: Config, stop: StopRequest) -> LearnerGroup | None:
    """The learners of a run, connected; None if the user asked to stop before all were there."""
    from meta_impala.learner import group as learner_group

    if config.num_learners == 1:
        return learner_group.ALONE
    group = _connect(config, stop)
    if group is not None:
        learner_group.give_settings(group, config)
    return group


def _share_replay(group: LearnerGroup, folder: RunFolder, config: Config) -> None:
    """Gives every learner the first one's copy of the η that a run replays."""
    if group.size == 1 or config.eta_schedule != "replay":
        return
    if group.keeps_folder:
        group.text_of_first(eta_replay.read(folder, config).decode("latin-1"))
    else:
        eta_replay.write_copy(folder, group.text_of_first("").encode("latin-1"))


def _connect(config: Config, stop: StopRequest) -> ConnectedLearners | None:
    """The group of several learners, or None if the user asked to stop before all were there."""
    from meta_impala.learner import group as learner_group

    others = [a for i, a in enumerate(config.addresses) if i != config.learner_index]
    port = config.addresses[config.learner_index].rpartition(":")[2]
    command.say(
        f"learner {config.learner_index} listens on port {port} of all network interfaces, without "
        "authentication: whoever can reach it can read and write your files"
    )
    command.say(f"learner {config.learner_index} waits for those at {', '.join(others)}")
    return learner_group.join(config.part(LearnerSettings), config.stall_timeout, stop)


def _join_run(stop: StopRequest) -> int:
    """A further learner: settings and state come from the first, and no file is kept."""
    given = given_config_flags()
    if "environment" in given:
        given["environment"] = _environment_id(given["environment"])
    where = {name: given[name] for name in ("learner_addresses", "learner_index", "stall_timeout")
             if name in given}  # fmt: skip
    config = Config(**where)
    config_lib.check_addresses(config)

    command.load_tensorflow()
    from meta_impala.learner import group as learner_group
    from meta_impala.system.tensorflow_setup import configure_tensorflow
    from meta_impala.training.trainer import Trainer

    configure_tensorflow(deterministic=config.deterministic)
    group = _connect(config, stop)
    if group is None:
        command.say(f"stopped by {stop.signal_name}, before anything was trained")
        return FLAGS.exit_code_stopped
    config = learner_group.take_settings(group, given)
    refuse_modules(config, "the settings of learner 0", trust_of_flags())
    config = dataclasses.replace(config, wandb_project="")  # the first one logs
    description = _describe(config)
    memory.check(config.share, description)
    ray_cluster.check(config.part(ActorSettings))
    with (
        ray_cluster.connected(config.part(ActorSettings)),
        tempfile.TemporaryDirectory(prefix="meta_impala-learner-") as path,
    ):
        folder = RunFolder(path)
        _share_replay(group, folder, config)
        trainer = Trainer(config, description, folder, stop, group)
        command.say(
            f"learner {group.index} of {group.size}: training on {config.environment} from "
            f"{trainer.frames:,} frames on"
        )
        state = trainer.run()
    reason = "finished"
    if state == run_folder_lib.STOPPED:
        reason = f"stopped by {stop.signal_name or 'another learner'}"
    command.say(f"learner {group.index}: {reason} after {trainer.frames:,} frames")
    return 0 if state == run_folder_lib.FINISHED else FLAGS.exit_code_stopped


if __name__ == "__main__":
    define_flags()
    command.run(main)
