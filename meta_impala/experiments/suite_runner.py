"""Runs a suite, N runs at a time; can be stopped and continued at any time.

The runner keeps no state: every step reads the run folders. Trainings and evaluations
are the ordinary commands, each with a log file. On Linux they are sent SIGTERM, on which they save
and stop, when the runner dies for any reason.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Protocol

import psutil
import tqdm

from meta_impala.environments import minatar_games
from meta_impala.errors import UserError, one_line, tell, warn
from meta_impala.experiments import pbt_settings
from meta_impala.experiments.shard import WHOLE, Shard
from meta_impala.experiments.stages import Stage, frames_of, stage_of
from meta_impala.experiments.suite import Run
from meta_impala.storage import run_folder as run_folder_lib
from meta_impala.storage.files import make_folder, open_log, read_tail, remove_empty
from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.results_folder import refuse_links, refuse_run
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import names_modules
from meta_impala.system.processes import end_with_parent
from meta_impala.system.signals import StopRequest

# In the folder of a suite, beside its runs.
REPORT, LOGS = "report", "logs"

_SECONDS_BETWEEN_POLLS = 0.5

_SECONDS_BETWEEN_LINES = 60.0

_SECONDS_TO_STOP = 120.0


@contextlib.contextmanager
def locked(out: pathlib.Path, shard: Shard = WHOLE) -> Iterator[None]:
    """Holds the folder of a suite, or a shard of it, for this process.

    Raises:
      UserError: if another process has it, it is the folder of a run, or it cannot be written.
    """
    if RunFolder(out).has_run():  # below which no run is found
        raise UserError(f"--out={out}: is the folder of a run; must be a folder of its own")
    refuse_run(out, f"--out={out}")
    made: list[pathlib.Path] = []
    try:
        made = make_folder(out, parents=True)
        name = ".lock" if shard == WHOLE else f".lock.{shard.index}_of_{shard.count}"
        file = open_log(out / name)
    except OSError as error:
        remove_empty(made)
        raise UserError(
            f"--out={out}: must be a folder that can be written ({one_line(error)})"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                of = "a suite" if shard == WHOLE else f"shard {shard}"
                raise UserError(f"--out={out}: another process is running {of} there") from None
            warn(f"warning: {out}: no locks on this file system; start no second suite in it")
        yield


def check_places(out: pathlib.Path, runs: Sequence[Run]) -> None:
    """Refuses links within the folder of a suite, which may be from somebody else.

    Raises:
      UserError: if there is one in the place of its report, its logs or a run.
    """
    for path in (out / REPORT, out / LOGS, *(run.folder.path for run in runs)):
        refuse_links(path, out)


def check_packages(runs: Iterable[Run]) -> None:
    """Refuses runs that would fail for a package that is not installed.

    Raises:
      UserError: naming what to install.
    """
    for run in runs:
        if missing := minatar_games.why_missing(run.config.environment):
            raise UserError(f"{run.config.environment} cannot be made: {missing}")
        if run.population is not None:
            pbt_settings.check_packages()


def busy_elsewhere(run: Run) -> bool:
    """Whether a process that is not ours is training in the folder of a run.

    This happens for a moment after the runner was killed, while its trainings save.
    """
    if is_locked(run.folder.path):
        return True
    # Not every file system has locks.
    status = run.folder.read_status()
    if status.get("state") != run_folder_lib.RUNNING:
        return False
    try:
        arguments = psutil.Process(status["pid"]).cmdline()
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
    return any(str(run.folder.path) in argument for argument in arguments)


class Process(Protocol):
    """A command that was started, as `subprocess.Popen` has it."""

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


StartProcess = Callable[[Sequence[str], IO[bytes]], Process]
StageOf = Callable[[Run, Mapping[str, int]], Stage]


def start_here(arguments: Sequence[str], log: IO[bytes]) -> Process:
    """Starts a command on this machine, its output in `log`."""
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        process_group=0,  # Ctrl-C is for the runner to pass on
        preexec_fn=end_with_parent,
    )


@dataclasses.dataclass
class _Job:
    """A training or an evaluation that is running."""

    run: Run
    stage: Stage
    process: Process
    log: pathlib.Path
    file: IO[bytes]
    began: float


def command_of(run: Run, stage: Stage, evaluation: Mapping[str, int]) -> list[str]:
    """The command that brings a run from this stage to the next."""
    python = [sys.executable, "-m"]
    logdir = f"--logdir={run.folder.path}"
    if stage is Stage.TRAINED:
        flags = [f"--{name}={value}" for name, value in evaluation.items()]
        # What is there is not the evaluation of the suite, even if it has more games.
        flags.append("--override")
        if names_modules(run.config):
            flags.append("--trust_modules")  # as `expand` has checked
        return [*python, "meta_impala.evaluate", logdir, *flags]
    return [*python, run.module, *run.arguments, logdir]


class SuiteRunner:
    """Trains and evaluates every run of a suite."""

    def __init__(
        self,
        runs: Sequence[Run],
        evaluation: Mapping[str, int],
        out: pathlib.Path,
        parallel: int,
        stop: StopRequest,
        tell: Callable[[str], None] = tell,
        command: Callable[[Run, Stage, Mapping[str, int]], list[str]] = command_of,
        start: StartProcess = start_here,
        stage: StageOf = stage_of,
        ended: Callable[[Run, Process], None] = lambda run, process: None,
        evaluates: bool = True,
    ) -> None:
        """Args:
        runs: of the suite.
        evaluation: `episodes`, `seed` and `num_envs`.
        out: folder of the suite.
        parallel: how many processes at a time.
        stop: set when the user asks to stop.
        tell: prints a line.
        command: that brings a run on.
        start: starts it, here or elsewhere.
        stage: progress of a run.
        ended: called for every process that has ended.
        evaluates: whether an evaluation follows each training.
        """
        self._runs = list(runs)
        self._open = [run for run in runs if stage(run, evaluation) is not Stage.DONE]
        self._evaluation = evaluation
        self._logs = out / LOGS
        self._parallel = parallel
        self._stop = stop
        self._tell = tell
        self._command = command
        self._start_process = start
        self._stage = stage
        self._ended = ended
        self._jobs: list[_Job] = []
        self._display = _Display(self._runs, len(self._open), tell, evaluates)
        self.failed: dict[str, str] = {}

    def run(self) -> bool:
        """Runs until everything is done or has failed, or the user asks to stop.

        Returns:
          Whether every run is finished. `failed` has the reason of each run that failed.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            while not self._stop.is_set():
                self._reap()
                if not self._start_ready_runs() and not self._jobs:
                    break
                self._display.show(self._jobs)
                time.sleep(_SECONDS_BETWEEN_POLLS)
        finally:
            self._end_all()
            self._display.close()
        return not self._open

    def _start_ready_runs(self) -> bool:
        """Starts as many jobs as may run; returns whether any run is left to wait for."""
        ours = {job.run.name for job in self._jobs}
        waiting = False
        for run in self._open:
            if len(self._jobs) >= self._parallel or self._stop.is_set():
                return True
            if run.name in self.failed or run.name in ours:
                continue
            waiting = True
            if not busy_elsewhere(run):
                self._jobs.append(self._start(run, self._stage(run, self._evaluation)))
        return waiting

    def _start(self, run: Run, stage: Stage) -> _Job:
        arguments = self._command(run, stage, self._evaluation)
        log = self._logs / f"{run.name}.log"
        file = open_log(log)
        process = self._start_process(arguments, file)
        what = "evaluating" if stage is Stage.TRAINED else "training"
        self._tell(f"{what} {run.name}")
        return _Job(run, stage, process, log, file, time.monotonic())

    def _reap(self) -> None:
        """Removes the jobs that have ended and records their results."""
        for job in [job for job in self._jobs if job.process.poll() is not None]:
            self._jobs.remove(job)
            job.file.close()
            self._display.note(job.run)
            code = job.process.returncode
            self._ended(job.run, job.process)
            after = self._stage(job.run, self._evaluation)
            if after is Stage.DONE:
                self._open.remove(job.run)
                seconds = time.monotonic() - job.began
                self._display.done(seconds if job.stage is Stage.TRAINED else None)
            has_moved = after is not job.stage and after in (Stage.TRAINED, Stage.DONE)
            if not has_moved and not self._stop.is_set():
                of_server = getattr(job.process, "reason", "")  # of a fork only
                reason = of_server or last_line(job.log) or f"exit code {code}"
                self.failed[job.run.name] = reason
                self._tell(f"failed: {job.run.name}: {reason} (see {job.log})")

    def _end_all(self) -> None:
        """Asks every job to save and stop, and waits for them."""
        for job in self._jobs:
            job.process.terminate()
        deadline = time.monotonic() + _SECONDS_TO_STOP
        for job in self._jobs:
            try:
                job.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait(_SECONDS_TO_STOP)
            job.file.close()
            self._ended(job.run, job.process)
        self._jobs.clear()


