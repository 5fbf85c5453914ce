"""A frame of `watch`: ground truth (lengths of bars counted in pixels), any numbers."""

import numpy as np
import pytest

from meta_impala.evaluation.live_drawing import Caption, LiveDrawing, enlarged
from meta_impala.evaluation.live_game import LiveStep

BAR, CHOSEN = (86, 180, 233), (230, 159, 0)
CAPTION = Caption("Catch", "after 10 frames, 1 updates")


def _step(policy, action=0, value=0.5, gamma=0.25, lambda_=0.5, size=(100, 50)):
    picture = np.zeros((*size, 3), np.uint8)
    return LiveStep(picture, value, policy, action, gamma, lambda_, 1.0, 7)


def _lengths(frame, colour):
    """Lengths of the runs of a colour in the middle of each bar, from the top down."""
    pixels = (np.asarray(frame) == colour).all(axis=2)
    counts = pixels.sum(axis=1)
    starts = np.flatnonzero((counts[1:] > 0) & (counts[:-1] == 0)) + 1
    return [int(counts[start + 2]) for start in starts]


def test_the_bars_are_as_long_as_the_numbers():
    frame = LiveDrawing().draw(_step(np.array([0.125, 0.375, 0.5]), 1, value=None), CAPTION)
    gamma, lambda_, first, last = _lengths(frame, BAR)
    (chosen,) = _lengths(frame, CHOSEN)
    whole = 2 * lambda_
    for length, share in ((gamma, 0.25), (first, 0.125), (chosen, 0.375), (last, 0.5)):
        assert length == pytest.approx(share * whole, abs=2)


@pytest.mark.parametrize("num_actions", [1, 2, 18, 24, 25, 400])
def test_any_number_of_actions_fits(num_actions):
    policy = np.full(num_actions, 1.0 / num_actions)
    drawing = LiveDrawing()
    frame = drawing.draw(_step(policy), CAPTION)
    # The frame that ends the game has the same size, or a window would jump.
    assert drawing.draw(_step(None, None, None), CAPTION).size == frame.size
    assert frame.height < 800


@pytest.mark.parametrize("value", [0.0, -3.0, 1e30, float("nan"), float("inf"), None])
@pytest.mark.parametrize("discount", [0.0, 1.0, 0.5, 1.0 - 1e-9, float("nan")])
def test_any_value_and_discount_can_be_drawn(value, discount):
    drawing = LiveDrawing()
    for _ in range(3):
        drawing.draw(_step(np.array([1.0, 0.0]), 0, value, discount, discount), CAPTION)


def test_the_newest_values_are_a_curve_that_is_broken_where_a_game_ended():
    drawing = LiveDrawing()
    for index in range(400):
        end = index % 50 == 49
        step = _step(np.array([1.0]), 0, None if end else 1.0, gamma=0.0, lambda_=0.0)
        frame = drawing.draw(step, CAPTION)
    curve = (np.asarray(frame) == BAR).all(axis=2).sum(axis=1).max()
    # 380 pixels, less the two steps to and from each of four ends.
    assert curve == pytest.approx(380 * (1 - 8 / 199), abs=8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 10), (440, 440)), ((210, 160), (420, 320)), ((1, 400), (2, 800)), ((3000, 2000), None)],
)
def test_pictures_are_enlarged_by_whole_factors_and_large_ones_shrunk(size, expected):
    picture = enlarged(np.zeros((*size, 3), np.uint8))
    if expected is None:
        assert max(picture.size) == 960
    else:
        assert (picture.height, picture.width) == expected
