"""How much training it takes to reach a score: frames and CPU-minutes, by level, seed and variant.

    python tools/time_to_score.py run --folder=runs/score --out=score.csv
    python tools/time_to_score.py run --tasks=pong --seeds=1 --train_flags="--unroll_length=40" ...
    python tools/time_to_score.py table score.csv peers.csv

A score is the mean return of the last 100 training games. `run` trains each task's preset, plain
and with the meta-gradient, one run after the other, until the last level is reached or a limit is;
started again with the same folder it reads what is there and continues. It writes every level of
every run as CSV, the same as JSON beside it, and prints medians over seeds. Nothing else should run
meanwhile. `peer_time_to_score.py` writes rows of other programs.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import pathlib

from absl import flags

from meta_impala import command
from meta_impala.benchmarks import time_to_score, timed_training
from meta_impala.benchmarks.time_to_score import TASKS, VARIANTS, Result
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import MAX_COUNT, define_float, define_frames
from meta_impala.errors import UserError, one_line
from meta_impala.storage.files import write_atomically
from meta_impala.storage.results_folder import check_file, check_outdir
from meta_impala.system.interrupt import raise_on_interrupt
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS
POSITIONAL = "run | table FILE ..."


def define_flags() -> None:
    """The flags of this tool."""
    define_path("folder", None, "Folder of the runs; those that are there are continued.")
    define_path("out", None, "CSV file to write (.csv); the same as JSON beside it.")
    define_list("tasks", list(TASKS), f"Which: {', '.join(TASKS)}.", TASKS)
    define_list("variants", list(VARIANTS), f"Which: {', '.join(VARIANTS)}.", VARIANTS)
    flags.DEFINE_list("seeds", ["1", "2", "3"], "One run each.")
    flags.DEFINE_string(
        "train_flags",
        "",
        "Flags of the trainer, beside the preset's; runs in --folder must have been started with "
        "the same, and with the settings that the task has now.",
    )
    define_float("cpu_minutes", 600.0, "Most CPU-minutes of a run.", low=0.01, high=MAX_COUNT)
    define_frames(
        "frames",
        None,
        "Frames at which a run is stopped; its schedules still end at those of the task. Default: "
        "by task.",
    )


def _run() -> int:
    if not FLAGS.folder or not FLAGS.out:
        raise UserError("--folder, --out: must be given, the runs' folder and the file to write")
    seeds = command.whole_numbers("seeds", FLAGS.seeds)
    train_flags = command.arguments_of("train_flags", FLAGS.train_flags)
    out = check_file(pathlib.Path(FLAGS.out), "out", ".csv")  # .json is beside it
    check_file(out.with_suffix(".json"), "out")
    check_outdir(FLAGS.folder, "folder")
    folder = pathlib.Path(FLAGS.folder)
    runs = list(itertools.product(FLAGS.tasks, seeds, FLAGS.variants))
    for task, seed, variant in runs:
        timed_training.refuse_other_settings(task, variant, seed, folder, train_flags)
    raise_on_interrupt()  # the run that is under way has to be ended
    limits = timed_training.Limits(FLAGS.cpu_minutes, FLAGS.frames)
    results: list[Result] = []
    for task, seed, variant in runs:
        found = timed_training.train(task, variant, seed, folder, train_flags, limits)
        results += found
        for result in found:
            command.say(_line(result))
        _write(results)
    command.say("")
    for line in time_to_score.lines(results):
        command.say(line)
    return 0


def _line(result: Result) -> str:
    name = f"{result.task} {result.variant}, seed {result.seed}, to {result.level:g}:"
    if math.isnan(result.frames_at_end):
        return f"{name} not reached; no row has a return"
    if math.isnan(result.frames):
        spent = _spent(result.frames_at_end, result.cpu_minutes_at_end)
        return f"{name} not reached in {spent}"
    return f"{name} {_spent(result.frames, result.cpu_minutes)}"


def _spent(frames: float, cpu_minutes: float) -> str:
    time = "CPU time unknown" if math.isnan(cpu_minutes) else f"{cpu_minutes:.1f} CPU-minutes"
    return f"{frames:,.0f} frames, {time}"


def _write(results: list[Result]) -> None:
    path = pathlib.Path(FLAGS.out)
    write_atomically(path, time_to_score.as_csv(results))
    document = {
        "results": [
            {name: None if value != value else value for name, value in row._asdict().items()}
            for row in results
        ],
        "train_flags": FLAGS.train_flags,
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0]},
    }
    write_atomically(path.with_suffix(".json"), json.dumps(document, indent=2) + "\n")


def _table(files: list[str]) -> int:
    results: list[Result] = []
    for name in files:
        try:
            results += time_to_score.read_csv(user_path(name))
        except (OSError, ValueError) as error:
            raise UserError(f"{name}: {one_line(error)}") from None
    for line in time_to_score.lines(sorted(results, key=lambda row: (row.task, row.level))):
        command.say(line)
    return 0


def main(arguments: list[str]) -> int:
    """Runs the tool; returns its exit code."""
    match arguments:
        case ["run"]:
            return _run()
        case ["table", *files] if files:
            return _table(files)
        case _:
            raise UserError(f"{' '.join(arguments) or 'no argument'}: must be {POSITIONAL}")


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
