"""`--evaluation_frames`: full games with the newest weights while a run trains.

The games are those of `meta_impala.evaluate` (whole games, raw returns, stochastic policy, no-op
starts), with their own environments and seeds, so that training is the same with and without
them. With `--deterministic` they are played between two updates; else with low priority beside the
training, and one that becomes due while the last one is still being played follows it, with the
weights at that time.

They are always played in a thread of their own, so that a SystemExit or KeyboardInterrupt of an
environment is not taken for one of the learner's thread, where the program's handlers of signals
raise theirs.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from meta_impala.agent.policy import Snapshot
from meta_impala.config import PeriodicEvaluationSettings
from meta_impala.environments import BatchedEnvironment, Description
from meta_impala.errors import one_line, warn
from meta_impala.evaluation import record, scores, starts
from meta_impala.evaluation.games import GamePolicy, evaluated_environment, play_games
from meta_impala.learner.state import LearnerState
from meta_impala.storage.best_checkpoint import BestCheckpoint
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_agent import with_eta
from meta_impala.system.ending import ForeignCodeThread
from meta_impala.system.signals import StopRequest
from meta_impala.system.watchdog import stalled
from meta_impala.training.evaluation_table import Evaluation, EvaluationTable

_MOST_ENVIRONMENTS = 16
_POLL_SECONDS = 0.2
# Beside busy training threads it gets about a tenth of a core; more where one is free.
_NICE = 10
# How long to wait for the current games when the run ends.
_SECONDS_TO_END = 5.0
# Keeps the seeds of these games apart from those of the actors and of `evaluate --seed`.
_SEED_STREAM = 0x6576616C


def evaluation_seed(seed: int, number: int) -> int:
    """The seed of the games of evaluation `number` of a run; new games every time."""
    state = np.random.SeedSequence([seed, _SEED_STREAM, number]).generate_state(1)
    return int(state[0] >> 1)


class GamePlayer:
    """Plays the games of evaluations; its environments are kept from one to the next."""

    def __init__(
        self, settings: PeriodicEvaluationSettings, description: Description, network: Any
    ) -> None:
        """Args:
        settings: resolved.
        description: of the environment.
        network: whose variables are not used.
        """
        self._settings = settings
        self._num_envs = min(settings.evaluation_episodes, _MOST_ENVIRONMENTS)
        self._core_state_size = network.settings.core_state_size
        self._policy = GamePolicy(network, settings, description, self._num_envs)
        self._environments: list[BatchedEnvironment] = []
        self._said_left_out = False

    def play(
        self, snapshot: Snapshot, frames: int, seed: int, should_stop: Callable[[], bool]
    ) -> Evaluation:
        """Plays `--evaluation_episodes` games.

        Args:
          snapshot: acts in all games.
          frames: that it was trained for.
          seed: of the games.
          should_stop: asked before every step.

        Raises:
          KeyboardInterrupt: if it should stop.
          UserError: if no game has a finite return; others that have none are left out.
          BaseException: whatever an environment raises.
        """
        started = time.monotonic()
        settings = self._settings
        if settings.evaluation_eta_values is not None:
            snapshot = with_eta(snapshot, *settings.evaluation_eta_values)
        while len(self._environments) < self._num_envs:
            self._environments.append(evaluated_environment(settings))
        games = play_games(
            self._policy,
            snapshot,
            self._environments,
            (
                (number, starts.Start(starts.game_seeds(seed, number)[0]))
                for number in range(settings.evaluation_episodes)
            ),
            seed,
            core_state_size=self._core_state_size,
            max_frames=record.frame_limit(settings.environment, settings.environment_arguments),
            should_stop=should_stop,
        )
        played, games = len(games), record.with_finite_returns(games)
        self._say_left_out(played - len(games), played, frames)
        summary = scores.summarize([game.episode_return for game in games])
        gamma = lambda_ = math.nan
        if not snapshot.eta.per_state:
            gamma, lambda_ = map(float, snapshot.eta.values.numpy()[:2])
        error = math.nan if summary.standard_error is None else float(summary.standard_error)
        seconds = time.monotonic() - started
        return Evaluation(frames, summary.mean, error, len(games), gamma, lambda_, seconds)

    def _say_left_out(self, left_out: int, played: int, frames: int) -> None:
        if left_out and not self._said_left_out:
            self._said_left_out = True
            warn(
                f"warning: the returns of {left_out} of {played} games of the evaluation at "
                f"{frames:,} frames are not finite, since a reward was not: such games are left "
                "out of evaluations.csv"
            )

    def close(self) -> None:
        """Closes the environments; `play` makes new ones."""
        environments, self._environments = self._environments, []
        for environment in environments:
            with contextlib.suppress(BaseException):  # an environment may raise anything
                environment.close()


class _GameThread(ForeignCodeThread):
    """Plays one evaluation."""

    def __init__(self, play: Callable[[], None], *, is_beside_training: bool) -> None:
        super().__init__("evaluation")
        self._play = play
        self._is_beside_training = is_beside_training

    def run(self) -> None:
        if self._is_beside_training:
            # Of this thread alone, and of those that it starts (Linux).
            with contextlib.suppress(OSError, AttributeError):
                os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        self._play()


class PeriodicEvaluation:
    """The evaluations of a run.

    Attributes:
      steps: of games that the learner's thread waits for (for the watchdog).
    """

    def __init__(
        self,
        settings: PeriodicEvaluationSettings,
        description: Description,
        folder: RunFolder,
        state: LearnerState,
        identity: Mapping[str, Any],
        stop: StopRequest,
    ) -> None:
        """Builds the policy: call it before the first thread starts.

        Args:
          settings: resolved.
          description: of the environment.
          folder: of the run.
          state: of the learner, restored.
          identity: of its checkpoints.
          stop: set when games are to be given up.

        Raises:
          RunFailed: if the table or the best checkpoint cannot be written.
        """
        self.steps = 0
        self._settings = settings
        self._stop = stop
        self._write_stacks = folder.write_stacks
        self._is_closed = False
        self._is_waited_for = settings.deterministic
        self._thread: _GameThread | None = None
        frames = int(state.frames.numpy())
        self._table = EvaluationTable(folder.evaluations_path, frames)
        last = self._table.rows[-1].frames if self._table.rows else 0
        self._played = last // settings.evaluation_frames
        self._player = GamePlayer(settings, description, state.network)
        self._best: BestCheckpoint | None = None
        if settings.keep_best_checkpoint:
            self._best = BestCheckpoint(
                folder.best_checkpoint, state, identity, self._table.return_at
            )

    def is_due(self, frames: int) -> bool:
        """Whether a multiple of `--evaluation_frames` was passed since the last evaluation."""
        return frames // self._settings.evaluation_frames > self._played

    def after_update(
        self, frames: int, snapshot: Snapshot, progress: Callable[[], dict[str, Any]]
    ) -> None:
        """Starts the games that are due; in a deterministic run, waits for them.

        Args:
          frames: learned from.
          snapshot: the newest.
          progress: of the trainer, for a checkpoint of the learner as it is now.

        Raises:
          RunFailed: if a checkpoint or the table cannot be written, or an environment hangs in a
            deterministic run.
        """
        # In this order: a thread counts its evaluation before it ends.
        if self._is_playing() or not self.is_due(frames) or self._stop.is_set():
            return
        if self._best is not None:
            self._best.save_candidate(progress())
        number = frames // self._settings.evaluation_frames
        self._thread = _GameThread(
            lambda: self._play(frames, number, snapshot),
            is_beside_training=not self._is_waited_for,
        )
        self._thread.start()
        if self._is_waited_for:
            self._wait()

    def finish(
        self, frames: int, snapshot: Snapshot, progress: Callable[[], dict[str, Any]]
    ) -> bool:
        """At the end of a run: waits for the games in progress, and then for those that are due.

        Args:
          frames, snapshot, progress: as in `after_update`.

        Returns:
          False if games were given up because the user asked to stop: a continued run plays them.

        Raises:
          RunFailed: as `after_update`.
        """
        self._is_waited_for = True
        self._wait()
        self.after_update(frames, snapshot, progress)
        return not (self._stop.is_set() and (self._is_playing() or self.is_due(frames)))

    def close(self) -> None:
        """Gives up the current games, and waits a moment for their end."""
        self._is_closed = True
        if self._thread is not None:
            self._thread.join(_SECONDS_TO_END)
        if not self._is_playing():  # a thread may still be inside them
            self._player.close()

    def _is_playing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _wait(self) -> None:
        """Until the games are over, or the user asks to stop, or an environment hangs.

        In short waits: what a handler of a signal raises is raised here.

        Raises:
          RunFailed: if an environment hangs in a deterministic run, of which a start that continues
            it plays the games; other runs do without them.
        """
        thread = self._thread
        if thread is None:
            return
        steps, waited = self.steps, 0.0
        while thread.is_alive() and not self._stop.is_set():
            thread.join(_POLL_SECONDS)
            # Waits that were waited: a process that was stopped meanwhile is no hang.
            waited = waited + _POLL_SECONDS if self.steps == steps else 0.0
            steps = self.steps
            if waited >= self._settings.stall_timeout:
                if self._settings.deterministic:
                    raise stalled("an evaluation", self._settings.stall_timeout, self._write_stacks)
                warn(
                    "warning: an evaluation is abandoned: its games made no step for "
                    f"{self._settings.stall_timeout:g} s (--stall_timeout)"
                )
                return

    def _should_stop(self) -> bool:
        if self._is_waited_for:
            self.steps += 1
        return self._is_closed or self._stop.is_set()

    def _play(self, frames: int, number: int, snapshot: Snapshot) -> None:
        seed = evaluation_seed(self._settings.seed, number)
        try:
            row = self._player.play(snapshot, frames, seed, self._should_stop)
            self._table.add(row)
            self._played = number
            if self._best is not None:
                self._best.rate(frames, row.mean_return)
        except BaseException as error:  # noqa: BLE001 - an environment may raise anything
            if self._should_stop():
                return  # a continued run plays it
            self._played = number
            warn(
                f"warning: the evaluation at {frames:,} frames was abandoned "
                f"({type(error).__name__}: {one_line(error)}); training continues"
            )
            self._player.close()
