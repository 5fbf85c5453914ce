"""Every command and tool at every hostile terminal and path: one line, or degraded output (fault).

The default suite takes a diagonal of the two matrices, so that every command and every condition
stands in it; `-m slow` takes them whole.
"""

import itertools
import os
import sys

import pytest
from support.command_helpers import ROOT
from support.hostile import COMMANDS, PATHS, TERMINALS, Terminal, run

from meta_impala import cli

# What cannot be said leaves no line.
_SILENT = ("closed stderr", "all closed", "both readers left", "a full disk for both")


def test_every_command_and_tool_is_in_the_tables():
    names = {name.partition(" ")[0] for name in COMMANDS}
    assert set(cli.COMMANDS) <= names
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    # Examples are code to be read, with no flags; the last runs in another program's environment.
    tools = {name for name in tools if not name.startswith("example_")} - {"peer_sb3_run"}
    assert {f"tools/{name}" for name in tools} <= names


def diagonal(rows, columns, step=1):
    """All pairs, those beside a diagonal for the default suite and the others as slow."""
    rows, columns = list(rows), list(columns)
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        # Each row meets `step` columns, and each column is met.
        is_near = any((i + k * len(rows)) % len(columns) == j for k in range(step))
        marks = () if is_near else (pytest.mark.slow,)
        yield pytest.param(rows[i], columns[j], marks=marks, id=f"{rows[i]}-{columns[j]}")


def check_refusal(result, *, is_silent=False):
    """One line and exit code 2."""
    assert result.returncode == 2, (result.returncode, result.stderr)
    if not is_silent:
        assert result.stderr.startswith("error: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr + result.stdout


@pytest.mark.parametrize(("command", "path"), diagonal(COMMANDS, PATHS))
def test_a_path_is_refused_in_one_line(command, path, tmp_path):
    start, arguments = COMMANDS[command]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    start = [os.path.join(ROOT, word) if word.startswith("tools/") else word for word in start]
    result = run([*start, *arguments(PATHS[path])], cwd=str(tmp_path))
    check_refusal(result)
    # What the file system allows may have been made for a run, a lock or results; nothing else.
    assert not (tmp_path / "caf\udce9").exists()


@pytest.mark.parametrize(("command", "terminal"), diagonal(COMMANDS, TERMINALS))
def test_a_mistake_at_any_terminal(command, terminal):
    start, arguments = COMMANDS[command]
    result = run([*start, *arguments("no/such/γ")], TERMINALS[terminal])
    check_refusal(result, is_silent=terminal in _SILENT)
    leftover = ROOT / "no"
    if leftover.exists():
        for path in sorted(leftover.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        leftover.rmdir()


@pytest.mark.parametrize(("command", "terminal"), diagonal(COMMANDS, TERMINALS))
def test_help_at_any_terminal(command, terminal):
    start, _ = COMMANDS[command]
    result = run([*start, "--helpfull"], TERMINALS[terminal])
    assert (result.returncode, result.stderr) in {
        (0, ""),
        (0, "warning: standard output was lost (No space left on device)\n"),
    }
    if terminal == "40 columns":
        long = [line for line in result.stdout.splitlines() if len(line) > 40]
        # Command lines, and words that are longer, stay whole.
        assert all(line.startswith("    ") or "--" in line for line in long), long
    if terminal == "ASCII":
        assert result.stdout.isascii() and len(result.stdout) > 100


def test_greek_letters_are_spelled_out_in_ascii_terminals():
    result = run([*COMMANDS["train"][0], "--helpfull"], TERMINALS["ASCII"])
    assert "gamma" in result.stdout and "Discount gamma if fixed" in " ".join(result.stdout.split())


@pytest.mark.parametrize("content", [b"\x00\x01\xff\xfe", b"--gamma=\xff\n", b"\x89PNG\r\n\x1a\n"])
def test_a_binary_flag_file_is_refused(content, tmp_path):
    path = tmp_path / "some.flags"
    path.write_bytes(content)
    check_refusal(run([*COMMANDS["train"][0], f"--flagfile={path}", f"--logdir={tmp_path}/run"]))


@pytest.mark.parametrize(
    "word", ["--nooverride=1", "--logdir", "--gamma", "--no", "-", "--=3", "---", "--helpful"]
)
def test_an_argument_that_is_not_a_flag_is_refused(word, tmp_path):
    result = run([*COMMANDS["train"][0], f"--logdir={tmp_path}/run", word])
    check_refusal(result)
    assert not (tmp_path / "run").exists()


# Closed standard output and a reader that left: `test_evaluator.py` has them in a whole run.
@pytest.mark.parametrize(
    "terminal",
    [
        "ASCII",
        "all closed",
        pytest.param("closed stdout", marks=pytest.mark.slow),
        pytest.param("a reader that left", marks=pytest.mark.slow),
    ],
)
def test_a_whole_run_at_a_hostile_terminal(terminal, tmp_path):
    words = [
        *COMMANDS["illustrative"][0],
        "--example=discount",
        "--episodes=20",
        "--seeds=1",
        "--nofigure",
        f"--outdir={tmp_path}",
    ]
    result = run(words, TERMINALS[terminal])
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "final_values.csv").stat().st_size > 0


RUN = "testdata/demonstration/runs/meta/Pong/seed_1"
# What a command that succeeds writes, by its words; {out} is a new folder.
RESULTS = {
    "plot": (["-m", "meta_impala", "plot", "--out={out}/c.png", RUN], "c.png"),
    "report": (["-m", "meta_impala", "report", "--out={out}/r.html", RUN], "r.html"),
    "doctor": (["-m", "meta_impala", "doctor", "--nobatch", RUN], None),
    "compare": (["-m", "meta_impala", "compare", "--out={out}", "--nopictures", RUN], "report.md"),
    "completion": (["-m", "meta_impala", "completion", "bash"], None),
    "suite": (["-m", "meta_impala", "suite", "--dry_run", "--out={out}/s", "gamma_grid"], None),
    "study": (["tools/study.py", "report", "--report={out}"], "study.md"),
    "evaluate": (
        ["-m", "meta_impala", "evaluate", "--agent=pong", "--episodes=1", "--out={out}/e.json",
         "--max_episode_frames=400"], "e.json"),
}  # fmt: skip
_READERS = {"one line is read": "| head -1", "nothing is read": "2>&1 | true", "closed": ">&-"}


@pytest.mark.parametrize("reader", _READERS)
@pytest.mark.parametrize(
    "name",
    [
        "doctor",
        *(pytest.param(name, marks=pytest.mark.slow) for name in RESULTS if name != "doctor"),
    ],
)
def test_a_closed_output_pipe_is_not_a_failure_and_the_result_is_saved(name, reader, tmp_path):
    words, file = RESULTS[name]
    words = [sys.executable, *(word.replace("{out}", str(tmp_path)) for word in words)]
    result = run(words, Terminal(shell=_READERS[reader]))
    assert (result.returncode, result.stderr) == (0, "")
    assert file is None or (tmp_path / file).stat().st_size > 0
