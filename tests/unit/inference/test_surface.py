"""The weights of the directions and of the 256 neighbourhoods."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import SphericalVoronoi

from cryomamba_inference.surface import DIRECTIONS, direction_weights, weight_table

voxel_sizes = st.tuples(*[st.floats(min_value=0.2, max_value=4)] * 3)


def test_there_are_thirteen_directions_and_no_two_are_opposite() -> None:
    opposites = {(-x, -y, -z) for x, y, z in DIRECTIONS}

    assert len(set(DIRECTIONS)) == 13
    assert not opposites & set(DIRECTIONS)


def test_cubic_voxels_have_the_published_weights() -> None:
    # Lehmann and Legland 2012, also in ITK and MorphoLibJ: halves, since they count a direction and its opposite.
    published = {1: 0.04577789120476, 2: 0.03698062787608, 3: 0.03519563978232}

    weights = direction_weights((1.348, 1.348, 1.348))

    expected = [2 * published[np.count_nonzero(direction)] for direction in DIRECTIONS]
    assert weights == pytest.approx(expected, abs=1e-12)


@given(voxel_sizes)
def test_weights_are_the_areas_of_scipys_voronoi_cells(voxel_size: tuple[float, float, float]) -> None:
    sites = np.array(DIRECTIONS) * np.array(voxel_size)
    sites /= np.linalg.norm(sites, axis=1, keepdims=True)
    cells = SphericalVoronoi(np.concatenate([sites, -sites]), threshold=1e-9)

    weights = direction_weights(voxel_size)

    assert weights == pytest.approx(cells.calculate_areas()[:13] / (2 * math.pi), abs=1e-9)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


@given(voxel_sizes)
def test_a_neighbourhood_and_its_complement_weigh_the_same(voxel_size: tuple[float, float, float]) -> None:
    table = weight_table(voxel_size)

    assert table == pytest.approx(table[::-1], rel=1e-12)
    assert table[0] == 0
    assert table[255] == 0
    assert (table[1:255] > 0).all()


def test_a_table_scales_with_the_square_of_the_voxel() -> None:
    assert weight_table((3.0, 3.0, 6.0)) == pytest.approx(9 * weight_table((1.0, 1.0, 2.0)), rel=1e-12)


def test_the_bits_of_a_configuration_run_along_x_then_y_then_z() -> None:
    long_in_x = weight_table((10.0, 1.0, 1.0))

    lower_x, lower_y, lower_z = 0b01010101, 0b00110011, 0b00001111
    # A face across X is 1 x 1 nm, the others are 10 x 1 nm.
    assert long_in_x[lower_x] < 0.2 * long_in_x[lower_y]
    assert long_in_x[lower_y] == pytest.approx(long_in_x[lower_z])


@pytest.mark.parametrize("voxel_size", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan), (math.inf, 1.0, 1.0)])
def test_a_voxel_without_an_extent_is_refused(voxel_size: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        weight_table(voxel_size)
