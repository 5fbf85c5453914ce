"""Which axes of an observation are height, width and channels (a table, and its symmetry)."""

import itertools

import pytest

from meta_impala.config.image_layout import image_shape, is_channels_first


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((4, 84, 84), True),
        ((84, 84, 4), False),
        ((84, 84, 1), False),
        ((1, 84, 84), True),
        ((8, 8, 20), False),  # more planes than width
        ((20, 8, 8), True),
        ((210, 160, 3), False),
        ((3, 210, 160), True),
        ((6, 8, 20), False),  # likewise, and no square
        ((9, 7, 12), False),
        ((10, 5, 4), False),
        ((8, 8, 8), False),
        ((8, 5, 8), False),
        ((84, 84), False),
        ((4, 4, 84, 84), False),
    ],
)
def test_channels_first_is_recognised(shape, first):
    assert is_channels_first(shape) == first


def test_square_images_are_understood_in_both_layouts_whatever_the_number_of_planes():
    for side, planes in itertools.product(range(1, 30), repeat=2):
        if side != planes:
            assert image_shape((side, side, planes)) == (side, side, planes)
            assert image_shape((planes, side, side)) == (side, side, planes)
            assert image_shape((5, planes, side, side)) == (side, side, 5 * planes)
            assert image_shape((5, side, side, planes)) == (side, side, 5 * planes)


def test_other_images_have_few_planes_for_their_size():
    for height, width, planes in itertools.product(range(9, 40), range(9, 40), range(1, 5)):
        if height != width and max(height, width) < 2 * min(height, width):
            assert image_shape((height, width, planes)) == (height, width, planes)
            assert image_shape((planes, height, width)) == (height, width, planes)


def test_a_grey_image_has_one_plane_and_other_shapes_are_not_images():
    assert image_shape((10, 5)) == (10, 5, 1)
    for shape in ((), (4,), (2, 2, 2, 2, 2)):
        assert image_shape(shape) is None
