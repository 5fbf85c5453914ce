"""Every numeric flag of every command and tool has finite bounds: what is no number within them is
refused in one line, when the flags are parsed (fault).

Settings of a run (`Config`) and of the illustrative examples have their ranges from where they are
declared; `tests/config` and `tests/illustrations` have those.
"""

import json
import os
import subprocess
import sys

import pytest
from absl import flags
from support.command_helpers import ROOT

from meta_impala import cli
from meta_impala.config import number_flags
from meta_impala.config.flags import parse_flags
from meta_impala.errors import UserError

TOOLS = ("make_readme_pictures", "peer_time_to_score", "precision_study", "scaling_plan", "study",
         "time_to_score", "torture")  # fmt: skip
VALUES = ("nan", "inf", "-inf", "1e400", "-1", str(10**30), "9" * 5000, "x", "")

# In a fork for each module: its numeric flags, and what each says to each value.
_ASK = """
import importlib, json, os, sys
from absl import flags
from meta_impala.config import FIELDS
from meta_impala.config.flags import parse_flags
from meta_impala.errors import UserError
from meta_impala.illustrations.settings import FIELDS as SWITCHES

values = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    if os.fork():
        assert os.wait()[1] == 0
        continue
    before = set(flags.FLAGS)
    importlib.import_module(name).define_flags()
    elsewhere = SWITCHES if name.endswith("illustrative") else FIELDS
    if name.endswith(("train", "population", "benchmark", "illustrative")):
        before |= set(elsewhere)
    said = {}
    for flag in set(flags.FLAGS) - before:
        is_number = flags.FLAGS[flag].flag_type() in ("int", "float")
        if not is_number or flags.FLAGS.find_module_defining_flag(flag).startswith("absl"):
            continue
        said[flag] = {}
        for value in values:
            try:
                parse_flags(["command", f"--{flag}={value}"])
                said[flag][value] = None
            except UserError as error:
                said[flag][value] = str(error)
    assert "tensorflow" not in sys.modules
    print(json.dumps([name, said]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def said():
    """Module -> numeric flag -> value -> what it says, None for nothing."""
    modules = [entry.module for entry in cli.COMMANDS.values()] + list(TOOLS)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tools"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", _ASK, json.dumps(VALUES), *modules],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


def test_every_command_and_tool_was_asked(said):
    assert set(said) == {entry.module for entry in cli.COMMANDS.values()} | set(TOOLS)
    defined = {
        path.stem
        for path in (ROOT / "tools").glob("*.py")
        if any(
            f"{kind}(" in path.read_text("utf-8") for kind in vars(number_flags) if "def" in kind
        )
    }
    assert defined <= set(TOOLS)
    assert sum(map(len, said.values())) > 30


def test_what_is_no_number_within_the_bounds_is_one_line_that_names_it(said):
    for module, of_flags in said.items():
        for flag, answers in of_flags.items():
            for value, answer in answers.items():
                assert answer is not None, f"{module}: --{flag}={value} is taken"
                assert answer.startswith(f"--{flag}={value[:20]}"), answer
                assert " in [" in answer or " in (" in answer or "at most" in answer, answer
                assert answer.isprintable() and len(answer) < 400


def test_no_command_or_tool_has_a_numeric_flag_without_bounds():
    found = []
    for folder in ("meta_impala", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if "DEFINE_integer" in text or "DEFINE_float" in text:
                found.append(path.name)
    assert found == ["illustrative.py"]  # whose switches are checked when they are resolved


@pytest.fixture
def parse():
    values = flags.FlagValues()
    number_flags.define_integer("games", 3, "Games.", high=10, flag_values=values)
    number_flags.define_float("rate", None, "Rate.", low_open=True, high=2, flag_values=values)
    number_flags.define_frames("frames", None, "Frames.", flag_values=values)

    def parse(*arguments):
        parse_flags(["command", *arguments], values)
        return values.games, values.rate, values.frames

    return parse


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (3, None, None)),
        (["--games=1", "--rate=2"], (1, 2.0, None)),
        (["--games=10", "--rate=1e-300", "--frames=2.5k"], (10, 1e-300, 2500)),
    ],
)
def test_the_ends_of_a_range_are_taken(parse, arguments, expected):
    assert parse(*arguments) == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--games=0", "--games=0: must be a whole number in [1, 10]"),
        ("--games=2.5", "--games=2.5: must be a whole number in [1, 10]"),
        ("--rate=0", "--rate=0: must be a number in (0, 2]"),
        ("--rate=nan", "--rate=nan: must be a number in (0, 2]"),
        ("--frames=0", "--frames=0: must be a whole number (such as 1e6 or 10M) in [1, "),
    ],
)
def test_a_refusal_says_the_range(parse, argument, message):
    with pytest.raises(UserError) as caught:
        parse(argument)
    assert str(caught.value).startswith(message)
