"""The study of adaptive γ and λ: runs, data and page. Its design is testdata/study/README.md.

Runs of a part; they can be stopped, killed and continued at any time:

    python tools/study.py run --out=runs/study --part=mechanism --parallel=2
    python tools/study.py status --out=runs/study

Run folders to compact data, data to the page, and the scores of random actions:

    python tools/study.py collect --out=runs/study
    python tools/study.py report
    python tools/study.py random

Whether the task Switching is fit for the study (60 runs, then a table):

    python tools/study.py run --out=runs/study --part=acceptance --parallel=2
    python tools/study.py acceptance --out=runs/study
"""

from __future__ import annotations

import pathlib
import shlex

from absl import flags, logging

from meta_impala import command
from meta_impala.config.list_flags import define_list
from meta_impala.config.number_flags import define_integer
from meta_impala.errors import UserError, printable, warn
from meta_impala.experiments import study_runner, study_runs, suite_cost, suite_runner
from meta_impala.experiments.stages import Stage
from meta_impala.experiments.suite import Run
from meta_impala.storage.results_folder import check_outdir
from meta_impala.study import acceptance, records
from meta_impala.study.design import ACCEPTANCE, PARTS, Part, require_random
from meta_impala.study.records import Record
from meta_impala.system.interrupt import EXIT_CODE_INTERRUPTED
from meta_impala.system.signals import StopRequest
from meta_impala.system.user_path import define_path, real_path

DATA = pathlib.Path(__file__).parents[1] / "testdata" / "study"

FLAGS = flags.FLAGS

RUNNABLE = {**PARTS, ACCEPTANCE.name: ACCEPTANCE}

POSITIONAL = "run | status | collect | report | random | acceptance"


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "Folder of the study's runs.")
    define_list("part", list(PARTS), f"Parts: {', '.join(RUNNABLE)}.", RUNNABLE)
    define_integer("parallel", 1, "Runs at a time.", high=1000)
    flags.DEFINE_string(
        "only",
        "",
        "Of run: only runs whose name contains this text (seed_2 is not seed_20), whether the data "
        "have them or not; what they depend on is taken from the data, or made first.",
    )
    define_path("data", str(DATA), "Folder of the compact data.")
    define_path("report", None, "Folder of the page. Default: the data's folder.")
    flags.DEFINE_bool(
        "print_commands",
        False,
        "Of run: print the commands of the runs that are left, and start nothing.",
    )


def _data() -> pathlib.Path:
    return pathlib.Path(FLAGS.data)


def _cells() -> list[study_runs.Cells]:
    if not FLAGS.out:
        raise UserError("--out: must be given, the folder of the study's runs")
    return [_cells_of(RUNNABLE[name]) for name in dict.fromkeys(FLAGS.part)]


def _named_cells() -> list[study_runs.Cells]:
    """Those with a run that --only names, if it is given."""
    found = [cells for cells in _cells() if not FLAGS.only or cells.ready(writes=False)]
    if not found:
        raise UserError(
            f"--only={FLAGS.only}: is in the name of no run that can be made now "
            f"(--part={','.join(FLAGS.part)})"
        )
    return found


def _cells_of(part: Part) -> study_runs.Cells:
    out = real_path(FLAGS.out, "out") / part.name
    commit = study_runner.commit_of(out)
    # A whole part is of one commit; what one run depends on may be of another.
    kept = [r for r in _shipped() if r.part == part.name and (FLAGS.only or r.commit == commit)]
    cells = study_runs.Cells(part, out, records.read_random(_data()), kept, FLAGS.only)
    for path in cells.strangers():
        warn(f"left out: {printable(path)}: is no run of this part")
    return cells


def _shipped() -> list[Record]:
    return records.read(_data()) if (_data() / records.RUNS).exists() else []


def _left(cells: study_runs.Cells, *, writes: bool = False) -> list[Run]:
    """The runs that can be made now and are not finished."""
    return study_runner.open_runs(cells.ready(writes=writes, given_up=()))


def _run() -> int:
    stop = StopRequest()
    stop.install()
    failed: dict[str, str] = {}
    parts = _named_cells()
    if FLAGS.print_commands:
        for run in (run for cells in parts for run in _left(cells, writes=True)):
            command.say(shlex.join(suite_runner.command_of(run, Stage.NEW, {})))
        return 0
    suite_runner.check_packages(run for cells in parts for run in _left(cells))
    try:
        for cells in parts:
            study_runner.pin_commit(cells.out)
            failed |= study_runner.run_part(cells, FLAGS.parallel, stop)
            if stop.is_set():
                command.say(f"stopped by {stop.signal_name}; the same command continues")
                return EXIT_CODE_INTERRUPTED
    finally:  # also if a further part is refused
        for name, reason in failed.items():
            command.say(f"failed: {name}: {reason}")
    return command.EXIT_CODE_FAILED if failed else 0


def _status() -> int:
    for cells in _cells():
        left = _left(cells)
        done = sum(record.is_finished for record in cells.read())
        line = (
            f"{cells.part.name}: {done} of the {done + len(left)} runs that are known so far are "
            "finished"
        )
        if left:
            cost = suite_cost.cost(left, {"episodes": 0}, FLAGS.parallel)
            line += f"; the others: about {cost.core_hours:,.1f} core-hours"
            line += f", {max(1, round(1e3 * cost.disk_gb)):,} MB of disk"
        command.say(line)
    return 0


def _collect() -> int:
    check_outdir(FLAGS.data, "data")
    # A part without runs here keeps its rows; one with runs here keeps those of the same commit.
    found = [record for cells in _cells() for record in cells.read()]
    whole, left_out = records.with_parts_of(found, _shipped())
    records.write(
        whole,
        _data(),
        "made by: python tools/study.py collect --out=RUNS (tools/study.py run)",
    )
    command.say(f"{len(found)} runs written to {_data()}")
    if left_out:
        command.say(f"{left_out} runs of other commits left out")
    return 0


def _report() -> int:
    from meta_impala.study import study_page as page

    out = pathlib.Path(FLAGS.report) if FLAGS.report else _data()
    check_outdir(str(out), "report" if FLAGS.report else "data")
    for path in page.make(_data(), out):
        command.say(str(path))
    return 0


def _random() -> int:
    from meta_impala.experiments import study_random

    check_outdir(FLAGS.data, "data")
    study_random.write(_data() / records.RANDOM)
    return 0


def _acceptance() -> int:
    if not FLAGS.out:
        raise UserError("--out: must be given, the folder of the study's runs")
    random = records.read_random(_data())
    require_random(ACCEPTANCE, random)
    command.say(acceptance.table(_cells_of(ACCEPTANCE).read(), random[ACCEPTANCE.tasks[0]]))
    return 0


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)
    commands = {
        "run": _run, "status": _status, "collect": _collect, "report": _report, "random": _random,
        "acceptance": _acceptance,
    }  # fmt: skip
    if len(arguments) != 1 or arguments[0] not in commands:
        raise UserError(f"give one of {', '.join(commands)}")
    return commands[arguments[0]]()


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
