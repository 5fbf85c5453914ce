"""Text from outside (property): names that look alike are equal or refused; messages are lines."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_impala.config import (
    FIELDS,
    Config,
    checked_value,
    field_type,
    from_json,
    resolve,
    to_json,
)
from meta_impala.config.text import MAX_LENGTH, normalized, shown
from meta_impala.errors import UserError

TEXTS = [
    name
    for name, field in FIELDS.items()
    if field_type(field)[0] is str and not field.metadata["choices"]
]

# One of each kind that prints as nothing or as something else.
HIDDEN = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "byte order mark": "\ufeff",
    "right-to-left override": "\u202e",
    "soft hyphen": "\u00ad",
    "variation selector": "\ufe0f",
    "Hangul filler": "\u3164",
    "combining grapheme joiner": "\u034f",
    "braille blank": "\u2800",
    "tag": "\U000e0041",
    "no-break space": "\u00a0",
    "line separator": "\u2028",
    "newline": "\n",
    "tab": "\t",
    "escape": "\x1b",
    "delete": "\x7f",
    "NUL": "\0",
    "C1 control": "\x9b",
    "lone surrogate": "\udc80",
    "private use": "\ue000",
    "unassigned": "\U000e1000",
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_character_that_does_not_print_is_refused_inside_a_name(kind):
    with pytest.raises(ValueError, match=f"U\\+{ord(HIDDEN[kind]):04X} is not one"):
        normalized(f"run.ev{HIDDEN[kind]}il:Env")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("space", [" ", "\t", "\n", "\u00a0", "\u2003", "\x1c", "\x85", "\u3000"])
def test_white_space_around_every_text_setting_is_not_part_of_it(name, space):
    field = FIELDS[name]
    value = "x.y:Z"
    assert checked_value(field, f"{space}{value}{space}") == value


def test_a_name_from_a_file_is_the_name_that_is_typed():
    text = to_json(resolve(Config(environment="run.evilmod:Env")))
    changed = text.replace('"run.evilmod:Env"', '" \\u2003run.evilmod:Env\\n"')
    assert changed != text
    assert from_json(changed, "config.json").environment == "run.evilmod:Env"
    with pytest.raises(UserError, match=r"--environment=run.\\u200bevilmod:Env: .*U\+200B"):
        from_json(text.replace("run.e", "run.\\u200be"), "config.json")


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_are_too_long_are_refused(name):
    with pytest.raises(UserError, match=f"--{name}=x+…") as caught:
        checked_value(FIELDS[name], "x" * (MAX_LENGTH + 1))
    assert len(str(caught.value)) < 300


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(max_size=20))
def test_accepted_text_is_printable_and_unchanged(text):
    try:
        result = normalized(text)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert normalized(result) == result == text.strip()
    assert all(c == " " or unicodedata.category(c)[0] not in "CZ" for c in result)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(max_size=300) | st.integers() | st.floats() | st.lists(st.text(), max_size=40))
def test_shown_text_is_one_short_printable_line(value):
    line = shown(value)
    assert line.isprintable()
    assert len(line) < 1300  # 120 characters, each perhaps as an escape
    line.encode("utf-8")


def test_values_that_python_cannot_write_are_shown_by_their_type():
    assert shown(10**5000) == "<int>"
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "<list>"
    assert shown("plain") == "plain"
    while deep:  # or its destruction would be recursive
        deep = deep[0]
