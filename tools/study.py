"""The study of adaptive γ and λ: runs, data and page. Its design is testdata/study/README.md.

python tools/study.py run --out=runs/study --part=mechanism --parallel=2     # continues; kill it at any time
python tools/study.py status --out=runs/study                                # what is finished and what is left
python tools/study.py collect --out=runs/study                               # run folders -> testdata/study
python tools/study.py report                                                 # testdata/study -> study.html, study.md
python tools/study.py random                                                 # scores of random actions
"""

from __future__ import annotations

import os
import pathlib
import shlex
import sys

from absl import app, flags, logging

from meta_impala.analysis.study import records
from meta_impala.analysis.study.design import PARTS
from meta_impala.errors import UserError
from meta_impala.experiments import study, study_runner, suite_runner
from meta_impala.experiments.stages import Stage
from meta_impala.system.signals import StopRequest

DATA = pathlib.Path(__file__).parents[1] / "testdata" / "study"
_OUT = flags.DEFINE_string("out", None, "Folder of the study's runs.")
_PART = flags.DEFINE_list("part", list(PARTS), f"Parts: {', '.join(PARTS)}.")
_PARALLEL = flags.DEFINE_integer("parallel", 1, "Runs at a time.", lower_bound=1)
_ONLY = flags.DEFINE_string("only", "", "Of run: only runs whose name contains this text.")
_DATA = flags.DEFINE_string("data", str(DATA), "Folder of the compact data.")
_REPORT = flags.DEFINE_string("report", None, "Folder of the page. Default: the data's folder.")
_PRINT_COMMANDS = flags.DEFINE_bool(
    "print_commands", False, "Of run: print the commands of what is left; start nothing."
)


def _data() -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(_DATA.value))


def _cells() -> list[study.Cells]:
    if not _OUT.value:
        raise UserError("--out: must be given, the folder of the study's runs")
    unknown = [name for name in _PART.value if name not in PARTS]
    if unknown:
        raise UserError(f"--part={','.join(unknown)}: must be of {', '.join(PARTS)}")
    out = pathlib.Path(os.path.expanduser(_OUT.value)).resolve()
    random = records.read_random(_data())
    return [study.Cells(PARTS[name], out / name, random) for name in _PART.value]


def _run() -> int:
    stop = StopRequest()
    stop.install()
    failed: dict[str, str] = {}
    for cells in _cells():
        if _PRINT_COMMANDS.value:
            for run in study_runner.open_runs(cells.ready()):
                print(shlex.join(suite_runner.command_of(run, Stage.NEW, {})))
            continue
        study_runner.pin_commit(cells.out)
        failed |= study_runner.run_part(cells, _PARALLEL.value, stop, _ONLY.value)
        if stop.is_set():
            print(f"stopped by {stop.signal_name}; the same command continues")
            return 130
    for name, reason in failed.items():
        print(f"failed: {name}: {reason}")
    return 1 if failed else 0


def _status() -> int:
    for cells in _cells():
        runs = cells.ready()
        left = study_runner.open_runs(runs)
        print(f"{cells.part.name}: {len(runs) - len(left)} of {len(runs)} known runs are finished")
    return 0


def _collect() -> int:
    # Parts that have no runs here keep what the data hold of them.
    kept = []
    found = [record for cells in _cells() for record in cells.read()]
    if (_data() / records.RUNS).exists():
        parts = {record.part for record in found}
        kept = [record for record in records.read(_data()) if record.part not in parts]
    records.write(
        [*kept, *found],
        _data(),
        "made by: python tools/study.py collect --out=RUNS (tools/study.py run)",
    )
    print(f"{len(found)} runs written to {_data()}")
    return 0


def _report() -> int:
    from meta_impala.analysis.study import page

    out = pathlib.Path(os.path.expanduser(_REPORT.value)) if _REPORT.value else _data()
    for path in page.make(_data(), out):
        print(path)
    return 0


def _random() -> int:
    from meta_impala.experiments import study_random

    study_random.write(_data() / records.RANDOM)
    return 0


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)
    commands = {
        "run": _run, "status": _status, "collect": _collect, "report": _report, "random": _random,
    }  # fmt: skip
    try:
        if len(arguments) != 2 or arguments[1] not in commands:
            raise UserError(f"give one of {', '.join(commands)}")
        return commands[arguments[1]]()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main)
