"""Flags of each type: numbers of frames as people write them (property, ground truth), refusals."""

import fractions

import pytest
from absl import flags
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_impala.config import FIELDS, field_type, parsers
from meta_impala.config.fields import MAX_FRAMES
from meta_impala.config.flags import define_config_flags, parse_flags
from meta_impala.errors import UserError

FRAMES = [name for name, field in FIELDS.items() if field.metadata["is_frames"]]


@pytest.fixture(scope="module")
def parse():
    values = flags.FlagValues()
    define_config_flags(values)

    def parse(*arguments):
        values.unparse_flags()
        for name in values:
            values[name].unparse()
        parse_flags(["train", *arguments], values)
        return {name: values[name].value for name in values if values[name].present}

    return parse


def test_every_setting_measured_in_frames_takes_them():
    measured = {n for n, f in FIELDS.items() if f.metadata["unit"].startswith("environment frames")}
    assert set(FRAMES) == measured
    assert measured == {"total_frames", "checkpoint_frames", "log_frames", "evaluation_frames"}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("200000000", 200_000_000),
        ("200_000_000", 200_000_000),
        ("1e6", 1_000_000),
        ("1E+6", 1_000_000),
        ("1.5e3", 1500),
        ("10M", 10_000_000),
        ("10m", 10_000_000),
        ("2.5k", 2500),
        ("0.2G", 200_000_000),
        ("1B", 10**9),
        ("2.50", None),
        (" 7 ", 7),
        ("0x10", 16),
        ("0.1k", 100),
        ("9.007199254740993e15", 9007199254740993),  # no float
    ],
)
def test_common_spellings_of_frames_are_read(parse, name, text, frames):
    if frames is None:
        with pytest.raises(UserError, match=f"--{name}={text}: must be a whole number of frames"):
            parse(f"--{name}={text}")
    else:
        assert parse(f"--{name}={text}") == {name: frames}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(
    "text",
    ["1.5", "1e400", "1e999999999", "1e-3", "-", "M", "1.k", "1e", "1MM", "10 M", "1e6k.5", "ten",
     "nan", "inf", "1,000", "", "9" * 5000, "9e99999999999999999999G"],
)  # fmt: skip
def test_an_invalid_number_of_frames_is_refused_in_one_line(parse, name, text):
    with pytest.raises(UserError, match=f"^--{name}=") as caught:
        parse(f"--{name}={text}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    digits=st.integers(0, 10**8),
    places=st.integers(0, 6),
    exponent=st.none() | st.integers(0, 12),
    suffix=st.sampled_from(["", "k", "M", "G"]),
)
def test_numbers_of_frames_are_exact(parse, digits, places, exponent, suffix):
    whole, part = divmod(digits, 10**places)
    text = f"{whole}.{part:0{places}}" if places else f"{whole}"
    value = (
        fractions.Fraction(digits, 10**places) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[suffix]
    )
    if exponent is not None:
        text += f"e{exponent}"
        value *= 10**exponent
    try:
        assert parse(f"--total_frames={text}{suffix}") == {"total_frames": value}
    except UserError:
        assert value.denominator != 1 or value > MAX_FRAMES


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_the_wrong_type_names_flag_value_and_what_is_allowed(parse, name):
    kind, _ = field_type(FIELDS[name])
    if kind is str:
        with pytest.raises(UserError, match=rf"^--{name}=a\\x00b: must consist of printable"):
            parse(f"--{name}=a\0b")
        return
    allowed = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    with pytest.raises(UserError, match=f"^--{name}=perhaps: must be {allowed}"):
        parse(f"--{name}=perhaps")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--games=0", "--games=0: must be a positive integer"),
        ("--games=x: y", "--games=x: y: must be a positive integer"),
        ("--share=3", "--share=3: must be a number in the range [0, 2]"),
        ("--share=\x1b[2J", r"--share=\x1b[2J: must be a number in the range [0, 2]"),
        ("--starts=humn", "--starts=humn: must be one of noop | human (did you mean human?)"),
        ("--quick=3", "--quick=3: must be true or false"),
        ("--games", "Missing value for flag --games"),
        ("--noquick=1", "--noquick=1 does not take an argument"),
    ],
)
def test_flags_of_a_command_are_refused_in_the_same_words(argument, message):
    values = flags.FlagValues()
    flags.DEFINE_integer("games", 1, "Games.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("share", 1, "Share.", lower_bound=0, upper_bound=2, flag_values=values)
    flags.DEFINE_enum("starts", "noop", ["noop", "human"], "Starts.", flag_values=values)
    flags.DEFINE_bool("quick", False, "Quick.", flag_values=values)
    with pytest.raises(UserError) as caught:
        parse_flags(["train", argument], values)
    assert str(caught.value) == message


def test_types_and_short_forms(parse):
    assert parse("--deterministic") == {"deterministic": True}
    assert parse("--nodeterministic") == {"deterministic": False}
    assert parse("--deterministic=F") == {"deterministic": False}
    assert parse("--num_actors=auto") == {"num_actors": None}
    assert parse("--num_actors", "3") == {"num_actors": 3}
    assert parse("--lambda=1") == {"lambda": 1.0}
    assert parse("--environment= Catch\n") == {"environment": "Catch"}
    with pytest.raises(UserError, match="does not take an argument"):
        parse("--nodeterministic=true")
    with pytest.raises(UserError, match="--gamma"):
        parse("--gamma")


@pytest.mark.parametrize("text", ["", "1", "0.9,1,1", "a,b", "nan,1", "0.9,inf", "-0.1,1", "0.9,"])
def test_eta_must_be_two_numbers_in_the_unit_interval(text):
    with pytest.raises(UserError, match=r"--evaluation_eta=.*\[0, 1\]"):
        parsers.parse_eta(text)


def test_parse_eta_reads_two_numbers():
    assert parsers.parse_eta("0.995,1") == (0.995, 1.0)
    assert parsers.parse_eta(" 0, 0.5 ") == (0.0, 0.5)
