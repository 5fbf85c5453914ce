"""The report command as a user runs it (command)."""

import sys

import pytest
from support import forked_command
from support.command_helpers import ROOT, refused
from support.demonstration import META_PONG, copy_of
from support.run_helpers import files_of


def _report(*arguments):
    return forked_command.run(
        [sys.executable, "-m", "meta_impala", "report", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_runs_become_one_file_and_are_left_as_they_are(tmp_path):
    runs = [copy_of(META_PONG, tmp_path / "runs" / name) for name in ("a<b>", "broken")]
    (runs[1] / "metrics.csv").unlink()
    before = files_of(tmp_path)
    out = tmp_path / "report γ.html"
    result = _report(f"--out={out}", "--title=<Title>", "--labels=one,two", str(tmp_path / "runs"))
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("left out: ") and result.stderr.count("\n") == 1
    wrote, address = result.stdout.splitlines()
    assert wrote.startswith(f"wrote {out} (1 run, ")
    assert address == f"open it in a browser: {out.as_uri()}"
    after = files_of(tmp_path)
    text = after.pop(out).decode()
    assert after == before
    assert "<title>&lt;Title&gt;</title>" in text and text.count("<svg role=") >= 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give at least one run folder"),
        (["testdata/readme"], "holds no run"),
        (["--out=x.pdf", str(META_PONG)], "must end in .html"),
        (["--out=no/such/x.html", str(META_PONG)], "must be a file in a folder that exists"),
        (["--labels=a,b", str(META_PONG)], "must be one per run, has 2 for 1 runs"),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments, message):
    assert message in refused("meta_impala.report", *arguments)
