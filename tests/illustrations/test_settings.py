"""The switches of the illustrative examples: what is derived, and one line for every mistake."""

import dataclasses
import math

import pytest

from meta_impala.errors import UserError
from meta_impala.illustrations.settings import FIELDS, Settings, allowed, field_type, resolve


def test_defaults_of_the_examples():
    discount = resolve(Settings(example="discount"))
    assert (discount.num_states, discount.gamma, discount.lambda_) == (10, 0.5, 1.0)
    assert (discount.learned, discount.start) == ("gamma", 0.5)
    bootstrap = resolve(Settings(example="bootstrap"))
    assert (bootstrap.num_states, bootstrap.gamma, bootstrap.lambda_) == (9, 1.0, 0.5)
    assert (bootstrap.learned, bootstrap.start) == ("lambda", 0.5)
    assert resolve(discount) == discount


def test_given_settings_are_kept():
    settings = resolve(Settings(example="discount", gamma=0.9, lambda_=0.0, num_states=3))
    assert (settings.start, settings.lambda_, settings.num_states) == (0.9, 0.0, 3)


def test_no_more_points_than_episodes():
    assert resolve(Settings(example="discount", episodes=7)).points == 7


def test_the_paper_s_lambda_has_its_name():
    assert "lambda" in FIELDS
    assert "lambda_" not in FIELDS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"example": None}, "--example: must be given, one of discount | bootstrap"),
        ({"example": "discont"}, "--example=discont: must be one of .* (did you mean discount?)"),
        ({"seeds": 0}, "--seeds=0: must be finite and in [1, 1000]"),
        ({"episodes": 0}, "--episodes=0"),
        ({"num_states": 1}, "--num_states=1"),
        ({"example": "bootstrap", "num_states": 8}, "--num_states=8: must be odd"),
        ({"branches": 1}, "--branches=1"),
        ({"noise": -1.0}, "--noise=-1.0: must be finite and in [0.0, 1000000.0]"),
        ({"noise": float("inf")}, "--noise=inf"),
        ({"signal": float("nan")}, "--signal=nan: must be finite"),
        ({"inner_step_size": 0.0}, "--inner_step_size=0.0: must be finite and in (0"),
        ({"inner_step_size": 2.0}, "--inner_step_size=2.0: must be below 2 with"),
        ({"meta_step_size": -0.1}, "--meta_step_size=-0.1"),
        ({"gamma": 1.0}, "--gamma=1.0: gamma is learned in discount"),
        ({"example": "bootstrap", "lambda_": 0.0}, "--lambda=0.0: lambda is learned in bootstrap"),
        ({"gamma": 1.5}, "--gamma=1.5: must be finite and in [0.0, 1.0]"),
        ({"reference_gamma": -0.5}, "--reference_gamma=-0.5"),
        ({"reference_lambda": 2.0}, "--reference_lambda=2.0"),
        ({"trace_decay": 1.1}, "--trace_decay=1.1"),
        ({"indexing": "arive"}, "--indexing=arive: must be one of arrived | left (did you"),
        ({"theta": "onlin"}, "--theta=onlin"),
        ({"inner_optimizer": "adam"}, "--inner_optimizer=adam: must be one of sgd | rmsprop"),
        ({"meta_optimizer": "rmsprop"}, "--meta_optimizer=rmsprop"),
        ({"last_reward": "one"}, "--last_reward=one"),
        ({"aliasing": "none"}, "--aliasing=none"),
        ({"seeds": 1.5}, "--seeds=1.5: must be of type int"),
    ],
)
def test_a_mistake_is_refused_in_one_line(changes, message):
    settings = dataclasses.replace(Settings(example="discount"), **changes)
    with pytest.raises(UserError) as caught:
        resolve(settings)
    text = str(caught.value)
    for part in message.split(".*"):
        assert part.strip() in text
    assert "\n" not in text


NUMBERS = [name for name, field in FIELDS.items() if field_type(field) is not str]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_finite_bounds_which_are_said(name):
    field = FIELDS[name]
    low, high = field.metadata["low"], field.metadata["high"]
    assert math.isfinite(low) and math.isfinite(high) and low < high
    assert f"{low}, {high}]" in allowed(field)
    beyond = [low - 1, high + 1, 10**400, -(10**400)]
    if field_type(field) is float:
        beyond += [math.inf, -math.inf, math.nan]
    for value in beyond:
        with pytest.raises(UserError, match=f"^--{name}=.*: must be finite and in .*{high}]"):
            resolve(dataclasses.replace(Settings(example="discount"), **{field.name: value}))


def test_a_large_step_is_allowed_where_it_does_not_diverge():
    resolve(Settings(example="discount", inner_optimizer="rmsprop", inner_step_size=3.0))
