"""The environment that is watched, and pictures of observations: ground truth, equivalence."""

import sys

import gymnasium
import numpy as np
import pytest
from support import zoo

from meta_impala.environments import UnsupportedEnvironmentError, registry
from meta_impala.evaluation.video import RecordedEnvironment
from meta_impala.evaluation.watched_environment import (
    DrawnEnvironment,
    make_watched,
    picture_of,
)

zoo.register()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((10, 5), (10, 5)),
        ((84, 84, 1), (84, 84)),
        ((4, 84, 84), (84, 4 * 84 + 3)),
        ((10, 10, 4), (10, 43)),
        ((210, 160, 3), (210, 160)),
        ((3, 210, 160), (210, 160)),
        ((2, 64, 64, 3), (64, 6 * 64 + 5)),
        ((7,), (1, 7)),
        ((), (1, 1)),
        ((2, 2, 2, 2, 2), (1, 32)),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_every_layout_is_a_picture(shape, size, kind):
    random = np.random.default_rng(0)
    observation = random.integers(0, 256, shape).astype(kind)
    picture = picture_of(observation if kind == np.uint8 else observation / kind(255.0))
    assert picture.shape == (*size, 3) and picture.dtype == np.uint8
    if len(shape) == 3 and 3 not in shape:
        planes = observation if shape[1] == shape[2] else np.moveaxis(observation, 2, 0)
        side = planes.shape[2]
        for index, plane in enumerate(planes):
            left = index * (side + 1)
            np.testing.assert_array_equal(picture[:, left : left + side, 1], plane)


def test_an_image_in_colour_is_shown_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    np.testing.assert_array_equal(picture_of(image), image)
    np.testing.assert_array_equal(picture_of(image / np.float32(255.0)), image)


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [0.0, np.inf], [-3.0, -3.0], [1e30, -1e30]])
def test_values_that_are_not_finite_can_be_drawn(bad):
    assert picture_of(np.array(bad, np.float32)).shape == (1, 2, 3)


def test_environments_without_rendering_are_drawn():
    shown = make_watched("Catch", "impala", 1)
    assert isinstance(shown, RecordedEnvironment)
    assert shown.action_meanings() == ["left", "stay", "right"]
    shown.close()
    drawn = make_watched("zoo/Plain-v0", "impala", 1)
    assert isinstance(drawn, DrawnEnvironment) and drawn.action_meanings() == []
    drawn.close()


def test_atari_is_shown_in_colour_with_named_actions_without_opencv(monkeypatch):
    # None in sys.modules makes the import fail, as if the package were not there.
    monkeypatch.setitem(sys.modules, "cv2", None)
    shown = make_watched("Pong", "impala", seed=0)
    pictures = []
    shown.on_picture = pictures.append
    shown.reset(0)
    shown.step(np.array([1]))
    assert [picture.shape for picture in pictures] == [(210, 160, 3)] * 2
    assert shown.action_meanings()[:2] == ["NOOP", "FIRE"]
    shown.close()


@pytest.mark.parametrize("name", ["Catch", "Patience", "zoo/Plain-v0"])
def test_a_drawn_environment_is_the_environment(name):
    drawn, single = DrawnEnvironment(name, "impala"), registry.make(name, 1, "impala")
    pictures = []
    drawn.on_picture = pictures.append
    np.testing.assert_array_equal(drawn.reset(5), single.reset(5))
    for _ in range(30):
        ours, theirs = drawn.step(np.array([1])), single.step(np.array([1]))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
        last = ours.observations if ours.final_observations is None else ours.final_observations
        np.testing.assert_array_equal(pictures[-1], picture_of(last[0]))
    assert len(pictures) == 31
    drawn.close()
    single.close()


class _Shown(zoo.Base):
    """Its picture grows by a row with every step."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode

    def render(self):
        return np.full((8 + self.t, 8, 3), 100, np.uint8)


def test_pictures_of_growing_size_can_be_watched_but_not_recorded():
    gymnasium.register("support/Growing-v0", entry_point=_Shown)
    watched = make_watched("support/Growing-v0", "impala", 1)
    assert isinstance(watched, RecordedEnvironment)
    pictures = []
    watched.on_picture = pictures.append
    watched.reset(seed=0)
    watched.step(np.array([0]))
    assert [picture.shape for picture in pictures] == [(8, 8, 3), (9, 8, 3)]
    watched.close()
    recorded = RecordedEnvironment("support/Growing-v0", "impala", 1)
    recorded.reset(seed=0)
    with pytest.raises(UnsupportedEnvironmentError, match="9×8 after one of 8×8, must be alike"):
        recorded.step(np.array([0]))
    recorded.close()


@pytest.mark.parametrize(
    ("render_fps", "speed"),
    [
        (15, 15.0), (np.float32(0.5), 0.5), ("25", 25.0), ("fast", 30.0), (None, 30.0), (0, 30.0),
        (-5, 30.0), (float("nan"), 30.0), (float("inf"), 30.0), ([30], 30.0),
        pytest.param(10**400, 30.0, id="beyond float"),
    ],
)  # fmt: skip
def test_a_speed_that_is_none_is_the_default(render_fps, speed):
    name = f"support/Speed{len(gymnasium.registry)}-v0"
    metadata = _Shown.metadata | {"render_fps": render_fps}
    gymnasium.register(name, entry_point=type("Speed", (_Shown,), {"metadata": metadata}))
    for environment in (make_watched(name, "impala", 1), RecordedEnvironment(name, "impala", 1)):
        assert environment.frames_per_second == speed
        environment.close()
