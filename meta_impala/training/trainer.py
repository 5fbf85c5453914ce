"""A run from its folder to its end: builds the parts, turns the wheel, stops it in every case.

environments -> actors -> trajectory queue -> learner -> snapshot -> actors
                                                 |-> metrics, checkpoints
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from meta_impala.actors.actor import Actor, actor_seed
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import BlockSource, StopRequested
from meta_impala.actors.startup import ActorStart
from meta_impala.actors.threaded import ThreadedSource
from meta_impala.actors.trajectory import Block, Unroll
from meta_impala.actors.turn_taking import TurnTakingSource, fits
from meta_impala.agent.builders import eta_schedule_of, make_network
from meta_impala.agent.policy import Policy
from meta_impala.config import Config
from meta_impala.environments import BatchedEnvironment, Description, registry
from meta_impala.errors import RunFailed, UserError, warn
from meta_impala.learner.group import ALONE, LearnerGroup, LearnerLost
from meta_impala.learner.learner import Learner
from meta_impala.learner.state import Statistics
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.checkpoint import Checkpoints, identity_of
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.signals import StopRequest
from meta_impala.system.tensorflow_setup import learner_device
from meta_impala.system.watchdog import Watchdog, Watched
from meta_impala.training import bad_updates
from meta_impala.training.batcher import Batch
from meta_impala.training.memory import memory_errors
from meta_impala.training.metrics import MetricsWindow, MetricsWriter
from meta_impala.training.progress import Progress
from meta_impala.training.saved_progress import check_progress
from meta_impala.training.weights_and_biases import WeightsAndBiases

# The learner's thread also updates and saves; a slow disk may take its time.
_LEARNER_EXTRA_SECONDS = 60.0


class Trainer:
    """One run, from start or from its newest checkpoint.

    With `--deterministic` a stopped run continues to the bit as if it had not been stopped. A
    checkpoint holds where the actors stood: their seeds and actions since then, and the blocks that
    were not learned from yet. So that this does not grow for ever, the environments start anew at
    each checkpoint by --checkpoint_frames, in a run that is stopped there and one that is not.
    """

    def __init__(
        self,
        config: Config,
        description: Description,
        folder: RunFolder,
        stop: StopRequest,
        group: LearnerGroup = ALONE,
    ) -> None:
        """Args:
        config: resolved, network included.
        description: of the environment.
        folder: prepared.
        stop: set when the user asks the run to stop.
        group: the learners of this run. The first keeps the folder; what another would write goes
            into a folder that nobody keeps, and its state is the first one's.
        """
        self.config = config
        self.folder = folder
        self._group = group
        self._share = config.share
        self._stop = stop
        # Several learners stop after the same update: none may leave while the others wait for it.
        self._stop_waiting = stop if group.size == 1 else StopRequest()
        self._description = description
        with memory_errors(), tf.device(learner_device(config.learner_device)):
            network = make_network(config, description)
            self.learner = Learner(self._share, description, network, group)
        self._checkpoints = Checkpoints(
            folder.checkpoints,
            self.learner.state,
            config.keep_checkpoints,
            identity_of(config, description, self.learner.state),
        )
        saved = self._checkpoints.restore_latest()
        group.take_from_first(self.learner.state.variables)
        self.restored_from = str(saved.path) if saved else None
        self.frames = int(self.learner.state.frames.numpy())
        self.updates = int(self.learner.state.updates.numpy())
        if saved is None:
            self._refuse_vanished_checkpoints()
        progress = check_progress(saved.progress, saved.path) if saved else {}
        self._frames_of_update = 0  # of the last one
        self._next_row = min(
            progress.get("next_row", self.frames + config.log_frames),
            self.frames + config.log_frames,
        )
        self._window = MetricsWindow(self.frames, progress.get("window"), config.learned)
        self._saved_source = saved.source if saved and config.deterministic else None
        self._restarts = Restarts(
            self._make_environment,
            config.seed,
            config.max_actor_restarts,
            progress.get("actor_restarts", 0),
        )
        # Blocks that the source has given out and that were not learned from yet.
        self._unused: list[Block] = []
        # With `meta_data=swap`: blocks of a batch that was learned from and has yet to judge.
        self._pair: list[Block] = []
        self._awaits_pair = self._saved_source is not None and progress.get("pair", False)
        self._bad_in_a_row = int(progress.get("bad_in_a_row", 0))
        # The start of the actors that is under way; None while they play.
        self._starting: ActorStart | None = ActorStart(self._stop_waiting)
        # While True the state may be half-way between two updates.
        self._is_updating = False

    def _refuse_vanished_checkpoints(self) -> None:
        """Starting anew would cut the metrics of a run that was saved."""
        name = self.folder.read_status().get("checkpoint")
        if name:
            raise UserError(
                f"{self.folder.checkpoints}: holds no checkpoint, but {name} was saved there; put "
                "it back, or use another --logdir"
            )

    def run(self) -> str:
        """Trains until `total_frames` or a request to stop.

        Returns:
          `finished` or `stopped`, as in `status.json`.

        Raises:
          RunFailed: if the run cannot go on for a reason that needs no traceback.
          Exception: whatever went wrong first, in whichever thread; the status is then `failed`.
        """
        try:
            self.folder.write_status(run_folder_lib.RUNNING, **self._status())
            with memory_errors():
                state = self._train()
            self.folder.write_status(state, **self._status())
        except SystemExit as error:  # it would end the process as if all were well
            failure = RunFailed(f"something ended the program ({error!r})")
            self.folder.write_failure(failure, **self._status())
            raise failure from error
        except BaseException as error:
            self.folder.write_failure(error, **self._status())
            raise
        return state

    def what_is_safe(self) -> str:
        """Where the next start will continue, for the user."""
        newest = self._checkpoints.newest
        if newest is None:
            return "no checkpoint was saved yet"
        return f"{newest.name} is safe, and the same command continues from there"

    def _status(self) -> dict[str, Any]:
        newest = self._checkpoints.newest
        return {"frames": self.frames} | ({"checkpoint": newest.name} if newest else {})

    def _train(self) -> str:
        # Every function is traced before the first thread starts.
        self.learner.build()
        self._policy = Policy(
            self.learner.state.network, self.config, self._description, self.config.envs_per_actor
        )
        with contextlib.ExitStack() as stack:
            writer = MetricsWriter(
                self.folder.metrics_path,
                self.folder.tensorboard,
                self.frames,
                self.config.learned,
            )
            stack.callback(writer.close)
            if self.config.wandb_project:
                record = WeightsAndBiases(self.config, self.folder)
                stack.callback(record.close)
                writer.also = record.log
            progress = Progress(self.config.total_frames, self.frames, self.config.learned)
            stack.callback(progress.close)
            watchdog = Watchdog(
                self._watched,
                self.folder.stacks_path,
                on_stall=self._fail,
                on_exit=lambda error: self.folder.write_failure(error, **self._status()),
            )
            stack.callback(watchdog.stop)
            watchdog.start()
            self._begin_source()
            # Threads first: nothing else is closed beside an actor that still computes.
            stack.callback(lambda: self._source.close())
            try:
                finished = self._loop(writer, progress)
            except Exception:
                self._save_after_failure(writer)
                raise
            self._source.close()
            self._group.close()
            self._save(writer)
        return run_folder_lib.FINISHED if finished else run_folder_lib.STOPPED

    def _fail(self, error: Exception) -> None:
        """Ends the run with this error, of a thread that hangs."""
        if self._starting is None:
            self._source.fail(error)
        else:
            self._starting.fail(error)

    def _watched(self) -> list[Watched]:
        starting, timeout = self._starting, self.config.stall_timeout + _LEARNER_EXTRA_SECONDS
        if starting is not None:
            return [starting.watched(timeout)]
        learner = Watched(
            "the learner",
            lambda: self.updates + self._source.looks,
            lambda: False,
            timeout,
        )
        return [learner, *self._source.watched()]

    def _make_environment(self) -> BatchedEnvironment:
        config = self.config
        return registry.make(
            config.environment,
            config.envs_per_actor,
            config.protocol,
            num_threads=config.env_threads,
            environment_kwargs=config.environment_arguments,
        )

    def _make_actor(self, index: int) -> Actor:
        """The actor of this number among those of all learners."""
        return Actor(
            index,
            self._make_environment(),
            self._policy,
            self.config.unroll_length,
            eta_schedule=eta_schedule_of(self.config),
            keep_actions=self.config.deterministic,
        )

    def _begin_source(self) -> None:
        self._starting = ActorStart(self._stop_waiting)
        self._source = self._make_source()
        self._starting = None

    def _make_source(self) -> BlockSource:
        """New actors, in new environments with seeds made of (seed, updates)."""
        config = self.config
        if config.actors == "ray":
            from meta_impala.distributed.ray_source import RaySource

            return RaySource(
                self._share,
                self._description,
                self._stop_waiting,
                self._restarts,
                first_actor=self._group.index * config.num_actors,
            )
        core_state_size = self.learner.state.network.settings.core_state_size

        def start(actor: Actor) -> None:
            seed = actor_seed(config.seed, self.updates, actor.index, config.envs_per_actor)
            actor.reset(seed, core_state_size)

        assert self._starting is not None
        first = self._group.index * config.num_actors
        actors = self._starting.actors(
            config.num_actors, lambda index: self._make_actor(first + index), start
        )
        if config.deterministic:
            return TurnTakingSource(actors, config, self._stop_waiting, self._restarts)
        return ThreadedSource(actors, self._share, self._stop_waiting, self._restarts)

    def _start_source(self) -> None:
        """Lets the actors begin, or continue where they stood."""
        restored = False
        if self._saved_source is not None and isinstance(self._source, TurnTakingSource):
            restored = fits(self._saved_source, self.config)
            if restored:
                self._source.restore(self._saved_source)
            self._saved_source = None
        self._source.start(self.learner.snapshot())
        if restored and self._awaits_pair:
            self._fetch(self._pair)
        self._awaits_pair = False

    def _fetch(self, blocks: list[Block]) -> Batch:
        """The next batch; its blocks join `blocks` one by one, so that none is lost by a stop."""
        count = self._share.batch_size // self._share.block_size
        first = len(blocks)
        while len(blocks) < first + count:
            blocks.append(self._source.next_block())
        return Batch(blocks[first:])

    def _next_batch(self) -> Batch:
        return self._fetch(self._unused)

    def _judge(self, batch: Batch, next_batch: Batch) -> Batch:
        """The batch of τ': the next, or with `meta_data=swap` every second time the one before."""
        if self.config.meta_data != "swap":
            return next_batch
        if not self._pair:
            self._pair = list(batch.blocks)
            return next_batch
        first = Batch(self._pair)
        self._pair = []
        return first

    def _loop(self, writer: MetricsWriter, progress: Progress) -> bool:
        """The wheel. Returns whether `total_frames` was reached (else: a request to stop)."""
        config = self.config
        checkpoint_clock = time.monotonic()
        try:
            self._start_source()
            batch = self._next_batch()
            while self.frames < config.total_frames:
                if self._group.any(self._stop.is_set()):
                    return False
                # τ' is the next batch, and becomes τ of the next update: no extra frames. Plain
                # IMPALA waits for it too, so that runs with and without the meta-gradient have
                # the same policy lag.
                next_batch = self._next_batch()
                learning_rate = self.learner.learning_rate(self.frames)
                self._update(batch, self._judge(batch, next_batch))
                batch = next_batch
                last = self.frames >= config.total_frames
                if self.frames >= self._next_row or last:
                    self._write_row(writer, progress, learning_rate, last=last)
                minutes = (time.monotonic() - checkpoint_clock) / 60.0
                by_time = 0 < config.checkpoint_minutes <= minutes
                if not last and (by_time or self._at_checkpoint_frames()):
                    self._save(writer)
                    checkpoint_clock = time.monotonic()
                    if config.deterministic and self._at_checkpoint_frames():
                        self._restart_source()
                        batch = self._next_batch()
        except StopRequested:
            return False
        return True

    def _update(self, batch: Batch, judge: Batch) -> None:
        """One update, and the word of it to actors and metrics."""
        self._is_updating = True
        try:
            statistics, snapshot = self.learner.update(
                batch.unroll, judge.unroll, self.updates, self.frames
            )
        except LearnerLost:
            self._is_updating = False  # it changed nothing
            raise
        self._is_updating = False
        self._source.publish(snapshot)
        lag = float(np.mean([self.updates - version for version in batch.versions]))
        self.updates += 1
        # Rows that a time limit cost are no transitions.
        self._frames_of_update = round(statistics.steps) * self._description.action_repeat
        self.frames += self._frames_of_update
        del self._unused[: len(batch.versions)]
        applied = bool(statistics.applied)
        self._window.add(statistics, batch.episodes, lag, self._source.fill(), applied=applied)
        if applied:
            self._bad_in_a_row = 0
        else:
            self._after_bad_update(statistics, {"batch": batch.unroll, "judging": judge.unroll})

    def _after_bad_update(self, statistics: Statistics, batches: Mapping[str, Unroll]) -> None:
        self._bad_in_a_row += 1
        message = (
            f"update {self.updates} was not applied, since something of it is not finite: "
            f"{bad_updates.describe(statistics, batches)}"
        )
        kept = bad_updates.keep(self.folder.bad_updates, self.updates, statistics, batches)
        if kept is not None:
            message += f"; it is kept in {kept}"
        warn(f"warning: {message}")
        if self._bad_in_a_row >= self.config.max_bad_updates:
            raise RunFailed(
                f"{self._bad_in_a_row} updates in a row (--max_bad_updates) were not applied; the "
                f"last: {message}"
            )

    def _write_row(
        self, writer: MetricsWriter, progress: Progress, learning_rate: float, *, last: bool
    ) -> None:
        if not self._group.keeps_folder:
            return
        row = self._window.row(self.frames, self.updates, learning_rate, self._restarts.count)
        writer.write(row)
        progress.update(row, self.config.total_frames, last=last)
        self.folder.write_status(run_folder_lib.RUNNING, **self._status())
        self._next_row = self.frames + self.config.log_frames

    def _at_checkpoint_frames(self) -> bool:
        """Whether the last update passed a multiple of --checkpoint_frames."""
        interval = self.config.checkpoint_frames
        if not interval:
            return False
        return self.frames // interval > (self.frames - self._frames_of_update) // interval

    def _restart_source(self) -> None:
        """What a run that is stopped here would do when it continues."""
        self._source.close()
        self._unused.clear()
        self._pair.clear()
        self._begin_source()
        self._source.start(self.learner.snapshot())

    def _save(self, writer: MetricsWriter) -> None:
        if not self._group.keeps_folder:
            return
        writer.sync()  # or a power cut could leave a checkpoint that is ahead of its metrics
        source = None
        if isinstance(self._source, TurnTakingSource) and not self._at_checkpoint_frames():
            source = self._source.state([*self._pair, *self._unused])
        progress = {
            "window": self._window.state(),
            "next_row": self._next_row,
            "actor_restarts": self._restarts.count,
            "pair": bool(self._pair) or self._awaits_pair,
            "bad_in_a_row": self._bad_in_a_row,
        }
        self._checkpoints.save(progress, source)

    def _save_after_failure(self, writer: MetricsWriter) -> None:
        """What was learned is sound, unless it was the learner that failed."""
        self._source.close()
        if self._is_updating or self.config.deterministic:
            return
        with contextlib.suppress(RunFailed):  # the first error is the one to show
            self._save(writer)
