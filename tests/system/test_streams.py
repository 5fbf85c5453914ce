"""Standard streams that never end a program (fault)."""

import subprocess
import sys

import pytest
from support.command_helpers import ROOT

_START = (
    "import os, sys\nfrom meta_impala.system.streams import prepare_streams\nprepare_streams()\n"
)


def run(code, shell="", **environment):
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "bash", sys.executable, "-c", _START + code],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "γ λ' 3±1 × ½ ρ̄ …", b"gamma lambda' 3+/-1 x 1/2 rho ...\n"),
        ("latin-1", "γ ± ½ é", "gamma ± ½ é\n".encode("latin-1")),
        ("ascii", "雪\udce9", b"??\n"),
        ("utf-8", "γ 雪 \udce9", "γ 雪 ?\n".encode()),
    ],
)
def test_characters_outside_the_encoding_are_replaced(encoding, text, shown):
    result = run(f"print({text!a})", PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stdout, result.stderr) == (0, shown, b"")


def test_output_that_cannot_be_written_is_dropped_and_the_program_continues(tmp_path):
    code = (
        "for _ in range(100): print('x' * 10_000, flush=True)\n"
        f"open({str(tmp_path / 'done')!r}, 'w').write('done')"
    )
    for shell in ("| true", ">&-", "2>&1 | true", "> /dev/full", "> /dev/full 2>&1"):
        result = run(code, f"{shell}; exit ${{PIPESTATUS[0]}}")
        assert result.returncode == 0, (shell, result.stderr)
        assert (tmp_path / "done").read_text() == "done"
        (tmp_path / "done").unlink()


def test_lost_output_is_reported_once_unless_the_pipe_was_closed():
    result = run("for _ in range(9): print('x', flush=True)", "> /dev/full")
    assert result.stderr == b"warning: standard output was lost (No space left on device)\n"
    assert run("for _ in range(9): print('x' * 99999, flush=True)", "| true").stderr == b""


@pytest.mark.parametrize("shell", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_no_file_that_is_opened_later_takes_the_number_of_a_closed_stream(shell, tmp_path):
    path = tmp_path / "file"
    code = (
        f"file = open({str(path)!r}, 'w'); assert file.fileno() > 2\n"
        "os.write(1, b'noise'); print('out')\n"
        "os.write(2, b'noise'); print('err', file=sys.stderr)\n"
        "assert sys.stdin.read(0) == ''\n"
        "file.write('content')"
    )
    result = run(code, shell)
    assert result.returncode == 0, result.stderr
    assert path.read_text() == "content"


@pytest.mark.parametrize(
    "foreign",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "sys.stdout = sys.stderr = None",
        # Two threads that hide what a simulator prints, each in place of the other's stream.
        "sys.stdout = sys.stderr = open(os.devnull, 'w'); sys.stdout.close()",
        "sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__; sys.stdout.close()",
    ],
)
def test_an_environment_that_closes_or_replaces_the_streams_does_not_end_the_program(foreign):
    said = "from meta_impala import errors; errors.tell('γ'); errors.warn('why')\n"
    restored = (
        "from meta_impala.system.streams import restore_streams; restore_streams()\n"
        "print('out'); print('err', file=sys.stderr)"
    )
    result = run(f"{foreign}\n{said}{restored}", PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"gamma\nout\n", b"why\nerr\n")


def test_what_foreign_code_prints_goes_to_stderr_and_what_follows_to_stdout():
    code = (
        "import ctypes\nfrom meta_impala.system.streams import stdout_to_stderr\n"
        "print('before')\n"
        "with stdout_to_stderr():\n"
        "    print('of Python'); ctypes.CDLL(None).puts(b'of C'); sys.__stdout__.write('kept ')\n"
        "print('after')"
    )
    result = run(code)
    assert (result.returncode, result.stdout) == (0, b"before\nafter\n"), result.stderr
    assert sorted(result.stderr.split()) == sorted(b"of Python of C kept".split())
