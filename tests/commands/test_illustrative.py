"""The illustrative examples as a user runs them (command), and what is refused (fault)."""

import csv
import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from support import forked_command

from meta_impala.command import LOADING

ROOT = pathlib.Path(__file__).parents[2]
SMALL = ("--seeds=3", "--first_seed=7", "--episodes=40", "--points=4")


def command(*arguments):
    return [sys.executable, "-m", "meta_impala.illustrative", *arguments]


def run(*arguments):
    return forked_command.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_results(outdir, stdout, kinds, states):
    final = rows(outdir / "final_values.csv")
    assert list(final[0]) == ["state", "kind", "seed", "value"]
    assert len(final) == states * 3
    for row in final:
        assert row["kind"] == kinds[(int(row["state"]) - 1) % 2]
        assert 0 < float(row["value"]) < 1
    assert {row["seed"] for row in final} == {"7", "8", "9"}
    assert {row["value"] for row in final if row["state"] == "1"} == {"0.5"}

    curves = rows(outdir / "curves.csv")
    assert list(curves[0]) == ["episode", "state", "kind", "seed", "value", "v"]
    assert sorted({int(row["episode"]) for row in curves}) == [0, 10, 20, 30, 40]
    last = [(row["seed"], row["value"]) for row in curves if row["episode"] == "40"]
    assert last == [(row["seed"], row["value"]) for row in final]

    table = [line.split() for line in stdout.splitlines()]
    for state in range(1, states + 1):
        (line,) = [cells for cells in table if cells[:1] == [str(state)] and cells[1] in kinds]
        values = [float(row["value"]) for row in final if row["state"] == str(state)]
        assert float(line[3]) == pytest.approx(sum(values) / 3, abs=6e-4)
    assert "not reproduced: the lowest" in stdout  # in 40 episodes

    settings = json.loads((outdir / "settings.json").read_text("utf-8"))
    assert (settings["num_states"], settings["episodes"]) == (states, 40)


def test_the_command_writes_tables_figure_and_settings(tmp_path):
    outdir = tmp_path / "made" / "here"
    result = run("--example=discount", f"--outdir={outdir}", *SMALL)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    names = ["curves.csv", "figure.png", "final_values.csv", "settings.json"]
    assert sorted(path.name for path in outdir.iterdir()) == names
    assert (outdir / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert_results(outdir, result.stdout, ("signal", "noise"), 10)


def test_without_figures_there_are_tables_and_explanations(tmp_path):
    result = run(
        "--example=bootstrap",
        f"--outdir={tmp_path}",
        "--explain",
        "--nofigure",
        "--num_states=3",
        *SMALL,
    )
    assert result.returncode == 0, result.stderr
    assert_results(tmp_path, result.stdout, ("bottleneck", "aliased"), 3)
    text = (tmp_path / "explained.md").read_text("utf-8")
    assert "The two targets of a bottleneck" in text
    assert text in result.stdout
    assert not list(tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("explained_*.csv"))) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--outdir=x",), "--example: must be given"),
        (("--example=discount",), "--outdir: must be given"),
        (("--example=disco", "--outdir=x"), "did you mean discount?"),
        (("--example=discount", "--outdir=x", "--seeds=many"), "seeds"),
        (("--example=discount", "--outdir=x", "--sedes=3"), "sedes"),
        (("--example=discount", "--outdir=x", "extra"), "extra: unexpected argument"),
        (("--example=discount", "--outdir=/dev/null/x"), "--outdir=/dev/null/x: cannot be made"),
        (("--example=bootstrap", "--outdir=x", "--num_states=4"), "must be odd"),
    ],
)
def test_a_mistake_is_refused_in_one_line_and_quickly(arguments, said, tmp_path):
    # TensorFlow is not even imported: with none to be found the answer is the same.
    python = (
        "import runpy, sys; sys.modules['tensorflow'] = None; sys.argv[0] = 'illustrative'; "
        "runpy.run_module('meta_impala.illustrative', run_name='__main__')"
    )
    result = forked_command.run(
        [sys.executable, "-c", python, *arguments],
        light=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after_start", [True, False])
def test_ctrl_c_leaves_no_traceback_and_no_half_files(after_start, tmp_path):
    process = subprocess.Popen(
        command("--example=discount", f"--outdir={tmp_path / 'out'}", "--episodes=10000000"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Said after the flags are checked and before TensorFlow is imported.
    assert process.stdout.readline() == f"{LOADING}\n"
    if after_start:
        time.sleep(6.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()
