"""Settings that `resolve` spells in another way (property): the text that is saved passes the check
that the given one passed, opens again as it is, and is the same for equal values.
"""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_impala.config import (
    FIELDS,
    Config,
    checked_value,
    differing,
    from_json,
    join_learners,
    merge_for_resume,
    resolve,
    to_json,
)
from meta_impala.config.hyper_parameters import SETTINGS_OF_NAMES, TABLE
from meta_impala.config.text import MAX_LENGTH
from meta_impala.errors import UserError

# With lone surrogates, controls, and what does not print.
_TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["\u00a0", "\u200b", "\ud800\udc00"])
_NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_VALUE = st.recursive(
    st.none() | st.booleans() | _NUMBER | _TEXT,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(_TEXT, part, max_size=3),
)
_NAME = st.sampled_from(["size", "mode", "n", "été", "κ"])
_LONG = st.integers(900, 2500).map(lambda count: [0] * count)
_ARGUMENTS = st.dictionaries(_NAME, _VALUE | _LONG, max_size=3)
_FORMS = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "indent": st.sampled_from([None, 2]),
        "separators": st.sampled_from([None, (",", ":")]),
    }
)


def assert_opens(config: Config) -> None:
    """A resolved config stays as it is: resolved again, and saved and read."""
    assert resolve(config) == config
    assert from_json(to_json(config), "config.json") == config
    for name, field in FIELDS.items():
        value = getattr(config, field.name)
        assert checked_value(field, value) == value, name


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arguments=_ARGUMENTS, form=_FORMS)
def test_arguments_of_an_environment_are_saved_as_they_are_read(arguments, form):
    text = json.dumps(arguments, **form)
    try:
        config = resolve(Config(environment_kwargs=text))
    except UserError as error:
        assert f"must have at most {MAX_LENGTH} characters" in str(error)
        assert len(json.dumps(arguments, separators=(",", ":"))) > MAX_LENGTH
        return
    assert_opens(config)
    # Two halves of a character are that character once they are escaped.
    assert config.environment_arguments == json.loads(json.dumps(arguments))
    again = json.dumps(dict(reversed(arguments.items())), indent=1)
    assert resolve(Config(environment_kwargs=again)) == config


@pytest.mark.parametrize(
    "value", ["\u00a0", "\u200b", "\ud800", "\x7f", "\ufeff", "\U000e0100", "é\u2028", [0] * 2000]
)
def test_a_run_of_the_former_spelling_opens_and_is_continued(value):
    """It was saved as JSON with spaces and raw characters, and no command opened it."""
    arguments = {"sep": value}
    config = resolve(Config(environment_kwargs=json.dumps(arguments)))
    former = json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    values = json.loads(to_json(config)) | {"environment_kwargs": former}
    saved = from_json(json.dumps(values), "config.json")
    assert saved == config and saved.environment_arguments == arguments
    given_again = {"environment_kwargs": json.dumps(arguments)}
    assert merge_for_resume(saved, given_again, override=False) == config


def test_the_text_of_arguments_that_print_is_that_of_older_versions():
    """`compare` tells variants apart by it. It is as long as its characters, not as escapes."""
    former = '{"names": ["é", "你好"], "size": 5}'
    assert resolve(Config(environment_kwargs=former)).environment_kwargs == former
    many = '{"a": "' + "é" * 4000 + '"}'
    assert resolve(Config(environment_kwargs=many)).environment_kwargs == many


@pytest.mark.parametrize("value", [5, None, {}, b"{}", True])
def test_arguments_that_are_no_text_are_refused(value):
    with pytest.raises(UserError, match="--environment_kwargs=.* must be of type str"):
        resolve(Config(environment_kwargs=value))


@pytest.mark.parametrize("number", ["1e400", "-1e999"])
def test_a_number_that_no_float_holds_is_refused(number):
    with pytest.raises(UserError, match="--environment_kwargs=.*must be a JSON object"):
        resolve(Config(environment_kwargs=f'{{"size": {number}}}'))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(names=st.lists(st.sampled_from(sorted(TABLE)), unique=True, min_size=1), data=st.data())
def test_names_in_any_order_are_saved_as_they_are_read(names, data):
    spaces = [data.draw(st.sampled_from(["", " ", "  "])) for _ in names]
    given = {
        setting: ",".join(space + name for name, space in zip(names, spaces, strict=True))
        for setting in SETTINGS_OF_NAMES
        if setting != "meta_parameter_scope"
    }
    config = resolve(Config(**given, meta_objective="bootstrapped"))
    assert config.varied == tuple(name for name in TABLE if name in names)
    assert_opens(config)


REPLAY = {"eta_schedule": "replay", "eta_schedule_file": "/home/x/study/runs/a.csv"}


@pytest.mark.parametrize(
    ("typed", "is_same"),
    [
        ("runs/a.csv", True),
        ("a.csv", True),
        ("./runs/a.csv", True),
        ("runs/../runs/a.csv", True),
        ("../runs/a.csv", True),
        ("~/study/runs/a.csv", True),
        ("~x/study/runs/a.csv", True),
        ("/home/x/study/runs/a.csv", True),
        ("b.csv", False),
        ("other/a.csv", False),
        ("s/a.csv", False),
        ("a", False),
        ("~", False),
        ("..", False),
        ("/runs/a.csv", False),
        ("home/home/x/study/runs/a.csv", False),
    ],
)
def test_the_file_of_a_run_may_be_named_from_another_folder(typed, is_same):
    """A run saves the absolute path. The same command continues it, wherever it is typed; a folder
    of an older version has what was typed then, and is continued by either."""
    saved = resolve(Config(**REPLAY))
    wanted = resolve(dataclasses.replace(saved, eta_schedule_file=typed))
    for before, after in ((saved, wanted), (wanted, saved)):
        assert differing(before, after) == ([] if is_same else ["eta_schedule_file"])
        given = {"eta_schedule_file": after.eta_schedule_file}
        if is_same:
            assert merge_for_resume(before, given, override=False) == before
            assert join_learners(before, given) == before
            continue
        with pytest.raises(UserError, match="this never changes in a run"):
            merge_for_resume(before, given, override=True)
        with pytest.raises(UserError, match="learner 0 has other settings"):
            join_learners(before, given)
