"""A flag that is a list refuses an empty one, which is mostly a shell variable that is not set: it
would stand for everything, or for nothing to do (command)."""

import re

import pytest
from absl import flags
from support.command_helpers import ROOT, refused, run_tool

from meta_impala.config import list_flags
from meta_impala.config.flags import parse_flags
from meta_impala.errors import UserError

# Lists that are refused when they are read as whole numbers; the tests of their tools give an empty
# one, as they do to the texts of `time_to_score`.
_READ_LATER = {
    ("run_suite", "seeds"),
    ("peer_time_to_score", "seeds"),
    ("scaling_plan", "publish_every"),
    ("time_to_score", "seeds"),
    ("time_to_score", "tasks"),
    ("time_to_score", "variants"),
}


def test_every_other_list_is_refused_when_it_is_parsed():
    call = re.compile(r"DEFINE_(?:list|spaceseplist)\(\s*\"(\w+)\"")
    found = {
        (path.stem, name)
        for folder in ("meta_impala", "tools")
        for path in (ROOT / folder).rglob("*.py")
        for name in call.findall(path.read_text("utf-8"))
    }
    assert found <= _READ_LATER


@pytest.mark.parametrize("argument", ["--games=", "--seeds=", "--preset="])
def test_a_suite_takes_no_empty_text_for_all_of_its_file(tmp_path, argument):
    given = ("gamma_grid", f"--out={tmp_path}", "--dry_run", argument)
    assert refused("meta_impala.run_suite", *given).startswith(f"error: {argument}: must be ")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("meta_impala.plot", ["--labels="]), ("meta_impala.plot", ["--levels="]),
     ("meta_impala.report", ["--labels="])],
)  # fmt: skip
def test_a_command_for_runs_takes_none(tmp_path, module, arguments):
    said = refused(module, *arguments, str(tmp_path))
    assert said == f"error: {arguments[0]}: must be one or more, separated by commas\n"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("torture", ["games", "--games="]),
        ("scaling_plan", ["measure", "--out=x.json", "--shapes="]),
        ("scaling_plan", ["measure", "--out=x.json", "--publish_every="]),
        ("peer_time_to_score", ["run", "--out=x.csv", "--tasks="]),
    ],
)
def test_a_tool_takes_none(tool, arguments):
    done = run_tool(tool, *arguments, light=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith(f"error: {arguments[-1]}: must be ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def parse(monkeypatch):
    """Parses arguments for a list of any texts and one of three; gives both."""
    values = flags.FlagValues()
    monkeypatch.setattr(
        list_flags.flags, "DEFINE",
        lambda *args, **kwargs: define(*args, flag_values=values, **kwargs),
    )  # fmt: skip
    list_flags.define_list("games", None, "Games.")
    list_flags.define_list("rows", ["a", "b"], "Rows.", ("a", "b", "c"))

    def parse(*arguments):
        parse_flags(["command", *arguments], values)
        return values.games, values.rows

    return parse


define = flags.DEFINE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (None, ["a", "b"])),
        (["--games=x"], (["x"], ["a", "b"])),
        (['--games=x, y,"z,z"', "--rows=c,a"], (["x", "y", "z,z"], ["c", "a"])),
        (["--rows=a", "--rows=b"], (None, ["b"])),
    ],
)
def test_a_list_is_read(parse, arguments, expected):
    assert parse(*arguments) == expected


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--games=", "--games=: must be one or more, separated by commas"),
        ('--games="x', '--games="x: must be one or more, separated by commas'),
        ("--rows=", "--rows=: must be among a, b, c"),
        ("--rows=a,d,e", "--rows=d: must be among a, b, c"),
        ("--rows=a,", "--rows=: must be among a, b, c"),
    ],
)
def test_a_refusal_names_the_text(parse, argument, message):
    with pytest.raises(UserError) as caught:
        parse(argument)
    assert str(caught.value) == message
