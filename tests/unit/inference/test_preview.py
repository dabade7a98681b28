"""The pictures that a runner sends on the way."""

import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cryomamba_inference.preview import preview_geometry, render_preview, source_slice

COLOURS = {1: "#ff0000", 2: "#0000ff"}


def decode(png: bytes) -> NDArray[np.uint8]:
    """RGB [y, x, 3]."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        return np.asarray(image)


def test_a_picture_has_the_size_of_the_downsampled_plane() -> None:
    plane = np.random.default_rng(0).normal(size=(41, 62)).astype(np.float32)

    picture = decode(render_preview(plane, None, COLOURS, 4))

    assert picture.shape == (10, 15, 3)


def test_a_plane_without_labels_is_grey() -> None:
    plane = np.random.default_rng(0).normal(size=(40, 40))

    picture = decode(render_preview(plane, None, COLOURS, 2))

    assert (picture == picture[:, :, :1]).all()
    assert picture.min() == 0
    assert picture.max() == 255


def test_a_pixel_is_the_mean_of_its_block() -> None:
    # Blocks of mean 0, 50, 100; the percentiles lie half a percent inside.
    plane = np.array([[0, 0, 40, 60, 90, 110], [0, 0, 50, 50, 100, 100]], dtype=np.float32)

    picture = decode(render_preview(plane, None, {}, 2))

    assert picture[0, :, 0].tolist() == [0, 128, 255]


def test_the_first_row_of_the_plane_is_the_upper_one_of_the_picture() -> None:
    plane = np.zeros((4, 4))
    plane[0] = 1

    picture = decode(render_preview(plane, None, {}, 1))

    assert picture[0, 0, 0] == 255
    assert picture[3, 0, 0] == 0


def test_a_few_hot_pixels_do_not_take_the_contrast() -> None:
    plane = np.tile(np.linspace(0, 1, 100), (100, 1))
    plane[0, 0] = 1e6
    plane[0, 1] = -1e6

    picture = decode(render_preview(plane, None, {}, 1))

    assert 60 < picture[50, 25, 0] < 68
    assert 187 < picture[50, 75, 0] < 195


def test_labels_are_in_their_colours_over_the_grey() -> None:
    plane = np.zeros((8, 8))
    labels = np.zeros((8, 8), dtype=np.uint8)
    labels[:4, :4] = 1
    labels[4:, 4:] = 2

    picture = decode(render_preview(plane, labels, COLOURS, 2))

    # Mid-grey under 45 % of the colour.
    assert picture[0, 0].tolist() == [185, 70, 70]
    assert picture[3, 3].tolist() == [70, 70, 185]
    assert picture[0, 3].tolist() == [128, 128, 128]


def test_labels_and_grey_show_the_same_place() -> None:
    plane = np.zeros((40, 60))
    plane[12:16, 48:52] = 1
    labels = (plane == 1).astype(np.uint8)

    picture = decode(render_preview(plane, labels, COLOURS, 4)).astype(int)

    coloured = np.argwhere(picture[:, :, 0] > picture[:, :, 1])
    assert coloured.tolist() == [[3, 12]]
    assert picture[3, 12].tolist() == [255, 140, 140]


def test_background_and_labels_without_a_colour_stay_grey() -> None:
    labels = np.array([[0, 3]], dtype=np.uint8)

    picture = decode(render_preview(np.zeros((1, 2)), labels, {0: "#00ff00", 1: "#ff0000"}, 1))

    assert picture.tolist() == [[[128, 128, 128], [128, 128, 128]]]


def test_labels_beyond_255_are_drawn() -> None:
    labels = np.array([[300, 44]], dtype=np.int16)

    picture = decode(render_preview(np.zeros((1, 2)), labels, {300: "#ff0000"}, 1))

    assert picture[0].tolist() == [[185, 70, 70], [128, 128, 128]]


@pytest.mark.parametrize("value", [0, 7, -3.5])
def test_a_constant_plane_is_mid_grey(value: float) -> None:
    picture = decode(render_preview(np.full((6, 6), value), None, {}, 2))

    assert (picture == 128).all()


def test_voxels_that_are_not_finite_are_left_out_of_mean_and_contrast() -> None:
    plane = np.array([[0, np.nan, 4, np.inf, np.nan, -np.inf], [0, 0, 4, 4, np.nan, np.inf]], dtype=np.float16)

    picture = decode(render_preview(plane, None, {}, 2))

    assert picture[0, :, 0].tolist() == [0, 255, 0]


def test_a_plane_without_a_finite_value_is_black() -> None:
    assert not decode(render_preview(np.full((4, 4), np.nan), None, {}, 1)).any()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.float16, np.float32, np.float64])
def test_every_dtype_draws_the_same_picture_without_overflow(dtype: type[np.number]) -> None:
    plane = np.linspace(0, 127, 64).round().reshape(8, 8)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = decode(render_preview(plane.astype(dtype), None, {}, 2))

    assert (picture == decode(render_preview(plane, None, {}, 2))).all()


def test_large_values_of_half_precision_do_not_overflow() -> None:
    plane = np.full((64, 64), 60000, dtype=np.float16)
    plane[:, 32:] = -60000

    picture = decode(render_preview(plane, None, {}, 32))

    assert picture[:, :, 0].tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 3)])
def test_a_plane_smaller_than_a_block_is_one_pixel_thick(shape: tuple[int, int]) -> None:
    plane = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    labels = np.ones(shape, dtype=np.uint8)

    picture = decode(render_preview(plane, labels, COLOURS, 16))

    assert picture.shape == (max(1, shape[0] // 16), max(1, shape[1] // 16), 3)
    assert (picture[:, :, 0] > picture[:, :, 1]).all()


def test_the_geometry_is_that_of_the_api_references_example() -> None:
    assert preview_geometry((512, 512, 300), 4) == ((128, 128, 75), 37)
    assert source_slice((512, 512, 300), 4) == 150


def test_what_is_left_over_at_the_end_of_an_axis_is_dropped() -> None:
    assert preview_geometry((7, 8, 9), 4) == ((1, 2, 2), 1)
    assert source_slice((7, 8, 9), 4) == 6


def test_a_thin_volume_keeps_one_plane() -> None:
    assert preview_geometry((100, 100, 1), 8) == ((12, 12, 1), 0)
    assert source_slice((100, 100, 1), 8) == 0
    assert source_slice((100, 100, 5), 8) == 2


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 64))
def test_picture_geometry_and_source_slice_agree(shape: tuple[int, int, int], scale: int) -> None:
    (x, y, z), slice_idx = preview_geometry(shape, scale)
    source = source_slice(shape, scale)

    picture = decode(render_preview(np.zeros((shape[1], shape[0])), None, {}, scale))

    assert picture.shape == (y, x, 3)
    assert 0 <= slice_idx < z
    assert 0 <= source < shape[2]
    assert source // scale == slice_idx


@pytest.mark.parametrize("scale", [0, -2])
def test_a_scale_below_one_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="cannot be downsampled"):
        preview_geometry((4, 4, 4), scale)
    with pytest.raises(ValueError, match="cannot be downsampled"):
        render_preview(np.zeros((4, 4)), None, {}, scale)


def test_a_plane_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a plane"):
        render_preview(np.zeros((2, 2, 2)), None, {}, 1)
    with pytest.raises(ValueError, match="needs a plane"):
        render_preview(np.zeros((0, 2)), None, {}, 1)


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="do not lie on"):
        render_preview(np.zeros((2, 2)), np.zeros((2, 3), dtype=np.uint8), COLOURS, 1)


@pytest.mark.parametrize("colour", ["red", "#12345", "#1234567", "1234567"])
def test_a_colour_in_another_notation_is_refused(colour: str) -> None:
    with pytest.raises(ValueError, match="#rrggbb"):
        render_preview(np.zeros((2, 2)), np.ones((2, 2), dtype=np.uint8), {1: colour}, 1)
