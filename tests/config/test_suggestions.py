"""Mistyped flags (property over all of them): the flag that was meant is named."""

import random

import pytest
from absl import flags

from meta_impala.config import FIELDS, field_type
from meta_impala.config.flags import define_config_flags, parse_flags
from meta_impala.config.suggestions import similar_flags
from meta_impala.errors import UserError


@pytest.fixture(scope="module")
def values():
    values = flags.FlagValues()
    define_config_flags(values)
    flags.DEFINE_string("logdir", None, "Folder.", values)
    return values


def _typos(name):
    """One letter swapped with its neighbour, left out, doubled, replaced."""
    chance = random.Random(name)
    place = chance.randrange(len(name) - 1)
    a, b = name[place], name[place + 1]
    yield name[:place] + b + a + name[place + 2 :]
    yield name[:place] + name[place + 1 :]
    yield name[:place] + a + name[place:]
    yield name[:place] + chance.choice("qxz") + name[place + 1 :]


@pytest.mark.parametrize("name", [name for name in FIELDS if len(name) >= 5])
def test_one_wrong_letter_names_the_flag(values, name):
    for typo in _typos(name):
        if typo not in values:
            assert name in similar_flags(typo, values), typo


@pytest.mark.parametrize("name", FIELDS)
def test_dashes_and_capitals_name_the_flag(values, name):
    assert similar_flags(name.replace("_", "-").upper(), values) == [name]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lr", "learning_rate"),
        ("env", "environment"),
        ("env-id", "environment"),
        ("discount", "gamma"),
        ("total_timesteps", "total_frames"),
        ("ent_coef", "entropy_cost"),
        ("num_envs", "envs_per_actor"),
        ("max_grad_norm", "max_gradient_norm"),
        ("log_dir", "logdir"),
        ("totl_frames", "total_frames"),
        ("nodetermnistic", "nodeterministic"),
        ("address", "ray_address"),
        ("lmabda", "lambda"),
    ],
)
def test_common_wrong_flag_names_get_the_right_suggestion(values, given, meant):
    with pytest.raises(UserError) as caught:
        parse_flags(["train", f"--{given}=1"], values)
    assert str(caught.value) == f"--{given}: there is no such flag (did you mean --{meant}?)"


@pytest.mark.parametrize("given", ["qqqqqq", "x", "_", "1", "x" * 100_000, "\x1b[31m", "ü" * 50])
def test_no_suggestion_where_no_flag_is_similar(values, given):
    with pytest.raises(UserError) as caught:
        parse_flags(["train", f"--{given}=1"], values)
    message = str(caught.value)
    assert "there is no such flag" in message and "did you mean" not in message
    assert message.isprintable() and len(message) < 300


def test_names_in_other_programs_are_unique_and_not_flags_here():
    names = [name for field in FIELDS.values() for name in field.metadata["also_called"]]
    assert len(names) == len(set(names))
    assert not set(names) & set(FIELDS)


@pytest.mark.parametrize("name", [n for n, f in FIELDS.items() if f.metadata["choices"]])
def test_a_mistyped_choice_names_the_choice(name):
    from meta_impala.config import checked_value

    assert field_type(FIELDS[name])[0] is str
    for choice in FIELDS[name].metadata["choices"]:
        if len(choice) < 4:
            continue
        for typo in (choice[:-2] + choice[-1], choice.upper(), choice + choice[-1]):
            with pytest.raises(UserError, match=rf"\(did you mean {choice}\?\)$"):
                checked_value(FIELDS[name], typo)
