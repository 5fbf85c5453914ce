"""Training loop of one run: build, train, checkpoint, shut down cleanly.

environments -> actors -> trajectory queue -> learner -> snapshot -> actors
                                                 |-> metrics, checkpoints, evaluations
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import tensorflow as tf

from meta_impala.actors.making import EarlyEnvironment
from meta_impala.actors.source import BlockSource, StopRequested
from meta_impala.actors.startup import ActorStart
from meta_impala.actors.turn_taking import TurnTakingSource
from meta_impala.agent.policy import Snapshot
from meta_impala.config import (
    AgentSettings,
    BatcherSettings,
    Config,
    PeriodicEvaluationSettings,
)
from meta_impala.config.metric_columns import of_all_heads
from meta_impala.environments import Description
from meta_impala.errors import RunFailed
from meta_impala.learner.group import ALONE, LearnerGroup, LearnerLost
from meta_impala.learner.make_learner import make_learner, reserve_memory
from meta_impala.storage import eta_replay
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.checkpoint import Checkpoints, identity_of
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.ending import no_exit
from meta_impala.system.signals import StopRequest
from meta_impala.system.tensorflow_setup import learner_device
from meta_impala.system.timing import RunStopwatches, timed
from meta_impala.system.watchdog import Watchdog, Watched
from meta_impala.training.bad_updates import BadUpdates
from meta_impala.training.batcher import Batch, Batcher
from meta_impala.training.block_sources import SourceMaker, restarts_of
from meta_impala.training.checkpoint_schedule import CheckpointSchedule
from meta_impala.training.memory import memory_errors
from meta_impala.training.metrics import MetricsWindow, open_metrics
from meta_impala.training.periodic_evaluation import PeriodicEvaluation
from meta_impala.training.progress import Progress
from meta_impala.training.saved_progress import progress_of
from meta_impala.training.saved_source import saved_source
from meta_impala.training.weights_and_biases import WeightsAndBiases

# Beside waiting for blocks the learner's thread updates, and saves, perhaps to a slow disk.
_LEARNER_EXTRA_SECONDS = 60.0


class Trainer:
    """One run, from start or from its newest checkpoint.

    With `--deterministic` a stopped run continues to the bit as if it had not been stopped. A
    checkpoint holds the actors' seeds, their actions since the last reset, and the blocks that were
    not learned from yet. To bound its size the environments are reset at each checkpoint by
    --checkpoint_frames, in a run that is stopped there and in one that is not.

    Attributes:
      frames, updates: learned from, and made, so far.
      restored_from: path of the checkpoint that the run continues from; None for a new run.
    """

    # Build.

    def __init__(
        self,
        config: Config,
        description: Description,
        folder: RunFolder,
        stop: StopRequest,
        group: LearnerGroup = ALONE,
        stopwatches: RunStopwatches | None = None,
        early: EarlyEnvironment | None = None,
        cpu_start: float = 0.0,
    ) -> None:
        """Args:
        config: resolved, network included.
        description: of the environment.
        folder: prepared; with `eta_schedule=replay` it has the copy of the file.
        stop: set when the user asks the run to stop.
        group: learners of this run; all but the first have temporary folders and its state.
        stopwatches: time what learner and actor threads do, for benchmarks; None for no timing.
        early: environments of the first actor, made before TensorFlow was imported.
        cpu_start: CPU seconds that this process had used before, for something else.
        """
        self.config = config
        self.folder = folder
        self._description = description
        self._group = group
        self._stop = stop
        # Several learners stop after the same update: none may leave while the others wait for it.
        self._stop_waiting = stop if group.size == 1 else StopRequest()
        with no_exit(), memory_errors(), tf.device(learner_device(config.learner_device)):
            replayed = eta_replay.load(folder, config)
            reserve_memory(config.share, description)
            self.learner = make_learner(config.share, description, group=group, replayed=replayed)
        self._identity = identity_of(config.part(AgentSettings), description, self.learner.state)
        self._checkpoints = Checkpoints(
            folder.checkpoints, self.learner.state, config.keep_checkpoints, self._identity
        )
        self._stopwatch = stopwatches.learner if stopwatches else None
        self._batcher = Batcher(
            config.share.part(BatcherSettings), config.block_size,
            lambda: timed(self._stopwatch, "waiting", self._source.next_block)(),
        )  # fmt: skip
        self._restore(cpu_start)
        self._source_maker = SourceMaker(
            config, description, self._restarts, self._stop_waiting, group, stopwatches, early
        )
        self._checkpoint_schedule = CheckpointSchedule(
            config.checkpoint_minutes, config.checkpoint_frames
        )
        # None while the actors play.
        self._starting: ActorStart | None = ActorStart(self._stop_waiting)
        self._is_updating = False  # while True the state may be half-way between two updates
        # From `_train` on.
        self._source: BlockSource
        self._snapshot: Snapshot

    def _restore(self, cpu_start: float) -> None:
        """The state of the newest checkpoint, if there is one, and of what else was saved there."""
        config = self.config
        saved = self._checkpoints.restore_latest()
        self._group.take_from_first(self.learner.state.shared_variables)
        if self._group.size > 1 and self.learner.state.window is not None:
            self.learner.state.window.clear()  # only learner 0 has its batches
        self.restored_from = str(saved.path) if saved else None
        self.frames, self.updates = self.learner.state.counts
        own = self.learner.own_meta_weights
        progress = progress_of(saved, self.folder, own, config.meta_objective)
        next_row = self.frames + config.log_frames
        self._next_row = min(progress.get("next_row", next_row), next_row)
        self._reported = of_all_heads(config.varied, config.auxiliary_heads)
        window = progress.get("window")
        self._metrics_window = MetricsWindow(self.frames, window, self._reported, cpu_start)
        self._bad_updates = BadUpdates(self.folder.bad_updates, config.max_bad_updates, progress)
        self._restarts = restarts_of(config, progress.get("actor_restarts", 0))
        self._saved_source = saved_source(
            saved if config.deterministic else None, self._description, self.learner
        )
        if self._saved_source is not None and progress.get("pair", False):
            self._batcher.expect_swap_blocks()

    # Train.

    def run(self) -> str:
        """Trains until `total_frames` or a request to stop.

        Returns:
          `finished` or `stopped`, as in `status.json`; also `stopped` if games were given up.

        Raises:
          RunFailed: if the run cannot go on for a reason that needs no traceback.
          KeyboardInterrupt: raised in this thread; the status is then `stopped`.
          Exception: whatever went wrong first, in whichever thread; the status is then `failed`.
        """
        try:
            self.folder.write_status(run_folder_lib.RUNNING, **self._status())
            with no_exit(), memory_errors():
                return self._train()
        except BaseException as error:
            self.folder.write_failure(error, **self._status())
            raise

    @property
    def policy_lag(self) -> float:
        """Mean policy lag of the updates since the last row of metrics."""
        return self._metrics_window.policy_lag

    def describe_latest_checkpoint(self) -> str:
        """Where the next start will continue, for the user."""
        newest = self._checkpoints.newest
        if newest is None:
            return "no checkpoint was saved yet"
        return f"{newest.name} is safe, and the same command continues from there"

    def _train(self) -> str:
        if self._stops_alone():
            return self._end_as(run_folder_lib.STOPPED)
        self._build_graphs()  # takes several seconds
        if self._stops_alone():
            return self._end_as(run_folder_lib.STOPPED)
        with contextlib.ExitStack() as stack:
            self._open_records(stack)
            self._watch(stack)
            self._make_source()
            # Actor threads first: nothing else is closed while one still runs.
            stack.callback(lambda: self._source.close())
            try:
                finished = self._loop()
            except BaseException:  # KeyboardInterrupt too
                self._save_after_failure()
                raise
            self._source.close()
            self._group.close()
            self._save()
            evaluation = self._evaluation
            if finished and evaluation is not None:
                finished = evaluation.finish(self.frames, self._snapshot, self._progress_to_save)
            # Before anything is closed: some of that may take long, and all is saved.
            return self._end_as(run_folder_lib.FINISHED if finished else run_folder_lib.STOPPED)

    def _stops_alone(self) -> bool:
        """Whether to stop before the first update; several learners agree on that in the loop."""
        return self._group.size == 1 and self._stop.is_set()

    def _end_as(self, state: str) -> str:
        """Writes the last status of this start, and returns it."""
        self.folder.write_status(state, **self._status())
        return state

    def _build_graphs(self) -> None:
        """Builds every graph, before the first thread starts."""
        self.learner.build()
        self._source_maker.build(self.learner.state.network)

    def _open_records(self, stack: contextlib.ExitStack) -> None:
        config = self.config
        self._writer = open_metrics(self.folder, self.frames, config)
        stack.callback(self._writer.close)
        if config.wandb_project:
            record = WeightsAndBiases(config, self.folder, self.frames)
            stack.callback(record.close)
            self._writer.observers.append(record.log)
        self._progress = Progress(config.total_frames, self.frames, self._reported)
        stack.callback(self._progress.close)
        self._evaluation: PeriodicEvaluation | None = None
        if config.evaluation_frames and self._group.keeps_folder:
            self._evaluation = PeriodicEvaluation(
                config.part(PeriodicEvaluationSettings), self._description, self.folder,
                self.learner.state, self._identity, self._stop,
            )  # fmt: skip
            stack.callback(self._evaluation.close)

    def _loop(self) -> bool:
        """Updates, until `total_frames` (returns True) or a request to stop (False)."""
        config, schedule = self.config, self._checkpoint_schedule
        schedule.restart_clock()
        try:
            self._start_source()
            self._evaluate()
            while self.frames < config.total_frames:
                if self._group.any(self._stop.is_set()):
                    return False
                batch, ahead = timed(self._stopwatch, "next batch", self._batcher.next_batches)()
                learning_rate = self.learner.learning_rate(self.frames)
                self._update(batch, ahead)
                self._progress.advance(self.frames)
                last = self.frames >= config.total_frames
                if self.frames >= self._next_row or last:
                    self._write_row(learning_rate, last=last)
                self._evaluate()
                if not last and schedule.is_due():
                    self._save()
                    schedule.restart_clock()
                    if config.deterministic and schedule.at_frames:
                        self._restart_source()
        except StopRequested:
            return False
        return True

    def _update(self, batch: Batch, ahead: list[Batch]) -> None:
        """Runs one update; publishes the snapshot; records metrics."""
        self._is_updating = True
        try:
            statistics, self._snapshot = timed(self._stopwatch, "update", self.learner.update)(
                batch.unroll, [one.unroll for one in ahead], self.updates, self.frames
            )
        except LearnerLost:
            self._is_updating = False  # no step is half made: the state can be saved
            self.frames, self.updates = self.learner.state.counts
            raise
        self._is_updating = False
        self._source.publish(self._snapshot)
        lag = float(np.mean([self.updates - version for version in batch.versions]))
        self.updates += 1
        # Rows that a time limit cost are no transitions.
        before, new = self.frames, round(statistics.steps) * self._description.action_repeat
        self.frames += new
        self._checkpoint_schedule.after_update(before, self.frames)
        self._batcher.learned_from(batch, self.updates)
        games = batch.episodes if new else []
        self._metrics_window.add(statistics, games, lag, self._source.fill())
        self._bad_updates.record(
            self.updates, statistics, {"batch": batch.unroll, "meta batch": ahead[-1].unroll}
        )

    def _write_row(self, learning_rate: float, *, last: bool) -> None:
        if not self._group.keeps_folder:
            return
        row = self._metrics_window.row(
            self.frames, self.updates, learning_rate, self._restarts.count
        )
        self._writer.write(row)
        self._progress.update(row, self.config.total_frames, last=last)
        self.folder.write_status(run_folder_lib.RUNNING, **self._status())
        self._next_row = self.frames + self.config.log_frames

    def _evaluate(self) -> None:
        if self._evaluation is not None:
            self._evaluation.after_update(self.frames, self._snapshot, self._progress_to_save)

    # The source of blocks.

    def _make_source(self) -> None:
        """New actors, in new environments with seeds made of (seed, updates)."""
        self._starting = ActorStart(self._stop_waiting)
        self._source = self._source_maker.make(self.updates, self._starting)
        self._starting = None
        self._stop.hold()  # environments were made in this thread

    def _start_source(self) -> None:
        """Starts the actors, or continues from their saved state."""
        restored = False
        if self._saved_source is not None and isinstance(self._source, TurnTakingSource):
            restored = self._source_maker.fits(self._saved_source)
            if restored:
                self._source.restore(self._saved_source)
            self._saved_source = None
        self._snapshot = self.learner.snapshot()
        self._source.start(self._snapshot)
        self._batcher.restore_swap_blocks(is_there=restored)

    def _restart_source(self) -> None:
        """Does what a run that was stopped here does when it continues."""
        self._source.close()
        self._batcher.clear()
        self._make_source()
        self._source.start(self._snapshot)

    # Watch.

    def _watch(self, stack: contextlib.ExitStack) -> None:
        watchdog = Watchdog(
            self._watched,
            self.folder.write_stacks,
            on_stall=self._fail,
            on_exit=lambda error: self.folder.write_failure(error, **self._status()),
        )
        stack.callback(watchdog.stop)
        watchdog.start()

    def _watched(self) -> list[Watched]:
        starting, timeout = self._starting, self.config.stall_timeout + _LEARNER_EXTRA_SECONDS
        if starting is not None:
            return [starting.watched(timeout)]
        learner = Watched("the learner", self._steps, lambda: False, timeout)
        return [learner, *self._source.watched()]

    def _steps(self) -> int:
        """A count that grows while the learner's thread makes progress."""
        games = self._evaluation.steps if self._evaluation is not None else 0
        return self.updates + self._source.polls + games

    def _fail(self, error: Exception) -> None:
        """Ends the run with this error, of a thread that hangs."""
        (self._starting or self._source).fail(error)

    # Checkpoint.

    def _save(self) -> None:
        if not self._group.keeps_folder:
            return
        self._writer.sync()  # or a power cut could leave a checkpoint that is ahead of its metrics
        source = None
        if isinstance(self._source, TurnTakingSource) and not self._checkpoint_schedule.at_frames:
            source = self._source.state(self._batcher.pending_blocks())
        self._checkpoints.save(self._progress_to_save(), source)

    def _progress_to_save(self) -> dict[str, Any]:
        """What a checkpoint holds besides the learner's state, as JSON."""
        return {
            "window": self._metrics_window.state(),
            "next_row": self._next_row,
            "actor_restarts": self._restarts.count,
            "pair": self._batcher.has_swap_blocks,
            "own_meta_weights": self.learner.own_meta_weights,
            **self._bad_updates.state(),
        }

    def _save_after_failure(self) -> None:
        """Saves after a failure, unless the learner failed in the middle of an update.

        A deterministic run keeps its last checkpoint: it continues from there to the bit.
        """
        self._source.close()
        if self._is_updating or self.config.deterministic:
            return
        with contextlib.suppress(RunFailed):  # the first error is the one to show
            self._save()

    def _status(self) -> dict[str, Any]:
        saved = self._checkpoints.newest
        return {"frames": self.frames} | ({"checkpoint": saved.name} if saved else {})
