"""Damages real runs and checks that nothing is lost.

    python tools/torture.py kills --count=100   # kill -9 at random moments, also while saving
    python tools/torture.py stops --count=50    # one signal at random moments; saved, exit code 0
    python tools/torture.py games               # 57 Atari games: train, resume, evaluate
    python tools/torture.py soak --minutes=60   # full speed: memory, threads, files, traces, lag

Prints what it found; the exit code is 0 if every guarantee held, 1 if one was broken.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
from absl import flags

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import MAX_COUNT, define_float, define_integer, define_seed
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.storage.folder_lock import is_locked
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.results_folder import make_outdir
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.tensorflow_import import import_tensorflow
from meta_impala.system.user_path import define_path

_TIMEOUT_SECONDS = 600.0

FLAGS = flags.FLAGS

POSITIONAL = "kills | stops | games | soak"


def define_flags() -> None:
    """The flags of this command."""
    define_integer("count", 100, "kills, stops: how many.")
    define_seed("Seed of the moments of kills and stops.")
    define_list("games", list(registry.ATARI_57), "games: which.")
    define_float("minutes", 60.0, "soak: how long.", low_open=True, high=MAX_COUNT)
    define_float("warm_up_minutes", 10.0, "soak: before memory has to be flat.", high=MAX_COUNT)
    define_path("folder", None, "Where the runs are made; default: a temporary one.")


class Broken(Exception):
    """A guarantee that did not hold."""


def check(condition: bool, message: str) -> None:
    """Raises Broken unless the condition holds."""
    if not condition:
        raise Broken(message)


def flags_of(config: Config) -> list[str]:
    """The flags of what differs from the defaults."""
    return [
        f"--{name}={getattr(config, field.name)}"
        for name, field in config_lib.FIELDS.items()
        if getattr(config, field.name) != field.default
    ]


def start(module: str, *arguments: str) -> subprocess.Popen:
    """Starts a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "meta_impala", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Waits for a command, which must end with exit code 0; returns what it printed."""
    try:
        out, errors = process.communicate(timeout=_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Broken(f"no end after {_TIMEOUT_SECONDS:g} s: {process.args!r}") from None
    check(process.returncode == 0, f"exit code {process.returncode}: {errors}")
    check("Traceback" not in errors and "leaked" not in errors, errors)
    return out


# Kills. Catch, with a checkpoint every 10 updates, so that many kills strike one that is written.

_CATCH = Config(
    environment="Catch",
    total_frames=20_000_000,
    batch_size=8,
    envs_per_actor=8,
    unroll_length=5,
    mlp_sizes="64",
    learning_rate=0.003,
    log_frames=400,
    checkpoint_frames=400,
)
_CATCH_UPDATE_FRAMES = 8 * 5


def newest_frames(folder: RunFolder) -> int:
    """Frames of the newest checkpoint; -1 if there is none."""
    names = [path.name for path in folder.checkpoints.glob("frames-*")]
    return max((int(n.split("-")[1]) for n in names if n.split("-")[1].isdecimal()), default=-1)


def wait(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    """Waits until a running command has made progress."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not ready():
        if process.poll() is not None:
            raise Broken(f"it ended by itself: {process.communicate()}")
        check(time.monotonic() < deadline, "it did not get going")
        time.sleep(0.001)


def kill(folder: RunFolder, moment: random.Random) -> str:
    """Starts the trainer and kills it while it starts, trains or saves; returns which of these."""
    kind = moment.choice(["starting", "training", "training", "saving", "saving", "saving"])
    before = newest_frames(folder)
    process = start("train", f"--logdir={folder.path}", *flags_of(_CATCH))
    try:
        if kind == "starting":
            time.sleep(moment.uniform(0.0, 8.0))
        else:
            wait(process, lambda: newest_frames(folder) > before)
            time.sleep(moment.uniform(0.0, 1.0))
        if kind == "saving":
            wait(process, lambda: any(folder.checkpoints.glob(".saving-*")))
            time.sleep(moment.uniform(0.0, 0.01))
    finally:
        process.kill()
        process.communicate()
    return kind


