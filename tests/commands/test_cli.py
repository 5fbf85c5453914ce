"""`meta-impala`: its commands, help, version, presets and completion (command)."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from support import forked_command
from support.command_helpers import ROOT

from meta_impala import __version__, cli, completion
from meta_impala.config import FIELDS, presets
from meta_impala.config.flags import define_config_flags, given_config_flags, parse_flags
from meta_impala.config.groups import GROUPS


def run(*words, columns=80):
    return forked_command.run(
        [sys.executable, "-m", "meta_impala", *words],
        light=True,
        cwd=ROOT,
        env={"COLUMNS": str(columns), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("word", ["--help", "-h", "help", None])
def test_the_overview_names_every_command(word):
    result = run(*([word] if word else []))
    assert (result.returncode, result.stderr) == (0, "")
    for name, entry in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.summary)}$", result.stdout, re.MULTILINE)


def test_the_version():
    for words in (["--version"], ["train", "--version"]):
        result = run(*words)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith(f"meta_impala {__version__} (Python ")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian", "error: trian: there is no such command (did you mean train?)"),
        ("evaluat", "(did you mean evaluate?)"),
        ("--gamma=1", "error: --gamma=1: must be a command"),
        ("", "error: : there is no such command"),
    ],
)
def test_a_mistyped_command(word, message):
    result = run(word)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command(name):
    result = run(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: meta-impala {name}")
    assert "--helpfull" in result.stdout


def test_help_of_train_has_the_common_flags_and_helpfull_all_in_groups():
    brief, full = run("train", "--help").stdout, run("train", "--helpfull").stdout
    named = re.findall(r"^  --(?:\[no\])?(\w+)", brief, re.MULTILINE)
    assert len(named) == 15 and named[:2] == ["preset", "logdir"]
    for name in presets.names():
        assert re.search(rf"^  {name}: ", brief, re.MULTILINE)
    titles = [line[:-1] for line in full.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles[1 : 1 + len(set(GROUPS.values()))] == list(dict.fromkeys(GROUPS.values()))
    listed = re.findall(r"^  --(?:\[no\])?(\w+)", full, re.MULTILINE)
    assert set(FIELDS) <= set(listed) and len(listed) == len(set(listed))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(columns, words):
    result = run(*words, columns=columns)
    for line in result.stdout.splitlines():
        is_of_a_flag = words[0] == "train" and (line.startswith("    python") or "=" in line)
        assert len(line) <= columns or is_of_a_flag, line


def test_every_setting_stands_in_a_group():
    assert set(GROUPS) == set(FIELDS) and all(GROUPS.values())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_says_that_it_loads_tensorflow(name):
    """`command.load_tensorflow` prints a line first."""
    text = (ROOT / f"{cli.COMMANDS[name].module.replace('.', '/')}.py").read_text("utf-8")
    assert "import_tensorflow" not in text and "import tensorflow" not in text


# Presets.


def given(*words):
    """The config flags that result from a command line."""
    values = flags.FlagValues()
    define_config_flags(values)
    presets.define_preset_flag(values)
    parse_flags(["train", *words], values)
    return given_config_flags(values)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_its_flag_file_and_later_flags_override_it(name, tmp_path):
    path = presets.FOLDER / f"{name}.flags"
    assert given(f"--preset={name}") == given(f"--flagfile={path}") != {}
    later = ["--gamma=0.5", "--batch_size=7"]
    assert given(f"--preset={name}", *later) == given(f"--flagfile={path}", *later)
    # Where it stands on the command line counts.
    assert given(*later, "--preset", name) == given(*later, f"--flagfile={path}")
    own = tmp_path / "own.flags"
    own.write_text(f"--preset={name}.flags\n--gamma=0.5\n--batch_size=7\n")
    assert given(f"--flagfile={own}") == given(f"--flagfile={path}", *later)


def test_a_mistyped_preset_is_answered_with_the_nearest():
    for words in (["train"], ["suite", "catch", "--out=/tmp/none", "--dry_run"]):
        result = run(*words, "--preset=labtop")
        assert result.returncode == 2
        presets = sorted(path.stem for path in (ROOT / "meta_impala/presets").glob("*.flags"))
        assert f"--preset=labtop: must be one of {', '.join(presets)}" in result.stderr
        assert "(did you mean laptop?)" in result.stderr


# Completion.


def completed(*words):
    """What bash completes `meta-impala WORDS...`, words split as bash splits them, to."""
    quoted = " ".join(f"'{word}'" for word in ("meta-impala", *words))
    script = (
        f"{completion.script('bash')}\n"
        f"COMP_WORDS=({quoted}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))\n"
        "_meta_impala 2>/dev/null\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_completion_of_commands_flags_values_and_files():
    assert completed("ev") == ["evaluate"]
    assert set(completed("")) == set(cli.COMMANDS)
    assert completed("train", "--total") == ["--total_frames="]
    assert {"--override", "--nooverride"} <= set(completed("train", "--"))
    assert completed("train", "--network", "=", "d") == ["deep"]
    assert completed("train", "--network=d") == ["deep"]
    assert completed("train", "--preset", "=") == presets.names()
    assert completed("evaluate", "--starts", "=", "h") == ["human"]
    assert completed("train", "--reference_tracking", "=", "r") == ["rho_clip", "rmsprop_decay"]
    assert "entropy_cost" in completed("train", "--meta_parameters=")
    assert "setup.py" in completed("plot", "setu")
    assert completed("train", "--flagfile", "=", "READ") == ["README.md"]
    assert completed("train", "--preset", "lap") == ["laptop"]
    assert completed("train", "--gamma=-") == []
    assert "gamma_grid" in completed("suite", "gamma")
    assert completed("completion", "z") == ["zsh"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_script_is_complete_and_valid(shell):
    result = run("completion", shell)
    assert (result.returncode, result.stderr) == (0, "")
    if shutil.which(shell) is not None:
        checked = subprocess.run([shell, "-n"], input=result.stdout, text=True, check=False)
        assert checked.returncode == 0
    last = {"bash": "complete -o filenames -F _meta_impala meta-impala"}
    assert result.stdout.endswith(last.get(shell, "compdef _meta_impala meta-impala") + "\n")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_an_interactive_zsh_completes_what_is_typed(tmp_path):
    (tmp_path / "runs/pong").mkdir(parents=True)
    (tmp_path / "completion").write_text(completion.script("zsh"))
    (tmp_path / ".zshrc").write_text("unsetopt beep\nsource ./completion\nPS1='ready> '\n")
    environment = {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-i"], os.environ | environment)

    def wait_for(text):
        seen, deadline = "", time.monotonic() + 60
        while text not in seen and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536).decode()
        assert text in seen, seen

    try:
        wait_for("ready> ")
        for typed, expected in {
            "tra": "train ",
            "train --total": "total_frames=",
            "train --preset=lap": "laptop ",
            "train --preset lap": "laptop ",
            "train --logdir=ru": "runs/",
            "watch runs/p": "runs/pong/",
            "suite gamma_g": "gamma_grid ",
        }.items():
            os.write(terminal, f"meta-impala {typed}\t".encode())
            wait_for(expected)
            os.write(terminal, b"\x15")  # clears the line
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
