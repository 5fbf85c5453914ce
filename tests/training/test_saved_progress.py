"""The progress of a checkpoint: what a trainer saves comes back, and anything else is one line."""

import json
import pathlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_impala.actors.trajectory import Episode
from meta_impala.errors import UserError
from meta_impala.learner.state import FIXED, Statistics
from meta_impala.training.metrics import MetricsWindow
from meta_impala.training.saved_progress import check_progress, refuse_other_terms

PATH = pathlib.Path("frames-1")


def _progress():
    window = MetricsWindow(0)
    numbers = [float("nan")] * len(FIXED)
    window.add(Statistics(*numbers), [Episode(1.0, 9)], 0.5, 0.5)
    progress = {
        "window": window.state(), "next_row": 400, "actor_restarts": 0, "pair": False,
        "bad_in_a_row": 0, "bad_meta_in_a_row": 0,
    }  # fmt: skip
    return json.loads(json.dumps(progress))


def test_saved_progress_is_accepted():
    assert check_progress(_progress(), PATH) is not None
    assert check_progress({}, PATH) == {}
    assert check_progress({"of a later version": [1]}, PATH)


WRONG = [None, -1, 10**400, "x", [], [[]], {}, {"a": "b"}, ["x"], 1e999, True]


@pytest.mark.parametrize(
    "name", [*_progress(), *(f"window.{name}" for name in _progress()["window"])]
)
def test_values_of_a_wrong_type_are_refused_or_harmless(name):
    for value in WRONG:
        progress = _progress()
        target, key = (
            (progress["window"], name[7:]) if name.startswith("window.") else (progress, name)
        )
        target[key] = value
        try:
            checked = check_progress(progress, PATH)
        except UserError as error:
            assert f"frames-1: its progress is damaged ({name}" in str(error)
        else:
            window = MetricsWindow(0, checked.get("window"))
            window.add(Statistics(*[0.0] * len(FIXED)), [], 0.0, 0.0)
            window.row(10, 1, 0.1, checked["actor_restarts"])
            json.dumps(window.state())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, database=None)
@given(st.sampled_from(list(_progress()["window"])), JSON)
def test_an_accepted_window_can_be_used(name, value):
    progress = _progress()
    progress["window"][name] = value
    try:
        checked = check_progress(progress, PATH)
    except UserError:
        return
    window = MetricsWindow(0, checked["window"])
    window.add(Statistics(*[0.0] * len(FIXED)), [], 0.0, 0.0)
    window.row(10, 1, 0.1, 0)


def test_returns_that_are_not_finite_are_left_out_of_the_mean_with_one_line(capsys):
    window = MetricsWindow(0)
    episodes = [Episode(1.0, 9), Episode(float("nan"), 5), Episode(float("inf"), 5)]
    window.add(Statistics(*[0.0] * len(FIXED)), [*episodes, Episode(2.0, 9)], 0.5, 0.5)
    row = window.row(10, 1, 0.1, 0)
    assert (row["episode_return"], row["episodes"], row["episode_frames"]) == (1.5, 4, 7.0)
    assert capsys.readouterr().err.count("left out of episode_return") == 1
    # As an older version saved them.
    older = window.state() | {"returns": [1.0, float("nan"), 4.0]}
    assert MetricsWindow(0, older).episode_return == 2.5


def test_cpu_time_before_the_run_does_not_count():
    before = time.process_time()
    assert MetricsWindow(0).state()["cpu_seconds"] >= before  # of a command, from its start
    window = MetricsWindow(0, {"cpu_seconds": 1000.0}, cpu_start=before)
    assert 1000.0 <= window.state()["cpu_seconds"] <= 1000.0 + time.process_time() - before


def test_other_terms_of_the_meta_objective_are_refused():
    refuse_other_terms({}, PATH, {"mine": 0.5})  # an older version did not say
    refuse_other_terms({"own_meta_weights": {"mine": 0.5}}, PATH, {"mine": 0.5})
    for there, here in (({"mine": 0.5}, {}), ({}, {"mine": 0.5}), ({"mine": 0.5}, {"mine": 1.0})):
        with pytest.raises(UserError, match="frames-1: was trained with the own terms"):
            refuse_other_terms({"own_meta_weights": there}, PATH, here)