def check_folder(folder: RunFolder, before: int) -> int:
    """Checks the folder after a kill; returns the frames that the run will continue from."""
    from meta_impala.storage.manifest import list_checkpoints, verify

    check(not is_locked(folder.path), "the lock outlived its holder")
    if folder.config_path.exists():
        folder.load_config()
    if folder.status_path.exists():
        json.loads(folder.status_path.read_text("utf-8"))
    for path in list_checkpoints(folder.checkpoints):
        verify(path)
    newest = newest_frames(folder)
    check(newest >= before, f"from {before} frames back to {newest}")
    rows = read_metrics(folder.metrics_path)
    if folder.metrics_path.exists():
        lines = folder.metrics_path.read_bytes().split(b"\n")
        check(len(lines) - 2 == len(rows), "a truncated row in the middle of metrics.csv")
    frames = [int(row["frames"]) for row in rows]
    check(frames == list(range(400, 400 * len(rows) + 1, 400)), "rows are missing or doubled")
    for row in rows[-200:]:
        updates = int(row["updates"])
        check(int(row["frames"]) == updates * _CATCH_UPDATE_FRAMES, "frames and updates disagree")
        done = (updates - 1) * _CATCH_UPDATE_FRAMES
        rate = _CATCH.learning_rate * (1 - done / _CATCH.total_frames)
        check(abs(float(row["learning_rate"]) / rate - 1) < 1e-6, f"learning rate of {row}")
    for name in ("gamma", "lambda"):
        values = np.array([float(row[name]) for row in rows[-200:]])
        steps = np.abs(np.diff(np.log(values / (1 - values))))
        # Adam moves a logit by little more than its step size, in each of the 10 updates of a row.
        check(bool((steps < 5 * 10 * _CATCH.meta_learning_rate).all()), f"{name} jumps")
    lost = (frames[-1] if frames else 0) - max(newest, 0)
    check(lost <= _CATCH.checkpoint_frames, f"{lost} frames lost")
    return newest


def kills(work: pathlib.Path) -> str:
    """Kills one run repeatedly; it must always continue from its newest checkpoint."""
    import_tensorflow()
    folder, moment = RunFolder(work / "kills"), random.Random(FLAGS.seed)
    kinds: collections.Counter[str] = collections.Counter()
    frames, in_saving = -1, 0
    for number in range(FLAGS.count):
        kinds[kill(folder, moment)] += 1
        in_saving += any(folder.checkpoints.glob(".saving-*"))
        frames = check_folder(folder, frames)
        command.say(f"kill {number + 1}: {frames:,} frames are saved")
    process = start("train", f"--logdir={folder.path}", *flags_of(_CATCH))
    wait(process, lambda: newest_frames(folder) > frames)
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    check(frames < 0 or f"from {frames:,} frames" in out, f"it did not continue from there: {out}")
    check(folder.read_status()["state"] == "stopped", str(folder.read_status()))
    damaged = list(folder.checkpoints.glob("*.damaged*"))
    check(not damaged, f"checkpoints were damaged: {damaged}")
    check_folder(folder, frames)
    return (
        f"{sum(kinds.values())} kills ({', '.join(f'{n} {kind}' for kind, n in kinds.items())}; "
        f"{in_saving} left a half-written checkpoint), {newest_frames(folder):,} frames"
    )


# Stops. Environments whose unrolls take 1 to 15 s, and quick ones.

_STOP_NAMES = ("INT", "TERM", "HUP", "USR1", "USR2")
_SECONDS_TO_STOP = 30.0