def last_line(log: pathlib.Path) -> str:
    """The last line of a log; empty if it has none."""
    lines = read_tail(log).strip().splitlines()
    return lines[-1] if lines else ""


class _Display:
    """One bar over the frames of all runs on a terminal, a line a minute elsewhere."""

    def __init__(
        self,
        runs: Sequence[Run],
        open_runs: int,
        tell: Callable[[str], None],
        evaluates: bool = True,
    ) -> None:
        self._runs = runs
        self._evaluates = evaluates
        self._open = open_runs
        self._tell = tell
        self._total = sum(run.config.total_frames for run in runs)
        self._frames: dict[str, int] = {}
        for run in runs:
            self.note(run)
        self._began = time.monotonic()
        self._frames_before = sum(self._frames.values())
        self._evaluations: list[float] = []
        self._last_line = self._began
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            total=self._total,
            initial=self._frames_before,
            unit="frames",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self._is_terminal,
        )

    def note(self, run: Run) -> None:
        """Updates the progress of a run."""
        self._frames[run.name] = min(frames_of(run), run.config.total_frames)

    def done(self, seconds: float | None) -> None:
        """Records that a run is done, and how long its evaluation took; None without one."""
        self._open -= 1
        if seconds is not None:
            self._evaluations.append(seconds)

    def _left(self, frames: int, parallel: int) -> str:
        speed = (frames - self._frames_before) / (time.monotonic() - self._began)
        if frames < self._total and speed <= 0.0:
            return "time left unknown"
        seconds = (self._total - frames) / speed if frames < self._total else 0.0
        unknown = ""
        if self._evaluations:
            mean = sum(self._evaluations) / len(self._evaluations)
            seconds += mean * self._open / max(1, parallel)
        elif self._open and self._evaluates:
            unknown = f" and {self._open} evaluations"
        hours, rest = divmod(int(seconds), 3600)
        return f"{hours}:{rest // 60:02}:{rest % 60:02}{unknown} left"

    def show(self, jobs: Sequence[_Job]) -> None:
        """Shows the progress of the suite."""
        now = time.monotonic()
        if not self._is_terminal and now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        for job in jobs:
            self.note(job.run)
        frames = sum(self._frames.values())
        done = len(self._runs) - self._open
        names = ", ".join(job.run.name for job in jobs)
        text = f"{done}/{len(self._runs)} runs done, {self._left(frames, len(jobs))}; {names}"
        with contextlib.suppress(OSError):  # the terminal may be gone; the suite continues
            if self._is_terminal:
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update(frames - self._bar.n)
            else:
                self._tell(f"{frames:,} frames; {text}")

    def close(self) -> None:
        """Ends the bar."""
        with contextlib.suppress(OSError):
            self._bar.close()
