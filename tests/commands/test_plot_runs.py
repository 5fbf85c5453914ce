"""The command that draws curves: hostile names and files give a picture or one line."""

import json
import os
import subprocess
import sys
import types

import pytest
from support import forked_command
from support.command_helpers import ROOT

from meta_impala import plot
from meta_impala.errors import UserError

HEADER = "frames,episode_return,gamma,lambda\n"
ROWS = "".join(f"{1000 * i},{i},0.99,0.95\n" for i in range(1, 6))


def _run(*arguments, **more):
    start = subprocess.run if "env" in more else forked_command.run
    return start(
        [sys.executable, "tools/plot_runs.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
        **more,
    )


def _run_many(commands):
    """The results of several commands, run in one process: exit code, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "support.tool_calls", "meta_impala.plot"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _make(path, metrics):
    os.makedirs(path)
    for name in ("config.json", "status.json"):
        with open(os.path.join(path, os.fsencode(name)), "w") as file:
            file.write("{}")
    if metrics is not None:
        with open(os.path.join(path, os.fsencode("metrics.csv")), "wb") as file:
            file.write(metrics if isinstance(metrics, bytes) else metrics.encode())
    return path


def _refused(code, stdout, stderr):
    assert code == 2 and stdout == "", stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    return stderr


def test_hostile_run_names_are_drawn_as_text(tmp_path):
    """Every one of them a run, and in the legend."""
    names = [
        b"$x$", b"a$b", b"$\\frac{$", b"\\alpha", b"a\\$b", b"x^{2}_3", b"$" * 41, b"%s %d {0}",
        b"_hidden", b"__", b" ", b".hidden", b"-flag", b"a,b", b"x=y", b"~nosuchuser", b"*?[",
        b"new\nline", b"tab\tbell\a", b"\x1b[31mred", b"\xff\xfe latin", "γ λ 漢字 🎲".encode(),
        "\u202eright to left\u200b".encode(), b"n" * 250,
    ]  # fmt: skip
    top = os.fsencode(tmp_path)
    for name in names:
        _make(os.path.join(top, b"runs", name), HEADER + ROWS)
    out = tmp_path / "all.svg"
    done = _run(f"--out={out}", str(tmp_path / "runs"))
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    lines = done.stdout.decode("utf-8").splitlines()
    assert len(lines) == len(names) + 1 and b"\x1b" not in done.stdout
    assert sum(line.endswith(": 5.00 after 5,000 frames") for line in lines) == len(names)
    picture = out.read_text("utf-8")
    # Text that is not taken as a formula stands in the picture as a comment.
    for shown in ("$x$", "a$b", "\\alpha", "x^{2}_3", "_hidden", "%s %d {0}"):
        assert f"<!-- {shown} -->" in picture or f"<!--  {shown} -->" in picture, shown


NO_RETURN = "no game with a finite return was finished"
# Content of metrics.csv, and what is said of the run.
ODD = [
    (HEADER + "1000,2,0.99,0.95\n", ": 2.00 after 1,000 frames"),
    (HEADER + "0,2,0.99,0.95\n", ": 2.00 after 0 frames"),
    (HEADER + "1000,,0.99,0.95\n2000,,0.99,0.95\n", f"{NO_RETURN} in 2,000 frames"),
    (HEADER + "1000,nan,0.99,nan\n", f"{NO_RETURN} in 1,000 frames"),
    (HEADER + "1000,3,nan,0.9\n2000,inf,-inf,1e999\n", ": 3.00 after 2,000 frames"),
    (HEADER + "1000,1e308,0.99,0.9\n2000,-1e308,0.9,0.9\n", NO_RETURN),
    (HEADER + "2000,1,0.9,0.9\n1000,2,0.9,0.9\n", ": 2.00 after 1,000 frames"),
    (HEADER + "1000,5,0.9,0.9\n" * 3, ": 5.00 after 1,000 frames"),
    ("frames,episode_return\n1000,2\n", ": 2.00 after 1,000 frames"),
    ("frames,gamma\n1000,0.9\n", f"{NO_RETURN} in 1,000 frames"),
    ("frames\n1000\n", f"{NO_RETURN} in 1,000 frames"),
    (HEADER + ROWS + "6000,7", ": 5.00 after 5,000 frames"),
    (HEADER.encode() + b"1000,2,0.99,0.95\n\xff\xfe\n", ": 2.00 after 1,000 frames"),
]


def test_runs_with_odd_metrics_are_drawn(tmp_path):
    commands = []
    for index, (metrics, _) in enumerate(ODD):
        _make(os.fsencode(tmp_path / str(index)), metrics)
        out = f"--out={tmp_path}/{index}.png"
        commands.append([out, f"{tmp_path}/{index}", "--levels=1,-1e308,1e308"])
    for index, (code, stdout, stderr) in enumerate(_run_many(commands)):
        assert (code, stderr) == (0, ""), ODD[index]
        assert ODD[index][1] in stdout, ODD[index]
        assert (tmp_path / f"{index}.png").read_bytes().startswith(b"\x89PNG")


NO_METRICS = [
    None,
    "",
    HEADER,
    "\n\n\n",
    "frames\n",
    HEADER + "1000,2,0.99",
    b"\x00" * 5000,
    b"\xff\xfe" * 500,
    HEADER + f"{10**400},1,0.9,0.9\n",
    HEADER + f"{'1' * 5000},1,0.9,0.9\n",
    HEADER + f"1000,{'x' * 200_000},0.9,0.9\n",
    "x,y\n1,2\n",
]


def test_a_run_without_metrics_is_named_in_one_line_and_the_others_are_drawn(tmp_path):
    good = os.fsdecode(_make(os.fsencode(tmp_path / "good"), HEADER + ROWS))
    commands = []
    for index, metrics in enumerate(NO_METRICS):
        bad = os.fsdecode(_make(os.fsencode(tmp_path / f"bad{index}"), metrics))
        out = f"--out={tmp_path}/p{index}.png"
        commands += [[out, bad], [out, bad, good]]
    results = _run_many(commands)
    for index, (alone, beside) in enumerate(zip(results[::2], results[1::2], strict=True)):
        assert f"bad{index}" in _refused(*alone)
        code, stdout, stderr = beside
        assert code == 0 and "good: 5.00 after 5,000 frames" in stdout, NO_METRICS[index]
        assert stderr.startswith("left out: ") and stderr.count("\n") == 1, stderr
        assert (tmp_path / f"p{index}.png").exists()


MISTAKES = [
    [],
    ["nowhere"],
    ["RUN", "--out=p"],
    ["RUN", "--out=p.xyz"],
    ["RUN", "--out=/nowhere/at/all/p.png"],
    ["RUN", "--out=/dev/null/p.png"],
    ["RUN", "--out=~nosuchuser/p.png"],
    ["RUN", "--out=" + "p" * 300 + ".png"],
    ["RUN", "--out=" + "p/" * 3000 + ".png"],
    ["RUN", "--levels=high"],
    ["RUN", "--levels=1,,2"],
    ["RUN", "--levels="],
    ["RUN", "--levels=nan"],
    ["RUN", "--levels=1,inf"],
    ["RUN", "--levels=-inf"],
    ["RUN", "--levels=1e400"],
    ["RUN", "--labels="],
    ["RUN", "--labels=a,b"],
    ["~nosuchuser"],
    ["**"],
    ["x" * 5000],
]


def test_a_mistake_is_refused_in_one_line(tmp_path):
    run = os.fsdecode(_make(os.fsencode(tmp_path / "run"), HEADER + ROWS))
    commands = [[run if text == "RUN" else text for text in arguments] for arguments in MISTAKES]
    for arguments, result in zip(MISTAKES, _run_many(commands), strict=True):
        said = _refused(*result)
        assert not arguments[1:] or arguments[1].partition("=")[0] in said, arguments


@pytest.mark.parametrize("level", ["nan", "inf", "-inf", "1e400", "", "high"])
def test_a_level_that_is_no_finite_number_is_named(level, monkeypatch):
    monkeypatch.setattr(plot, "FLAGS", types.SimpleNamespace(levels=["1", level, "-2.5"]))
    with pytest.raises(UserError, match=f"^--levels={level}: must be finite numbers"):
        plot._levels()


@pytest.mark.parametrize("encoding", ["ascii", "utf-16"])
def test_any_encoding_and_a_closed_stdout_are_accepted(tmp_path, encoding):
    _make(os.fsencode(tmp_path / "γ λ"), HEADER + ROWS)
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = _run(f"--out={tmp_path / 'p.png'}", str(tmp_path), env=environment)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    closed = f"exec {sys.executable} tools/plot_runs.py --out={tmp_path}/p.png '{tmp_path}' >&-"
    assert subprocess.run(closed, shell=True, cwd=ROOT, timeout=120, check=False).returncode == 0
