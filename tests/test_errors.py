"""Text from anywhere reaches the terminal as one harmless line."""

import ast
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_helpers import ROOT

from meta_impala import command
from meta_impala.errors import RunFailed, UserError, one_line, printable, tell, warn
from meta_impala.system.watchdog import Stalled

HOSTILE = [
    "\x1b[2J",
    "\x07",
    "a\nb",
    "a\rb",
    "\x9b31m",
    "\u202e",
    "\u200b",
    "\u2028",
    "\ud800",
    "\0",
]


def _is_harmless(text: str) -> bool:
    return all(unicodedata.category(c)[0] not in "C" and unicodedata.category(c) not in ("Zl", "Zp")
               for c in text)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_files_is_escaped(text, capsys):
    quoted = f"before{text}after"
    for shown in (
        printable(quoted),
        str(UserError(quoted)),
        str(RunFailed(quoted)),
        str(Stalled(quoted)),
        one_line(ValueError(quoted)),
        one_line(OSError(5, quoted)),
    ):
        assert _is_harmless(shown) and shown.startswith("before")
    warn(f"warning: {printable(quoted)}")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and _is_harmless(error[:-1])


@settings(max_examples=300, database=None)
@given(st.text(st.characters(categories=None)))
def test_an_error_message_is_always_printable(text):
    shown = str(UserError(text))
    assert _is_harmless(shown)
    shown.encode("utf-8")


def test_plain_text_is_unchanged_and_long_text_is_shortened():
    assert printable("γ = 0.99, café, 你好") == "γ = 0.99, café, 你好"
    assert len(str(UserError("9" * 10**6))) < 5000


def test_a_warning_keeps_its_lines(capsys):
    warn("first\n  second\t\x1b[0m")
    assert capsys.readouterr().err == "first\n  second        \\x1b[0m\n"


def test_what_a_command_says_keeps_its_lines_and_letters(capsys):
    tell("γ̄ 0.99\n  second\x1b]0;title\x07\u202e")
    command.say("café\x9b31m")
    assert capsys.readouterr().out == ("γ̄ 0.99\n  second\\x1b]0;title\\x07\\u202e\ncafé\\x9b31m\n")


# What they print is text of the program itself; the last runs in another program's environment.
_PRINTING = {
    "errors.py", "ending.py", "streams.py", "cli.py", "usage.py", "completion.py",
    "peer_sb3_run.py",
}  # fmt: skip


def test_commands_and_tools_print_through_what_escapes():
    """`print` would give the terminal whatever a file holds."""
    found = set()
    for folder in ("meta_impala", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                    found.add(path.name)
    assert {name for name in found if not name.startswith("example_")} <= _PRINTING


def test_a_warning_without_a_readable_stderr_is_not_a_failure(monkeypatch):
    for stream in (None, open("/dev/full", "w")):  # noqa: SIM115
        monkeypatch.setattr("sys.stderr", stream)
        warn("nobody reads it")


@pytest.mark.parametrize(("code", "returned"), [("", 1), ("0", 1), ("3", 3), ("'no licence'", 1)])
def test_code_from_outside_cannot_end_a_command_as_if_it_had_succeeded(code, returned, capsys):
    def main():
        sys.exit(eval(code) if code else None)

    try:
        found = command._guarded(main, None)
    except SystemExit as error:
        found = error.code if isinstance(error.code, int) else 1
    assert found == returned
    said = capsys.readouterr().err
    assert said.startswith("error: an exception ended the program") == (code in ("", "0"))


def test_a_file_name_with_a_line_break_is_shown_in_one_line():
    code = (
        "from meta_impala import command\n"
        "def main():\n    open('no\\nsuch \\x1b[31m file')\n"
        "command.run(main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: no such \\x1b[31m file: No such file or directory\n"
