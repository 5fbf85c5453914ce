"""Frames and CPU-minutes that other programs take to the scores of `time_to_score.py`.

    python tools/peer_time_to_score.py install --folder=peers
    python tools/peer_time_to_score.py run --folder=peers --out=peers.csv

`install` makes a virtual environment for each program below `--folder`, with packages from the
Python package index (PyTorch is large). `run` trains Pong and Breakout with each program's
documented Atari settings, one run after the other, for at most `--cpu_minutes` each, and writes the
rows of `time_to_score.py`. CPU time is that of all processes of a run.

* stable-baselines3, A2C and PPO: rl-baselines3-zoo, hyperparams/a2c.yml and ppo.yml, "atari".
* sample-factory, APPO: `sf_examples.atari.train_atari --algo=APPO`, the command of its
  documentation, whose defaults are sf_examples/atari/atari_params.py (synchronous PPO, 8 workers).
  `vtrace` is the same program used as an actor-critic with V-trace: asynchronous, unrolls of 20,
  batches of 640 steps, one epoch, and no return normalisation, which it does not combine.
"""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil
from absl import flags

from meta_impala import command
from meta_impala.benchmarks import time_to_score
from meta_impala.benchmarks.time_to_score import GAMES_AVERAGED, TASKS, Point, Result
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import MAX_COUNT, define_float
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.files import read_tail, write_atomically
from meta_impala.storage.results_folder import check_file, check_outdir
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.processes import end_with_parent
from meta_impala.system.user_path import define_path

FLAGS = flags.FLAGS
POSITIONAL = "install | run"
_POLL_SECONDS = 1.0
_SECONDS_TO_STOP = 20.0
# A mean return as both print it; anything else, such as nan, is no point.
_MEAN = r"(-?\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_TOOLS = pathlib.Path(__file__).parent.resolve()

# Virtual environment -> packages. sample-factory needs an older Gymnasium and pkg_resources.
_PACKAGES = {
    "sb3": ("stable-baselines3==2.7.0", "ale-py==0.11.2", "opencv-python-headless"),
    "sample_factory": (
        "sample-factory==2.1.1",
        "gymnasium<1.0",
        "ale-py==0.10.1",
        "opencv-python-headless",
        "setuptools<81",
    ),
}
_TRAIN_ATARI = "import sys; from sf_examples.atari.train_atari import main; sys.exit(main())"
# Workers are new interpreters, which know the games only if every interpreter imports ale_py.
_IMPORT_ALE = (
    "import pathlib, sysconfig; folder = pathlib.Path(sysconfig.get_path('purelib')); "
    "(folder / 'ale_py_environments.pth').write_text('import ale_py')"
)
_VTRACE = (
    "--with_vtrace=True",
    "--normalize_returns=False",
    "--async_rl=True",
    "--rollout=20",
    "--batch_size=640",
    "--num_epochs=1",
    "--num_batches_per_epoch=1",
)


class _Progress(NamedTuple):
    frames: int
    episodes: int
    episode_return: float


class _Peer(NamedTuple):
    environment: str
    arguments: Callable[[str, int, pathlib.Path], list[str]]
    progress: Callable[[str], _Progress | None]


def _sb3(algorithm: str) -> _Peer:
    def arguments(game: str, seed: int, _: pathlib.Path) -> list[str]:
        return [str(_TOOLS / "peer_sb3_run.py"), algorithm, game, str(seed)]

    return _Peer("sb3", arguments, _sb3_progress)


def _sb3_progress(log: str) -> _Progress | None:
    # Whole lines: the last one may be half written.
    lines = re.findall(rf"^POINT (\d+) (\d+) {_MEAN}\n", log, re.MULTILINE)
    if not lines:
        return None
    frames, games, mean = lines[-1]
    return _Progress(int(frames), int(games), float(mean))


def _sample_factory(*settings: str) -> _Peer:
    def arguments(game: str, seed: int, folder: pathlib.Path) -> list[str]:
        return [
            "-c",
            _TRAIN_ATARI,
            "--algo=APPO",
            f"--env=atari_{game.lower()}",
            "--device=cpu",
            f"--seed={seed}",
            f"--train_dir={folder}",
            "--experiment=run",
            "--restart_behavior=overwrite",
            *settings,
        ]

    return _Peer("sample_factory", arguments, _sample_factory_progress)


def _sample_factory_progress(log: str) -> _Progress | None:
    """From its log; it does not say how many games the mean is of, so that every mean counts."""
    frames = re.findall(r"Total num frames: (\d+)\.", log)
    means = re.findall(rf"Avg episode reward: \[\(0, '{_MEAN}'\)\]", log)
    if not frames or not means:
        return None
    return _Progress(int(frames[-1]), GAMES_AVERAGED, float(means[-1]))


