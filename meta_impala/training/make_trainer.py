"""A trainer from a config and a folder, for programs that train without the command."""

from __future__ import annotations

import dataclasses
import os
import time

from meta_impala import config as config_lib
from meta_impala.config import ActorSettings, AgentSettings, Config
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.environments import Description, registry
from meta_impala.errors import UserError
from meta_impala.storage import eta_replay
from meta_impala.storage.folder_lock import locked
from meta_impala.storage.folder_use import check_for_run
from meta_impala.storage.manifest import newest_version
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust, trusting
from meta_impala.system.signals import StopRequest, ctrl_c_stops
from meta_impala.system.tensorflow_setup import configure_in_program
from meta_impala.training.trainer import Trainer


class LockingTrainer(Trainer):
    """A trainer that holds the lock of its folder while it trains, as the command does."""

    def __init__(
        self,
        config: Config,
        description: Description,
        folder: RunFolder,
        stop: StopRequest,
        cpu_start: float,
    ) -> None:
        """As `Trainer`; the caller holds the lock."""
        super().__init__(config, description, folder, stop, cpu_start=cpu_start)
        self._stop_of_run = stop
        self._has_run = False
        self._newest = newest_version(folder.checkpoints)

    def run(self) -> str:
        """As `Trainer.run`. A Ctrl-C ends the current update, saves, and is raised then; a second
        one is raised at once. (Where the program handles Ctrl-C by itself, that holds instead.)

        A further call goes on with what was learned. A deterministic run, and one whose last update
        was interrupted, does what a new trainer does: it continues from its newest checkpoint, or
        begins again if there is none, with a new `learner`.

        Raises:
          KeyboardInterrupt: after a Ctrl-C; the run is saved, and its status is `stopped`.
          RunFailed: among others for a SystemExit, such as that of a program's handler of SIGTERM:
            it is its cause. What was learned is saved, unless it came in the middle of an update;
            a deterministic run keeps its last checkpoint, and continues from there to the bit.
          UserError: if another trainer is running in the folder, or has been since this was made;
            of a further call, if a new trainer would be refused.
        """
        with locked(self.folder), ctrl_c_stops(self._stop_of_run):
            newest = newest_version(self.folder.checkpoints)
            # The version too: with `sample_reuse` more updates may be of the same frames.
            if newest is not None and newest != self._newest:
                raise UserError(
                    f"{self.folder.checkpoints / newest[0]}: was saved by another trainer after "
                    "this one was made; make a new one, which continues from there"
                )
            if self._has_run:
                self._prepare_again()
            self._has_run = True
            try:
                return super().run()
            finally:
                self._newest = newest_version(self.folder.checkpoints)

    def _prepare_again(self) -> None:
        """Leaves nothing of the last `run` that would make this one differ from a continued run."""
        if self.config.deterministic or self._is_updating:
            # The actors' state is in the checkpoint alone; θ may be half-way between two updates.
            super().__init__(
                self.config, self._description, self.folder, self._stop_of_run,
                cpu_start=time.process_time(),
            )  # fmt: skip
            return
        self._batcher.clear()  # new actors play
        # An exception may have come between an update and its count.
        self.frames, self.updates = self.learner.state.counts


def make_trainer(
    config: Config, logdir: str | os.PathLike[str], stop: StopRequest | None = None
) -> Trainer:
    """Builds the trainer of a new run, or of the run that a folder holds, unchanged.

    Sets for the whole process what decides the bits of a run, so that the command and a program can
    continue each other's runs: TensorFlow rewrites no graphs from here on; operations are
    deterministic from the first `config.deterministic` on; the number of threads of an operation is
    that of the command, if TensorFlow has not begun and the program has chosen none; TensorFlow's
    global seed is `config.seed`, so make one trainer after the other. Large arrays go back to the
    system as soon as they are freed (glibc). Devices stay as the program has set them.

    Args:
      config: of the run; what is None is derived. An existing run must have the same.
      logdir: its folder; made if it is not there. One trainer at a time may work in it.
      stop: set when the run is to save and stop; `StopRequest().install()` sets it by Ctrl-C.

    Returns:
      The trainer; `run()` trains to `config.total_frames`.

    Raises:
      UserError: if the config is not valid, has terms of J' that its objective does not read, or
        differs from that of the run, or another trainer is running in the folder, or it holds
        something else than a run; if it needs several processes (`learner_addresses`), or actors on
        a Ray cluster that the program has not connected to.
    """
    cpu_start = time.process_time()
    folder = RunFolder(logdir)  # first: an environment may change the working directory
    config = config_lib.resolve(config, is_stored=folder.has_run())
    _refuse_other_processes(config)
    if not folder.has_run():
        config = eta_replay.pin(config)  # before the environment's module, which may change it too
    spec = registry.resolve(config.environment)
    # The calling program has named its modules itself.
    trust = trusting(
        [config.environment, config.environment_kwargs, config.network],
        remedy="name it in the config",
    )
    # One name for one environment, as in the command: either continues the runs of the other.
    config = dataclasses.replace(config, environment=spec.id)
    config_lib.check_frames(config, spec.action_repeat)
    config_lib.refuse_background(config.part(AgentSettings), spec.game)
    description = registry.describe(
        config.environment, config.protocol, config.environment_arguments,
        in_thread=config.actors == "threads",
    )  # fmt: skip
    config = config_lib.resolve_network(config, description.observation_shape)
    configure_in_program(deterministic=config.deterministic)
    # Between this and `run` nobody holds it: a trainer that is never run keeps no folder.
    with locked(folder):
        check_for_run(folder, override=None)
        if folder.has_run():
            config = _continued(config, folder, trust)
        trainer = LockingTrainer(config, description, folder, stop or StopRequest(), cpu_start)
        eta_replay.keep(folder, config)
        folder.save_config(config)
    return trainer


def _refuse_other_processes(config: Config) -> None:
    """Raises UserError for what the command sets up besides a trainer, if it is not there."""
    if config.num_learners > 1:
        raise UserError(
            f"learner_addresses={config.learner_addresses}: must be empty for make_trainer; each "
            "of several learners is a command of its own (meta-impala train)"
        )
    if config.actors != "ray":
        return
    ray_cluster.check(config.part(ActorSettings))
    import ray

    if config.ray_address or not ray.is_initialized():
        raise UserError(
            f"actors=ray, ray_address={config.ray_address}: make_trainer does not connect to a "
            "cluster; call ray.init() before it and leave ray_address empty, or use meta-impala "
            "train"
        )


def _continued(config: Config, folder: RunFolder, trust: Trust) -> Config:
    """The config of a run to be continued. Raises UserError if the given one differs."""
    given = {
        name: getattr(config, field.name)
        for name, field in config_lib.FIELDS.items()
        if getattr(config, field.name) is not None
    }
    saved = folder.load_config(trust)
    given["environment"] = registry.as_saved(config.environment, saved.environment)
    return config_lib.merge_for_resume(saved, given, override=None)
