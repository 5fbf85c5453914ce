"""A run from its folder to its end: builds the parts, turns the wheel, stops it in every case.

environments -> actors -> trajectory queue -> learner -> snapshot -> actors
                                                 |-> metrics, checkpoints
"""

from __future__ import annotations

import contextlib
import os
import time

import numpy as np
import tensorflow as tf

from meta_impala.agent import Policy, eta_schedule_of, make_network
from meta_impala.config import Config
from meta_impala.environments import Description, registry
from meta_impala.errors import UserError
from meta_impala.runtime import run_folder as run_folder_lib
from meta_impala.runtime.actor import Actor, actor_seed
from meta_impala.runtime.block_source import (
    BlockSource,
    StopRequested,
    ThreadedSource,
    TurnTakingSource,
)
from meta_impala.runtime.checkpoint import Checkpoints
from meta_impala.runtime.learner import Learner
from meta_impala.runtime.metrics import MetricsWindow, MetricsWriter, Progress
from meta_impala.runtime.run_folder import RunFolder
from meta_impala.runtime.signals import StopRequest
from meta_impala.runtime.trajectory import Block, Unroll, concatenate


def configure_tensorflow(config: Config) -> None:
    """Process-wide settings; to be made before the first operation."""
    for gpu in tf.config.list_physical_devices("GPU"):
        # Leave room for others: by default TensorFlow takes all of a GPU's memory.
        tf.config.experimental.set_memory_growth(gpu, True)
    # Actors and learner already run side by side: threads inside one operation are for the cores
    # that are left over. On 2 cores one thread makes an actor's inference 20 % cheaper.
    tf.config.threading.set_intra_op_parallelism_threads(max(1, (os.cpu_count() or 1) // 2))
    set_graph_rewrites()
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def set_graph_rewrites() -> None:
    """Keeps TensorFlow from reordering sums and products, here and in every later graph.

    Constant folding and arithmetic rewriting order them otherwise in a larger graph, which moves
    the last bit of a weight. Without, an update is equal to the bit with and without a
    meta-gradient. It costs nothing that could be measured.
    """
    tf.config.optimizer.set_experimental_options(
        {"constant_folding": False, "arithmetic_optimization": False}
    )


def learner_device(config: Config) -> str:
    """The TensorFlow device of the learner.

    Raises:
      UserError: if a GPU is asked for that TensorFlow does not see.
    """
    name = config.learner_device.lower()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        return "GPU:0" if gpus else "CPU:0"
    kind, _, index = name.partition(":")
    number = int(index or 0)
    if kind == "gpu" and number >= len(gpus):
        raise UserError(
            f"--learner_device={config.learner_device}: TensorFlow sees {len(gpus)} GPUs; must be "
            "auto, cpu, or the number of one of them"
        )
    return f"{kind.upper()}:{number}"


class _Batch:
    """A batch on its way: its tensors, and what its blocks say of themselves."""

    def __init__(self, blocks: list[Block]) -> None:
        self.unroll = Unroll(*(tf.constant(array) for array in concatenate(blocks)))
        self.versions = [block.version for block in blocks]
        self.episodes = [episode for block in blocks for episode in block.episodes]


class Supervisor:
    """One run, from start or from its newest checkpoint."""

    def __init__(
        self, config: Config, description: Description, folder: RunFolder, stop: StopRequest
    ) -> None:
        """Args:
        config: resolved, network included.
        description: of the environment.
        folder: prepared, its config saved.
        stop: set when the user asks the run to stop.
        """
        self.config = config
        self.folder = folder
        self._stop = stop
        self._description = description
        with tf.device(learner_device(config)):
            network = make_network(config, description)
            self.learner = Learner(config, description, network)
        self._checkpoints = Checkpoints(
            folder.checkpoints, self.learner.state, config.keep_checkpoints
        )
        self.restored_from = self._checkpoints.restore_latest()
        self.frames = int(self.learner.state.frames.numpy())
        self.updates = int(self.learner.state.updates.numpy())

    def run(self) -> str:
        """Trains until `total_frames` or a request to stop.

        Returns:
          `finished` or `stopped`, as in `status.json`.

        Raises:
          Exception: whatever went wrong first, in whichever thread; the status is then `failed`.
        """
        self.folder.write_status(run_folder_lib.RUNNING, self.frames)
        try:
            state = self._train()
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # the first error is the one to show
                self.folder.write_status(run_folder_lib.FAILED, self.frames, reason=reason)
            raise
        self.folder.write_status(state, self.frames)
        return state

    def _train(self) -> str:
        # Every function is traced before the first thread starts.
        self.learner.trace()
        source = self._make_source()
        writer = MetricsWriter(self.folder.metrics_path, self.folder.tensorboard, self.frames)
        window = MetricsWindow(self.frames, writer.seconds_before, writer.episodes_before)
        progress = Progress(self.config.total_frames, self.frames)
        try:
            source.start(self.learner.snapshot())
            finished = self._loop(source, writer, window, progress)
        finally:
            # Threads first: nothing below may run beside an actor that still computes.
            source.close()
            writer.close()
            progress.close()
        self._checkpoints.save()
        return run_folder_lib.FINISHED if finished else run_folder_lib.STOPPED

    def _make_source(self) -> BlockSource:
        config = self.config
        core_state_size = self.learner.state.network.settings.core_state_size
        policy = Policy(
            self.learner.state.network, config, self._description, config.envs_per_actor
        )
        actors = []
        for index in range(config.num_actors):
            if self._stop.is_set():
                break  # an emulator takes 0.2 s to start: do not make the user wait for many
            environment = registry.make(
                config.environment,
                config.envs_per_actor,
                config.protocol,
                num_threads=config.env_threads,
            )
            actor = Actor(index, environment, policy, config.unroll_length, eta_schedule_of(config))
            seed = actor_seed(config.seed, self.updates, index, config.envs_per_actor)
            actor.reset(seed, core_state_size)
            actors.append(actor)
        kind = TurnTakingSource if config.deterministic else ThreadedSource
        return kind(actors, config, self._stop)

    def _next_batch(self, source: BlockSource) -> _Batch:
        count = self.config.batch_size // self.config.block_size
        return _Batch([source.next_block() for _ in range(count)])

    def _loop(
        self,
        source: BlockSource,
        writer: MetricsWriter,
        window: MetricsWindow,
        progress: Progress,
    ) -> bool:
        """The wheel. Returns whether `total_frames` was reached (else: a request to stop)."""
        config = self.config
        frames_per_update = (
            config.batch_size * config.unroll_length * self._description.action_repeat
        )
        next_row = self.frames + config.log_frames
        checkpoint_clock, checkpoint_frames = time.monotonic(), self.frames
        try:
            batch, previous = self._next_batch(source), None
            while self.frames < config.total_frames:
                if self._stop.is_set():
                    return False
                # τ' is the next batch, and becomes τ of the next update: no extra frames. Plain
                # IMPALA waits for it too, so that runs with and without the meta-gradient have
                # the same policy lag.
                next_batch = self._next_batch(source)
                judging = next_batch
                if config.meta_data == "swap":
                    # Pairs: the first batch is judged on the second, then the second on the first.
                    if previous is None:
                        previous = batch
                    else:
                        judging, previous = previous, None
                learning_rate = self.learner.learning_rate(self.frames)
                statistics, snapshot = self.learner.update(
                    batch.unroll, judging.unroll, self.updates, self.frames
                )
                if not np.isfinite(statistics.inner_loss + statistics.gradient_norm):
                    raise FloatingPointError(
                        f"the loss or its gradient is not finite at update {self.updates}"
                    )
                source.publish(snapshot)
                lag = float(np.mean([self.updates - version for version in batch.versions]))
                self.updates += 1
                self.frames += frames_per_update
                window.add(statistics, batch.episodes, lag, source.fill())
                batch = next_batch
                last = self.frames >= config.total_frames
                if self.frames >= next_row or last:
                    row = window.row(self.frames, self.updates, learning_rate)
                    writer.write(row)
                    progress.update(row, config.total_frames, last=last)
                    self.folder.write_status(run_folder_lib.RUNNING, self.frames)
                    next_row = self.frames + config.log_frames
                if not last and self._checkpoint_is_due(checkpoint_clock, checkpoint_frames):
                    self._checkpoints.save()
                    checkpoint_clock, checkpoint_frames = time.monotonic(), self.frames
        except StopRequested:
            return False
        return True

    def _checkpoint_is_due(self, since: float, since_frames: int) -> bool:
        config = self.config
        minutes = (time.monotonic() - since) / 60.0
        return (0 < config.checkpoint_minutes <= minutes) or (
            0 < config.checkpoint_frames <= self.frames - since_frames
        )