def listens(process: subprocess.Popen) -> bool:
    """Whether a command has taken over SIGUSR1; before, a signal has its own effect."""
    try:
        text = pathlib.Path(f"/proc/{process.pid}/status").read_text("ascii")
    except OSError:
        return False
    (caught,) = (line.split()[1] for line in text.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def has_traced(folder: RunFolder, started: float) -> bool:
    """Whether a start has got to its actors: the first file after the graphs were traced."""
    try:
        return folder.metrics_path.stat().st_mtime > started
    except OSError:
        return False


def stop(folder: RunFolder, moment: random.Random, settings: list[str]) -> tuple[str, float, bool]:
    """Starts the trainer and stops it once.

    Returns:
      What it printed, the seconds from the signal until it was saved, and whether it had begun to
      train.
    """
    os.environ["STEP_SECONDS"] = str(moment.choice([0.0, 0.02, 0.2, 3.0]))
    started = time.time()
    process = start("train", f"--logdir={folder.path}", *settings)
    try:
        wait(process, lambda: listens(process))
        if moment.random() < 0.7:  # soon after the actors' start
            wait(process, lambda: has_traced(folder, started))
        time.sleep(moment.uniform(0.0, 10.0))
        is_training = has_traced(folder, started)
        begun = time.monotonic()
        number = signal.Signals[f"SIG{moment.choice(_STOP_NAMES)}"]
        process.send_signal(number)
        if moment.random() < 0.3:  # as `timeout` does, to the child and then to its group
            process.send_signal(number)
        while process.poll() is None:
            said = folder.read_status()
            if (said.get("pid"), said.get("state")) == (process.pid, "stopped"):
                break
            time.sleep(0.01)
        seconds = time.monotonic() - begun
        return finish(process), seconds, is_training
    finally:
        process.kill()


def stops(work: pathlib.Path) -> str:
    """Stops three runs repeatedly: with slow environments, deterministic, with many emulators."""
    import_tensorflow()
    from meta_impala.storage.manifest import list_checkpoints, verify

    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup; the runs would inherit it
        signal.signal(signal.SIGHUP, lambda *_: None)
    root = pathlib.Path(__file__).parents[1]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests")])
    slow = dataclasses.replace(_CATCH, environment="support.ending_environments:Ending-v0")
    runs = {
        "deterministic": dataclasses.replace(slow, deterministic=True),
        "slow": slow,
        # The second actor's are still being made when training begins.
        "emulators": dataclasses.replace(
            _CATCH, environment="Pong", network="shallow", envs_per_actor=32
        ),
    }
    moment = random.Random(FLAGS.seed)
    longest, frames = {True: 0.0, False: 0.0}, dict.fromkeys(runs, 0)
    for number in range(FLAGS.count):
        name = tuple(runs)[number % len(runs)]
        folder = RunFolder(work / f"stops-{name}")
        out, seconds, is_training = stop(folder, moment, flags_of(runs[name]))
        check("stopped by" in out, out)
        said = folder.read_status()
        check(said["state"] == "stopped", str(said))
        check(said["frames"] >= frames[name], f"from {frames} back to {said}")
        # During start-up a stop is noticed between its steps (TensorFlow's import, tracing).
        in_time = seconds <= _SECONDS_TO_STOP or not is_training
        check(in_time, f"{seconds:.1f} s from the signal until it was saved")
        frames[name] = said["frames"]
        if said["frames"]:
            newest = list_checkpoints(folder.checkpoints)[0]
            verify(newest)
            check(newest.name == f"frames-{said['frames']}", f"{newest} is not the last state")
        longest[is_training] = max(longest[is_training], seconds)
        when = "in training" if is_training else "at the start"
        command.say(f"stop {number + 1} {when}: {said['frames']:,} frames, {seconds:.1f} s")
    return (
        f"{FLAGS.count} stops; from the signal until it was saved at most {longest[True]:.1f} s in "
        f"training and {longest[False]:.1f} s in the start"
    )


# Games.

_GAME = Config(
    network="shallow",
    num_actors=1,
    envs_per_actor=2,
    batch_size=2,
    meta_batch_size=1,
    unroll_length=10,
    log_frames=400,
    checkpoint_frames=800,
)
_GAME_UPDATE_FRAMES = 2 * 10 * 4


def play(work: pathlib.Path, game: str) -> str:
    """20 updates of one game, 5 more after a resume, one game of evaluation."""
    folder = RunFolder(work / game)
    settings = [f"--logdir={folder.path}", f"--environment={game}", *flags_of(_GAME)]
    finish(start("train", *settings, f"--total_frames={20 * _GAME_UPDATE_FRAMES}"))
    check(folder.read_status()["state"] == "finished", str(folder.read_status()))
    out = finish(start("train", *settings, f"--total_frames={25 * _GAME_UPDATE_FRAMES}"))
    check(f"from {20 * _GAME_UPDATE_FRAMES:,} frames" in out, out)
    rows = read_metrics(folder.metrics_path)
    check([int(row["updates"]) for row in rows] == [5, 10, 15, 20, 25], str(rows))
    check(not any(int(row["bad_updates"]) for row in rows), "an update was not finite")
    finish(start("evaluate", f"--logdir={folder.path}", "--episodes=1"))
    result = json.loads(folder.evaluation_path.read_text("utf-8"))
    check(result["frames_trained"] == 25 * _GAME_UPDATE_FRAMES, str(result))
    return f"a game of {result['mean_episode_frames']:,.0f} frames scored {result['mean']:g}"


def games(work: pathlib.Path) -> str:
    """Plays all games, even after one has failed."""
    failed = []
    for game in FLAGS.games:
        begun = time.monotonic()
        try:
            said = play(work, game)
            shutil.rmtree(work / game)
        except Broken as error:
            failed.append(game)
            said = f"BROKEN: {error}"
        command.say(f"{game}: {said} ({time.monotonic() - begun:.0f} s)")
    check(not failed, f"{len(failed)} of {len(FLAGS.games)} games: {', '.join(failed)}")
    return f"{len(FLAGS.games)} games: each trained, continued and was evaluated"


# Soak.

_SOAK = Config(network="shallow", batch_size=8, envs_per_actor=8, log_frames=20_000)
_MAX_SLOPE = 1.0  # MiB per 10 minutes
_SAMPLE_SECONDS = 10.0


class _Samples(threading.Thread):
    """Records minutes, MiB, threads and open files of this process periodically."""

    def __init__(self, minutes: float) -> None:
        super().__init__(daemon=True)
        self.rows = np.full([int(minutes * 60 / _SAMPLE_SECONDS) + 100, 4], np.nan)
        self.count = 0

    def run(self) -> None:
        process, begun = psutil.Process(), time.monotonic()
        while self.count < len(self.rows):
            self.rows[self.count] = (
                (time.monotonic() - begun) / 60,
                process.memory_info().rss / 2**20,
                process.num_threads(),
                process.num_fds(),
            )
            self.count += 1
            time.sleep(_SAMPLE_SECONDS)


def soak(work: pathlib.Path) -> str:
    """Trains Pong at full speed in this process and checks what grows."""
    if FLAGS.minutes <= FLAGS.warm_up_minutes + 1:
        raise UserError(
            f"--minutes={FLAGS.minutes:g}: must be more than a minute above --warm_up_minutes, "
            f"{FLAGS.warm_up_minutes:g}"
        )
    import_tensorflow()
    from meta_impala.system.signals import StopRequest
    from meta_impala.system.tensorflow_setup import configure_tensorflow
    from meta_impala.training.trainer import Trainer

    class StopLater(StopRequest):
        def is_set(self) -> bool:
            return time.monotonic() > deadline

    deadline = time.monotonic() + 60 * FLAGS.minutes
    config = config_lib.resolve(_SOAK)
    description = registry.describe(
        config.environment, config.protocol, config.environment_arguments
    )
    config = config_lib.resolve_network(config, description.observation_shape)
    configure_tensorflow(deterministic=config.deterministic)
    folder = RunFolder(work / "soak")
    folder.prepare()
    folder.save_config(config)
    trainer = Trainer(config, description, folder, StopLater())
    samples = _Samples(FLAGS.minutes)
    samples.start()
    check(trainer.run() == "stopped", "it did not run to the end")

    rows = samples.rows[: samples.count]
    table = pathlib.Path(work, "soak.csv")
    np.savetxt(table, rows, "%.3f", ",", header="minutes,rss_mib,threads,open_files", comments="")
    rows = rows[(rows[:, 0] > FLAGS.warm_up_minutes) & (rows[:, 0] < FLAGS.minutes - 0.5)]
    slope = 10 * float(np.polyfit(rows[:, 0], rows[:, 1], 1)[0])
    metrics = read_metrics(folder.metrics_path)
    lags = [float(row["policy_lag"]) for row in metrics]
    traces = trainer.learner.function.experimental_get_tracing_count()
    found = (
        f"{FLAGS.minutes:g} minutes, {trainer.frames:,} frames; after {FLAGS.warm_up_minutes:g} "
        f"minutes: memory {rows[0, 1]:.1f} to {rows[-1, 1]:.1f} MiB, slope {slope:+.2f} MiB per 10 "
        f"minutes, threads {rows[:, 2].min():.0f} to {rows[:, 2].max():.0f}, open files "
        f"{rows[:, 3].min():.0f} to {rows[:, 3].max():.0f}; policy lag at most {max(lags):.2f}; "
        f"traces {traces}; restarts {metrics[-1]['actor_restarts']}, bad updates "
        f"{metrics[-1]['bad_updates']}"
    )
    command.say(found)
    check(slope < _MAX_SLOPE, f"memory grows by {slope:.2f} MiB in 10 minutes")
    check(traces == 1, f"{traces} traces")
    for column, name in ((2, "threads"), (3, "open files")):
        half = len(rows) // 2
        check(rows[half:, column].max() <= rows[:half, column].max(), f"{name} grow")
    # A block waits in the queue, behind the batch that is used and its meta batch.
    bound = 3 + (config.queue_capacity + config.num_actors) * config.block_size / config.batch_size
    check(max(lags) <= bound, f"a policy lag of {max(lags):.2f} is above {bound:g}")
    return found


_TORTURES = {"kills": kills, "stops": stops, "games": games, "soak": soak}


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if len(arguments) != 1 or arguments[0] not in _TORTURES:
        raise UserError(f"give one of {', '.join(_TORTURES)}")
    raise_on_interrupt()  # the processes it started have to be ended
    work = (
        make_outdir(FLAGS.folder, "folder")
        if FLAGS.folder
        else pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
    )
    begun = time.monotonic()
    command.say(f"{time.strftime('%Y-%m-%d %H:%M')} {platform.platform()}: {' '.join(sys.argv)}")
    try:
        found = _TORTURES[arguments[0]](work)
    except Broken as error:
        command.say(f"BROKEN: {error}\nthe runs are in {work}")
        return command.EXIT_CODE_FAILED
    command.say(f"HELD: {found}; {(time.monotonic() - begun) / 60:.1f} minutes")
    if FLAGS.folder is None:
        shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
