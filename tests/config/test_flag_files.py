"""Flag files (faults, equivalence): what absl makes of a good one, and a line for every bad one."""

import os
import pathlib

import pytest
from absl import flags

from meta_impala.config.flags import define_config_flags, parse_flags
from meta_impala.errors import UserError

PRESETS = pathlib.Path(__file__).parents[2] / "meta_impala/presets"


def _values():
    values = flags.FlagValues()
    define_config_flags(values)
    flags.DEFINE_string("flagfile", "", "absl's.", values)
    flags.DEFINE_string("undefok", "", "absl's.", values)
    return values


def parse(*arguments):
    values = _values()
    rest = parse_flags(["train", *arguments], values)
    return {n: values[n].value for n in values if values[n].present}, rest[1:]


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert message.isprintable() and message.startswith("--flagfile")
    return message


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.flags")), ids=lambda path: path.stem)
def test_a_good_file_is_read_as_absl_reads_it(path):
    theirs = _values()
    arguments = ["--gamma=0.5", f"--flagfile={path}", "--seed=3", "stray", "--seed=4"]
    rest = theirs(["train", *arguments])
    ours = parse(*arguments)
    assert ours == ({n: theirs[n].value for n in theirs if theirs[n].present}, rest[1:])
    assert ours[1] == ["stray"]


def test_forms_of_lines_places_and_nesting(tmp_path, monkeypatch):
    (tmp_path / "inner.flags").write_text("--batch_size=8\n")
    (tmp_path / "outer.flags").write_text(
        "\ufeff# comment\n\n// comment\n  --nodeterministic  \n--seed\n5\n"
        f"--flagfile={tmp_path / 'inner.flags'}\r\n-unroll_length=7\n"
        f"--flagfile={tmp_path / 'inner.flags'}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = {"deterministic": False, "seed": 5, "batch_size": 8, "unroll_length": 7}
    assert parse("--flagfile=~/outer.flags")[0] == expected
    assert parse("--flagfile", "~/outer.flags")[0] == expected
    assert parse("-flagfile=~/outer.flags")[0] == expected
    # Later flags win.
    assert parse("--flagfile=~/outer.flags", "--seed=6")[0] == expected | {"seed": 6}
    assert parse("--seed=6", "--flagfile=~/outer.flags")[0] == expected
    assert parse("--flagfile=")[0] == {}
    assert parse("--", "--flagfile=nowhere") == ({}, ["--flagfile=nowhere"])
    assert parse("--environment", "Catch", "--flagfile=~/inner.flags")[0] == {
        "environment": "Catch",
        "batch_size": 8,
    }


def test_a_path_that_is_not_a_flag_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "laptop.flags").write_text("--seed=1\n")
    missing = refusal(f"--flagfile={tmp_path}/lptop.flags")
    assert missing.endswith("there is no such file (did you mean laptop.flags?)")
    assert "did you mean laptop.flags?" in refusal(f"--flagfile={tmp_path}/laptop")
    assert "is a folder" in refusal(f"--flagfile={tmp_path}")
    assert "there is no such file" in refusal(f"--flagfile={tmp_path}/laptop.flags/below")
    assert "there is no such file" in refusal("--flagfile=~nosuchuser/x")
    assert "cannot be read" in refusal("--flagfile=a\0b")
    assert "cannot be read" in refusal(f"--flagfile={'x' * 5000}")
    assert "is not a regular file" in refusal("--flagfile=/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(f"--flagfile={tmp_path}/pipe")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    assert "cannot be read" in refusal(f"--flagfile={tmp_path}/loop")
    assert "must have a value" in refusal("--flagfile")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not text"),
        (b"--seed=1\n\0", "is not text"),
        (b"--environment=P\xf6ng\n", "is not text"),
        ("--seed=1\n".encode("utf-16"), "is not text"),
        (b"--seed=1\n" * 200_000, "must have at most 1000000 bytes"),
        (b"#" + b"x" * 2_000_000, "must have at most 1000000 bytes"),
        (b"--seed=1\n" * 20_000, "must have at most 10000 lines"),
        (b"# a comment\nseed=1\n", "line 2: seed=1: must be a flag, --name=value"),
        (
            b"--seed=1 # one\n\n--sede=2\n",
            "line 3: --sede: there is no such flag (did you mean --",
        ),
        (b"--\n", "line 1: --: must be a flag"),
        (b"\x1b[2J\n", r"line 1: \x1b[2J: must be a flag"),
    ],
)
def test_a_line_that_is_not_a_flag_is_refused_in_one_line(tmp_path, data, message):
    path = tmp_path / "some.flags"
    path.write_bytes(data)
    assert message in refusal(f"--flagfile={path}")


def test_a_flag_file_that_includes_itself_is_refused(tmp_path):
    a, b = tmp_path / "a.flags", tmp_path / "b.flags"
    a.write_text(f"--seed=1\n--flagfile={b}\n")
    b.write_text(f"--flagfile={tmp_path}/./a.flags\n")
    assert "a.flags: includes itself" in refusal(f"--flagfile={a}")
    # A chain in which each is included twice has 2^40 lines.
    for number in range(40):
        inner = f"--flagfile={tmp_path}/{number + 1}\n" * 2
        (tmp_path / str(number)).write_text(inner)
    (tmp_path / "40").write_text("--seed=1\n")
    assert "must have at most" in refusal(f"--flagfile={tmp_path}/0")


def test_a_value_in_a_file_is_checked_as_one_on_the_command_line(tmp_path):
    path = tmp_path / "some.flags"
    path.write_text("--total_frames=2.5k\n")
    assert parse(f"--flagfile={path}")[0] == {"total_frames": 2500}
    path.write_text("--total_frames=1.5\n")
    with pytest.raises(UserError, match="^--total_frames=1.5: must be a whole number of frames"):
        parse(f"--flagfile={path}")


def test_flags_that_may_be_unknown(tmp_path):
    path = tmp_path / "some.flags"
    path.write_text("--of_another_program=1\n--seed=2\n")
    assert parse("--undefok=of_another_program", f"--flagfile={path}")[0]["seed"] == 2
