"""Pictures of every dtype and layout, and what is none (ground truth, faults)."""

import numpy as np
import pytest

from meta_impala.environments import UnsupportedEnvironmentError
from meta_impala.evaluation.pictures import Pictures

GREY = np.arange(6).reshape(2, 3) * 51  # 0 to 255
RGB = np.repeat(GREY[:, :, None], 3, axis=2)
RGBA = np.concatenate([RGB, np.full((2, 3, 1), 7)], axis=2)


@pytest.mark.parametrize("values", [GREY, GREY[:, :, None], RGB, RGBA])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_every_layout_and_dtype_is_the_same_picture(values, dtype):
    scale = 255.0 if np.issubdtype(dtype, np.floating) else 1
    rendered = (values / scale if scale > 1 else values).astype(dtype)
    picture = Pictures("X-v0").rgb(rendered)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, RGB)


def test_bools_and_lists_are_pictures_too():
    for rendered in (GREY > 100, (GREY > 100).tolist()):
        np.testing.assert_array_equal(Pictures("X-v0").rgb(rendered), 255 * (RGB > 100))


@pytest.mark.parametrize(
    "rendered",
    [
        None, "text", 5, {}, [], np.zeros(3), np.zeros((2, 3, 5)), np.zeros((1, 2, 3, 3)),
        np.zeros((0, 3, 3)), [np.zeros((2, 2, 3)), np.zeros((3, 2, 3))], object(),
        np.full((2, 3, 3), 1.5), np.full((2, 3, 3), -0.1), np.full((2, 3, 3), np.nan),
        np.full((2, 3, 3), 256), np.full((2, 3, 3), -1), np.full((2, 3, 3), "x"),
        np.full((2, 3, 3), 1j),
    ],
)  # fmt: skip
def test_arrays_that_are_not_pictures_are_refused_in_one_line(rendered):
    with pytest.raises(UnsupportedEnvironmentError, match="X-v0 cannot be recorded") as e:
        Pictures("X-v0").rgb(rendered)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300


def test_pictures_have_one_size():
    pictures = Pictures("X-v0")
    pictures.rgb(RGB)
    pictures.rgb(RGBA)
    with pytest.raises(UnsupportedEnvironmentError, match="3×3 after one of 2×3"):
        pictures.rgb(np.zeros((3, 3, 3), np.uint8))
