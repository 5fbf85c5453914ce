"""Every command and tool, and the hostile terminals and paths that each is run with."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable

from support.command_helpers import ROOT

# Name -> how it is started, and arguments (path -> words) with which it reaches the path.
COMMANDS: dict[str, tuple[list[str], Callable[[str], list[str]]]] = {
    name: ([sys.executable, *start], arguments)
    for name, start, arguments in (
        ("train", ["-m", "meta_impala.train"], lambda path: [f"--logdir={path}", "--gamma=2"]),
        ("evaluate", ["-m", "meta_impala.evaluate"], lambda path: [f"--logdir={path}"]),
        ("evaluate agent", ["-m", "meta_impala", "evaluate"], lambda path: [f"--agent={path}"]),
        ("watch", ["-m", "meta_impala", "watch"], lambda path: [path]),
        ("watch agent", ["-m", "meta_impala.watch"], lambda path: [f"--agent={path}"]),
        ("explain", ["-m", "meta_impala.explain"], lambda path: [f"--logdir={path}"]),
        (
            "export",
            ["-m", "meta_impala", "export"],
            lambda path: [f"--logdir={path}", f"--out={path}/agent.npz"],
        ),
        (
            "population",
            ["-m", "meta_impala.population"],
            lambda path: [f"--logdir={path}", "--gamma=2"],
        ),
        (
            "illustrative",
            ["-m", "meta_impala.illustrative"],
            lambda path: [f"--outdir={path}", "--gamma=2"],
        ),
        ("plot", ["-m", "meta_impala", "plot"], lambda path: [path]),
        ("report", ["-m", "meta_impala", "report"], lambda path: [path]),
        ("doctor", ["-m", "meta_impala", "doctor"], lambda path: [path]),
        ("compare", ["-m", "meta_impala", "compare"], lambda path: [path]),
        ("suite", ["-m", "meta_impala", "suite"], lambda path: [f"--out={path}", path]),
        (
            "record",
            ["-m", "meta_impala", "record"],
            lambda path: [f"--out={path}/starts.json", f"--logdir={path}"],
        ),
        (
            "benchmark",
            ["-m", "meta_impala", "benchmark"],
            lambda path: [f"--flagfile={path}", "--gamma=2"],
        ),
        ("completion", ["-m", "meta_impala", "completion"], lambda path: [path]),
        ("tools/atari_suite", ["tools/atari_suite.py"], lambda path: [f"--out={path}", path]),
        ("tools/benchmark", ["tools/benchmark.py"], lambda path: [f"--json={path}", "--gamma=2"]),
        ("tools/compare_published", ["tools/compare_published.py"], lambda path: [path]),
        (
            "tools/make_readme_pictures",
            ["tools/make_readme_pictures.py"],
            lambda path: [f"--out={path}", "--preset=none"],
        ),
        ("tools/plot_runs", ["tools/plot_runs.py"], lambda path: [path]),
        ("tools/precision_study", ["tools/precision_study.py"], lambda path: [f"--logdir={path}"]),
        (
            "tools/record_starts",
            ["tools/record_starts.py"],
            lambda path: [f"--out={path}/starts.json", f"--logdir={path}"],
        ),
        (
            "tools/study",
            ["tools/study.py"],
            lambda path: [f"--out={path}", f"--data={path}", "report"],
        ),
        (
            "tools/scaling_plan",
            ["tools/scaling_plan.py"],
            lambda path: [f"--out={path}", "plan", path],
        ),
        (
            "tools/time_to_score",
            ["tools/time_to_score.py"],
            lambda path: [f"--folder={path}", f"--out={path}", "table", path],
        ),
        (
            "tools/peer_time_to_score",
            ["tools/peer_time_to_score.py"],
            lambda path: [f"--folder={path}", f"--out={path}", path],
        ),
        ("tools/torture", ["tools/torture.py"], lambda path: [f"--folder={path}", path]),
    )
}

# Paths at which no run, file or suite is, or can be.
PATHS = {
    "missing": "no/such/place",
    "no such user": "~nosuchuser/runs",
    "over-long": "x" * 300,
    "over-long in all": "/".join(["y" * 100] * 60),
    "stars": "**",
    "stars within": "a**b/[c",
    "a circle of links": "circle",
    "not UTF-8": "caf\udce9",
    "a device": "/dev/null",
    "a control character": "a\nb\x1b[31m",
    "gamma": "γ",
}


@dataclasses.dataclass(frozen=True)
class Terminal:
    """The standard streams of a command.

    Attributes:
      environment: variables that are set.
      shell: what is appended to the command, for bash.
    """

    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    shell: str = ""


TERMINALS = {
    "ASCII": Terminal({"PYTHONIOENCODING": "ascii"}),
    "latin-1": Terminal({"PYTHONIOENCODING": "latin-1"}),
    "the C locale": Terminal({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "closed stdout": Terminal(shell=">&-"),
    "closed stderr": Terminal(shell="2>&-"),
    "all closed": Terminal(shell="<&- >&- 2>&-"),
    "a reader that left": Terminal(shell="| true"),
    "both readers left": Terminal(shell="2>&1 | true"),
    "a full disk": Terminal(shell="> /dev/full"),
    "a full disk for both": Terminal(shell="> /dev/full 2>&1"),
    "40 columns": Terminal({"COLUMNS": "40"}),
    "no columns": Terminal({"COLUMNS": "0"}),
    "a dumb terminal": Terminal({"TERM": "dumb"}),
    "no terminal": Terminal({"TERM": ""}),
    "no temporary folder": Terminal({"TMPDIR": "/no/such/folder", "TEMP": "/no", "TMP": "/no"}),
    "no home": Terminal({"HOME": "/no/such/home"}),
}


def run(
    words: list[str], terminal: Terminal = TERMINALS["a dumb terminal"], cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command under a terminal to its end, from the project's root."""
    script = f'set -o pipefail; "$@" {terminal.shell}'
    paths = [str(ROOT), str(ROOT / "tests")]
    return subprocess.run(
        ["bash", "-c", script, "bash", *words],
        cwd=cwd or ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | terminal.environment,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=300,
        check=False,
    )