# (program, variant) -> how it is run.
_PEERS: dict[tuple[str, str], _Peer] = {
    ("stable-baselines3", "a2c"): _sb3("a2c"),
    ("stable-baselines3", "ppo"): _sb3("ppo"),
    ("sample-factory", "appo"): _sample_factory(),
    ("sample-factory", "vtrace"): _sample_factory(*_VTRACE),
}
_TASKS = ("pong", "breakout")


def define_flags() -> None:
    """The flags of this tool."""
    define_path("folder", "peers", "Folder of the virtual environments and of the runs.")
    define_path("out", None, "CSV file to write.")
    define_list("tasks", list(_TASKS), f"Which: {', '.join(_TASKS)}.", _TASKS)
    peers = [variant for _, variant in _PEERS]
    define_list("peers", peers, f"Which: {', '.join(peers)}.", peers)
    flags.DEFINE_list("seeds", ["1"], "One run each.")
    flags.DEFINE_string(
        "pip_arguments", "", "Of `install`: further ones, such as a PyTorch that is for CPUs alone."
    )
    define_float("cpu_minutes", 60.0, "Most CPU-minutes of a run.", low=0.01, high=MAX_COUNT)


def _python(environment: str) -> pathlib.Path:
    return pathlib.Path(FLAGS.folder).absolute() / environment / "bin" / "python"


def _install() -> int:
    more = command.arguments_of("pip_arguments", FLAGS.pip_arguments)
    check_outdir(FLAGS.folder, "folder")
    for environment, packages in _PACKAGES.items():
        python = str(_python(environment))
        folder = str(_python(environment).parents[1])
        _call([sys.executable, "-m", "venv", folder], f"{folder} could not be made")
        install = [python, "-m", "pip", "install", *more, *packages]
        command.say(" ".join(install))
        _call(install, f"{environment}: its packages could not be installed")
    python = str(_python("sample_factory"))
    _call([python, "-c", _IMPORT_ALE], "sample_factory: its games could not be registered")
    return 0


def _call(arguments: list[str], failure: str) -> None:
    """Runs a program. Raises RunFailed with this message if it fails."""
    if subprocess.run(arguments, check=False).returncode:
        raise RunFailed(failure)


class _CpuTime:
    """CPU seconds of a process and all its children, those that ended included."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[int, float] = {}

    def seconds(self) -> float:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            processes = []
        for process in processes:
            try:
                self._seconds[process.pid] = sum(process.cpu_times()[:2])
            except psutil.Error:
                continue
        return sum(self._seconds.values())


def _train(peer: _Peer, task: str, seed: int, folder: pathlib.Path) -> list[Point]:
    """Runs a peer until the last level is reached or its time is over."""
    game, levels = TASKS[task].environment, TASKS[task].levels
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    started = time.monotonic()
    points: list[Point] = []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_python(peer.environment)), *peer.arguments(game, seed, folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        cpu = _CpuTime(process.pid)
        try:
            while process.poll() is None:
                time.sleep(_POLL_SECONDS)
                spent = cpu.seconds()
                found = peer.progress(read_tail(log))
                if found is not None and (not points or found.frames > points[-1].frames):
                    seconds = time.monotonic() - started
                    points.append(Point(found.frames, spent, seconds, *found[1:]))
                is_done = time_to_score.reached(points, levels[-1]) is not None
                if is_done or spent >= 60 * FLAGS.cpu_minutes:
                    break
            else:
                if process.returncode:
                    raise RunFailed(f"exit code {process.returncode}; see {log}")
        finally:
            _end(process)
    return points


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the session that was started for this run, workers included."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            continue


def _run() -> int:
    if not FLAGS.out:
        raise UserError("--out: must be given, the file to write")
    seeds = command.whole_numbers("seeds", FLAGS.seeds)
    out = check_file(pathlib.Path(FLAGS.out), "out")
    check_outdir(FLAGS.folder, "folder")
    # The run that is under way has to be ended, with its workers.
    raise_on_interrupt()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with `nohup`
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    results: list[Result] = []
    for task in FLAGS.tasks:
        for (program, variant), peer in _PEERS.items():
            for seed in seeds if variant in FLAGS.peers else ():
                folder = pathlib.Path(FLAGS.folder).absolute() / f"{task}-{variant}-{seed}"
                points = _train(peer, task, seed, folder)
                results += time_to_score.results_of(task, program, variant, seed, points)
                write_atomically(out, time_to_score.as_csv(results))
                last = points[-1] if points else "no point"
                command.say(f"{task}, {program} {variant}, seed {seed}: ended at {last}")
    for line in time_to_score.lines(results):
        command.say(line)
    return 0


def main(arguments: list[str]) -> int:
    """Runs the tool; returns its exit code."""
    if arguments == ["install"]:
        return _install()
    if arguments == ["run"]:
        return _run()
    raise UserError(f"{' '.join(arguments) or 'no argument'}: must be {POSITIONAL}")


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
