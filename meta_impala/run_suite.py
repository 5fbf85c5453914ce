"""Runs a suite, games × seeds × variants, and ends in the comparison with published scores.

    meta-impala suite --out=runs/gamma_grid gamma_grid

A suite is the path of a TOML file, or the name of one in `meta_impala/suites`. Finished runs are
skipped and others resumed: stop it, kill it, and give the same command again. `--dry_run` prints
what it would cost. Most of the suites that ship are for a large machine; `--games`, `--seeds`,
`--preset` and `--set` cut them to size, and `--shard` divides them among machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import shlex
from collections.abc import Iterator

from absl import flags, logging

from meta_impala import command
from meta_impala import config as config_lib
from meta_impala.analysis import comparison_report, results
from meta_impala.config import ActorSettings, Config, presets
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import MAX_COUNT, define_float, define_integer
from meta_impala.config.text import counted
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.errors import UserError
from meta_impala.evaluation.record import MAX_GAMES
from meta_impala.experiments import forked_process, stages, suite_cost, suite_runner
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments.shard import Shard
from meta_impala.experiments.stages import Stage
from meta_impala.experiments.suite import Run, Suite
from meta_impala.experiments.suite_runner import StartProcess
from meta_impala.published import tables as published
from meta_impala.storage.trust import define_trust_flag, trusting
from meta_impala.system.interrupt import EXIT_CODE_INTERRUPTED
from meta_impala.system.signals import StopRequest
from meta_impala.system.streams import stdout_to_stderr
from meta_impala.system.user_path import define_path, real_path

# A dry run lists the runs that are not started only if the suite has no more runs than this.
_LISTED = 50

FLAGS = flags.FLAGS

POSITIONAL = "SUITE"


def define_flags() -> None:
    """The flags of this command."""
    define_trust_flag()
    define_path("out", None, "Folder of the suite: runs, logs and report.")
    define_integer("parallel", 1, "Runs at a time.", high=1000)
    flags.DEFINE_string(
        "ray_address",
        None,
        "Runs are placed on this Ray cluster, whose machines see --out at the same path: HOST:PORT "
        "of its head, auto, or local. Without: on this machine.",
    )
    define_float("cpus_per_run", 2.0, "CPUs that Ray reserves for a run.", high=MAX_COUNT)
    flags.DEFINE_bool(
        "preload",
        True,
        "Load TensorFlow once and fork a process for every run, instead of a fresh start "
        "each: saves about 4 CPU-seconds a run; the results are the same. On Linux without a GPU "
        "and without --ray_address; elsewhere it has no effect.",
    )
    flags.DEFINE_string(
        "shard",
        "1/1",
        "K/N: only every N-th run, from the K-th, for N machines or jobs that share --out. The "
        "report is made by the one that finishes last.",
    )
    flags.DEFINE_bool(
        "print_commands",
        False,
        "Print the commands of the runs that are not finished, one run a line; start nothing.",
    )
    flags.DEFINE_bool(
        "dry_run", False, "Print what is left to do and what it costs; start nothing."
    )
    flags.DEFINE_bool(
        "report_only", False, "Write the report of the runs that are finished; start nothing."
    )
    define_list(
        "games",
        None,
        "In place of the games of the file; atari57, atari5 and the like stand for several.",
    )
    flags.DEFINE_list("seeds", None, "In place of the seeds of the file.")
    flags.DEFINE_string(
        "preset",
        None,
        f"In place of the preset of the file: {', '.join(presets.names())}, or a flag file beside "
        "that file.",
    )
    flags.DEFINE_multi_string("set", [], "name=value: a setting of every run.")
    define_integer("episodes", None, "In place of the file's evaluation episodes.", high=MAX_GAMES)
    define_float(
        "frames_per_second",
        None,
        "Frames/s of one run, for --dry_run. Default: as measured by the started runs, or the cost "
        "of network and environment on a reference machine.",
        low=1e-3,
        high=10**9,
    )


def _changed(suite: Suite, path: pathlib.Path) -> Suite:
    """The suite of a file, with the changes of the command line."""
    if FLAGS.games:
        suite = dataclasses.replace(suite, games=suite_file.games_of(FLAGS.games))
    if FLAGS.seeds is not None:
        seeds = tuple(command.whole_numbers("seeds", FLAGS.seeds))
        suite = dataclasses.replace(suite, seeds=seeds)
    if FLAGS.preset is not None:
        beside = path.parent / FLAGS.preset
        preset = beside if os.path.isfile(beside) else presets.find(FLAGS.preset)
        suite = dataclasses.replace(suite, preset=str(preset))
    settings, typed = dict(suite.settings), set()
    for text in FLAGS.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set={text}: must be name=value")
        for variant in suite.variants:
            if name in variant.settings:
                raise UserError(
                    f"--set={text}: variant {variant.name} is defined by its own {name}; change "
                    "it in the suite file"
                )
        settings[name] = value
        typed.add(name)
    evaluation = dict(suite.evaluation)
    if FLAGS.episodes is not None:
        evaluation["episodes"] = FLAGS.episodes
    evaluation["num_envs"] = min(evaluation["num_envs"], evaluation["episodes"])
    return dataclasses.replace(
        suite, settings=settings, evaluation=evaluation, typed=frozenset(typed)
    )


def _duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{math.ceil(60 * hours)} min"


def _amount(value: float) -> str:
    """One decimal; more for a value that would be 0.0 with it."""
    return f"{value:,.1f}" if value >= 0.95 else f"{value:.1g}"


def _print_commands(suite: Suite, runs: list[Run]) -> None:
    """One line for each run that is not finished: its training, then its evaluation."""
    for run in runs:
        stage = stages.stage_of(run, suite.evaluation)
        left = {Stage.DONE: [], Stage.TRAINED: [Stage.TRAINED]}.get(stage, [stage, Stage.TRAINED])
        commands = [suite_runner.command_of(run, one, suite.evaluation) for one in left]
        if commands:
            command.say(" && ".join(map(shlex.join, commands)))


def _check_baseline(suite: Suite, runs: list[Run], path: pathlib.Path) -> None:
    """Refuses an unknown baseline before the training, not after it."""
    names = [variant.name for variant in suite.variants]
    starts = {results.starts_of(run.config.protocol, "noop") for run in runs}
    columns = {
        name: column for name, column in published.read_columns().items() if column.starts in starts
    }
    if suite.baseline not in names and suite.baseline not in columns:
        near = config_lib.nearest(suite.baseline, [*names, *columns])
        raise UserError(
            f"{path}: baseline = {suite.baseline}: must be a variant's name or a published "
            f"column with {' or '.join(sorted(starts))}{near}"
        )


def _check_protocols(runs: list[Run], path: pathlib.Path) -> None:
    """Refuses before the training what the report would refuse after it."""
    evaluated = dict.fromkeys(
        (run.variant.name, run.config.environment, run.config.protocol) for run in runs
    )
    try:
        results.refuse_different_protocols(
            (f"variant {name}", results.id_and_game(environment)[1],
             results.starts_of(protocol, "noop"), protocol)
            for name, environment, protocol in evaluated
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _print_cost(suite: Suite, runs: list[Run]) -> None:
    cost = suite_cost.cost(
        runs,
        suite.evaluation,
        FLAGS.parallel,
        FLAGS.frames_per_second,
        is_preloaded=FLAGS.preload and forked_process.can_fork(),
    )
    command.say(f"{suite.title}: {suite.question}")
    for run in runs:
        stage = stages.stage_of(run, suite.evaluation)
        if stage is not Stage.NEW or len(runs) <= _LISTED:
            frames = stages.frames_of(run)
            command.say(
                f"  {run.name}: {stage.value}, {frames:,} of {run.config.total_frames:,} frames"
            )
    counts = ", ".join(f"{count} {stage}" for stage, count in cost.runs.items() if count)
    of_shard = "" if FLAGS.shard == "1/1" else f", shard {FLAGS.shard}"
    if cost.frames_per_second is None:
        source = "by the cost of each network and environment on a reference machine"
    else:
        measured = "measured" if cost.is_measured else "assumed"
        source = f"at {cost.frames_per_second:,.0f} frames/s of one run, {measured}"
    command.say(
        f"{counted(len(runs), 'run')} ({counted(len(suite.games), 'game')} × "
        f"{counted(len(suite.seeds), 'seed')} × {counted(len(suite.variants), 'variant')}"
        f"{of_shard}): {counts}\n"
        f"{cost.frames_left:,} of {cost.frames:,} frames to train and "
        f"{counted(cost.games_left, 'game')} to evaluate: about "
        f"{_amount(cost.core_hours)} core-hours, {_duration(cost.hours)} on this machine with "
        f"{FLAGS.parallel} at a time ({source}); "
        f"{_amount(cost.disk_gb)} GB of disk"
    )


def _report(suite: Suite, runs: list[Run], out: pathlib.Path) -> None:
    """Writes the report of the started runs, or prints that there is nothing to report."""
    begun = [run for run in runs if run.folder.has_run()]
    found = results.read([run.folder for run in begun], labels=[run.variant.label for run in begun])
    baseline: str | None = suite.baseline_label
    if baseline not in found.variants and baseline not in published.read_columns():
        found.missing.append(f"the baseline, {baseline}, has no result: a published one serves")
        baseline = None
    found.missing.extend(filter(None, map(stages.settings_changed, begun)))
    absent = len(runs) - len(begun)
    if absent:
        found.missing.append(f"{absent} of {len(runs)} runs of the suite are not started")
    if not found.found:
        command.say("nothing to report yet: no run was evaluated")
        return
    title = f"{suite.title}\n\n{suite.question}".strip()
    command.say(comparison_report.make(found, out / suite_runner.REPORT, baseline, title))
    command.say(f"report written to {out / suite_runner.REPORT}")


@contextlib.contextmanager
def _on_a_cluster() -> Iterator[StartProcess]:
    """Yields the function that starts commands on the Ray cluster of --ray_address."""
    config = config_lib.resolve(
        Config(actors="ray", ray_address=FLAGS.ray_address, num_actors=os.cpu_count() or 1)
    )
    ray_cluster.check(config.part(ActorSettings))
    with ray_cluster.connected(config.part(ActorSettings)):
        ray_cluster.refuse_more_cpus("cpus_per_run", FLAGS.cpus_per_run)
        from meta_impala.experiments.ray_process import RayProcess

        yield lambda arguments, log: RayProcess(arguments, log, FLAGS.cpus_per_run)


def _open(suite: Suite, runs: list[Run]) -> list[Run]:
    return [run for run in runs if stages.stage_of(run, suite.evaluation) is not Stage.DONE]


def _run(suite: Suite, every: list[Run], shard: Shard, out: pathlib.Path) -> int:
    """Runs a shard of the suite; the report is of the whole."""
    stop, runs = StopRequest(), shard.of(every)
    open_runs = _open(suite, runs)
    suite_runner.check_packages(open_runs)
    stop.install()
    with contextlib.ExitStack() as stack:
        # Before anything is made in the folder: the cluster may not be there.
        on_a_cluster = FLAGS.ray_address is not None
        start = stack.enter_context(_on_a_cluster()) if on_a_cluster else None
        stack.enter_context(suite_runner.locked(out, shard))
        start = start or stack.enter_context(
            forked_process.starting_here(
                [run.config.environment for run in open_runs], out, preload=FLAGS.preload
            )
        )
        runner = suite_runner.SuiteRunner(
            runs, suite.evaluation, out, FLAGS.parallel, stop, start=start
        )
        is_done = runner.run()
        if stop.is_set():
            command.say(f"stopped by {stop.signal_name}; the same command continues the suite")
            return EXIT_CODE_INTERRUPTED
        left = _open(suite, [run for run in every if run not in runs])
        try:
            if left:
                command.say(f"shard {shard} is finished; {len(left)} runs of other shards are not")
            else:
                _report(suite, every, out)
        finally:  # also if there can be no report
            if not is_done:
                _say_failed(runner.failed, len(runs))
    return 0 if is_done else command.EXIT_CODE_FAILED


def _say_failed(failed: dict[str, str], count: int) -> None:
    command.say(
        f"{len(failed)} of {count} runs failed; the same command tries again:\n"
        + "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
    )


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)
    if len(arguments) != 1:
        raise UserError("give one suite, by its path or name, for example catch")
    if not FLAGS.out:
        raise UserError("--out: must be given, the folder of the suite")
    path, out = suite_file.find(arguments[0]).absolute(), real_path(FLAGS.out, "out")
    suite = _changed(suite_file.read(path), path)
    # Settings of the command line are the user's own words, those of the file are not.
    typed = [*(FLAGS.games or []), *(text.partition("=")[2] for text in FLAGS.set)]
    trust = trusting(typed, everything=FLAGS.trust_modules)
    # It imports the modules of environments, which may print anything.
    with stdout_to_stderr() if FLAGS.print_commands else contextlib.nullcontext():
        runs = suite_file.expand(suite, path, out, trust, is_only_read=FLAGS.report_only)
    _check_baseline(suite, runs, path)
    if not FLAGS.report_only:
        _check_protocols(runs, path)
    shard = Shard.parse(FLAGS.shard)
    if FLAGS.dry_run:
        if not shard.of(runs):
            raise UserError(f"--shard={shard}: must have a run; the suite has {len(runs)}")
        _print_cost(suite, shard.of(runs))
        return 0
    if FLAGS.print_commands:
        _print_commands(suite, shard.of(runs))
        return 0
    suite_runner.check_places(out, runs)
    if FLAGS.report_only:
        _report(suite, runs, out)
        return 0
    for run in runs:
        if otherwise := stages.settings_changed(run):
            raise UserError(f"{path}: {otherwise}; use another --out")
    return _run(suite, runs, shard, out)


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
