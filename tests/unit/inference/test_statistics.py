"""Counts, volumes and surfaces of labels, against shapes whose area is known."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cryomamba_crds.report import BoundingBox, Measurements
from cryomamba_inference.statistics import LabelStatistics
from cryomamba_inference.surface import DIRECTIONS, direction_weights

Triple = tuple[float, float, float]
Labels = NDArray[np.integer]

CUBIC = (1.348, 1.348, 1.348)
ANISOTROPIC = [(1.0, 1.0, 2.0), (2.0, 1.0, 1.0), (1.0, 1.5, 0.7), (0.8, 0.8, 2.4)]


def measure(volume: Labels, voxel_size: Triple | None = CUBIC, labels: tuple[int, ...] = (1,)) -> Measurements:
    depth, height, width = volume.shape
    statistics = LabelStatistics((depth, height, width), labels, voxel_size)
    statistics.add(volume)
    return statistics.result()


def area(volume: Labels, voxel_size: Triple) -> float:
    return measure(volume, voxel_size).surface_area_nm2["1"]


def ellipsoid(semi_axes: Triple, voxel_size: Triple, shift: Triple = (0.0, 0.0, 0.0)) -> Labels:
    """Voxels [z, y, x] whose middle lies in the ellipsoid; lengths along X, Y, Z in nm, the shift in voxels."""
    along = []
    for semi_axis, length, offset in zip(semi_axes, voxel_size, shift, strict=True):
        half = math.ceil(semi_axis / length) + 2
        along.append((np.arange(-half, half + 1) + offset) * length / semi_axis)
    x, y, z = along
    return (x**2 + y[:, None] ** 2 + z[:, None, None] ** 2 <= 1).astype(np.uint8)


def ellipsoid_area(semi_axes: Triple) -> float:
    """Area in nm2, by the midpoint rule over the angles of the parametrised surface."""
    a, b, c = semi_axes
    polar = (np.arange(400) + 0.5)[:, None] * math.pi / 400
    azimuth = (np.arange(800) + 0.5) * 2 * math.pi / 800
    across = np.stack(
        [
            b * c * np.sin(polar) * np.cos(azimuth),
            a * c * np.sin(polar) * np.sin(azimuth),
            a * b * np.cos(polar) * np.ones_like(azimuth),
        ]
    )
    element = np.sin(polar) * np.linalg.norm(across, axis=0)
    return float(element.sum() * math.pi / 400 * 2 * math.pi / 800)


def sphere_errors(radius_voxels: float, voxel_size: Triple, placements: int) -> NDArray[np.float64]:
    """Relative errors of spheres at random places on the grid; the radius counts voxels along their longest edge."""
    shifts = np.random.default_rng(7).uniform(-0.5, 0.5, (placements, 3))
    radius = radius_voxels * max(voxel_size)
    truth = 4 * math.pi * radius**2
    areas = [area(ellipsoid((radius,) * 3, voxel_size, (x, y, z)), voxel_size) for x, y, z in shifts]
    return np.array(areas) / truth - 1


@pytest.mark.parametrize("voxel_size", [CUBIC, *ANISOTROPIC])
@pytest.mark.parametrize("radius", [8, 10, 12, 16, 20])
def test_the_area_of_every_sphere_from_eight_voxels_on_is_within_two_percent(radius: int, voxel_size: Triple) -> None:
    assert np.abs(sphere_errors(radius, voxel_size, placements=3)).max() <= 0.02


@pytest.mark.parametrize("voxel_size", [CUBIC, *ANISOTROPIC])
@pytest.mark.parametrize("radius", [3, 4, 5, 6, 7])
def test_the_mean_area_of_small_spheres_is_within_four_percent(radius: int, voxel_size: Triple) -> None:
    errors = sphere_errors(radius, voxel_size, placements=24)

    assert abs(errors.mean()) <= 0.04
    # A ball of so few voxels changes its volume by some percent with its place on the grid, and its area too.
    assert np.abs(errors).max() <= 0.06


def test_the_integrated_area_of_a_sphere_is_the_formulas() -> None:
    assert ellipsoid_area((3.0, 3.0, 3.0)) == pytest.approx(36 * math.pi, rel=1e-5)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), CUBIC])
@pytest.mark.parametrize("semi_axes", [(20.0, 15.0, 12.0), (12.0, 12.0, 24.0), (24.0, 24.0, 12.0)])
def test_the_area_of_ellipsoids_is_within_two_percent(semi_axes: Triple, voxel_size: Triple) -> None:
    volume = ellipsoid(semi_axes, voxel_size, (0.2, -0.3, 0.1))

    assert area(volume, voxel_size) == pytest.approx(ellipsoid_area(semi_axes), rel=0.02)


@pytest.mark.parametrize("voxel_size", ANISOTROPIC)
def test_the_area_of_ellipsoids_of_anisotropic_voxels_is_within_five_percent(voxel_size: Triple) -> None:
    semi_axes = (30.0, 22.0, 26.0)
    volume = ellipsoid(semi_axes, voxel_size, (0.2, -0.3, 0.1))

    assert area(volume, voxel_size) == pytest.approx(ellipsoid_area(semi_axes), rel=0.05)


@pytest.mark.parametrize(("edge", "error"), [(10, -0.126), (20, -0.100), (40, -0.087), (80, -0.080)])
def test_a_cube_along_the_grid_has_the_documented_error(edge: int, error: float) -> None:
    cube = np.ones((edge, edge, edge), dtype=np.uint8)

    assert area(cube, (1.0, 1.0, 1.0)) / (6 * edge**2) - 1 == pytest.approx(error, abs=0.0006)


def test_the_area_is_croftons_sum_over_counted_pairs() -> None:
    volume = np.random.default_rng(5).integers(0, 2, (5, 6, 7)).astype(np.uint8)
    voxel_size = (1.1, 0.7, 2.3)
    padded = np.pad(volume, 1)
    expected = 0.0
    for (x, y, z), weight in zip(DIRECTIONS, direction_weights(voxel_size), strict=True):
        pairs = np.count_nonzero(padded != np.roll(padded, (z, y, x), axis=(0, 1, 2)))
        distance = math.hypot(x * voxel_size[0], y * voxel_size[1], z * voxel_size[2])
        expected += 2 * weight * pairs * math.prod(voxel_size) / distance

    assert area(volume, voxel_size) == pytest.approx(expected, rel=1e-12)


@given(
    volume=hnp.arrays(
        np.int16,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.sampled_from([0, 1, 2, 300]),
    ),
    cuts=st.lists(st.integers(1, 5), max_size=5),
    block_voxels=st.integers(1, 80),
)
def test_the_result_does_not_depend_on_how_the_volume_is_cut(
    volume: Labels, cuts: list[int], block_voxels: int
) -> None:
    depth, height, width = volume.shape
    labels = (1, 2, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryomamba_inference.statistics._BLOCK_VOXELS", block_voxels)
        statistics = LabelStatistics((depth, height, width), labels, CUBIC)
        for slab in np.split(volume, sorted({cut for cut in cuts if cut < depth})):
            statistics.add(slab)

    assert statistics.result() == measure(volume, CUBIC, labels)


def test_a_volume_of_many_blocks_measures_as_its_mirror_images_do() -> None:
    # Larger than a block along Y and Z, so that strips and blocks meet inside the volume.
    volume = (np.random.default_rng(3).random((4, 700, 600)) < 0.01).astype(np.uint8)

    expected = measure(volume)

    assert expected.label_counts["1"] == np.count_nonzero(volume)
    for axis in range(3):
        mirrored = measure(np.flip(volume, axis))
        assert mirrored.surface_area_nm2["1"] == pytest.approx(expected.surface_area_nm2["1"], rel=1e-12)


def test_counts_and_volumes_are_those_of_the_voxels() -> None:
    volume = np.zeros((3, 4, 5), dtype=np.int8)
    volume[1, 1:3, 1:4] = 2

    result = measure(volume, (1.0, 2.0, 0.5), labels=(0, 1, 2))

    assert result.label_counts == {"1": 0, "2": 6}
    assert result.physical_volume_nm3 == {"1": 0.0, "2": 6.0}
    assert result.surface_area_nm2["1"] == 0.0
    assert result.surface_area_nm2["2"] > 0


def test_of_an_unknown_voxel_size_nothing_is_told_in_nanometres() -> None:
    result = measure(np.ones((2, 3, 4), dtype=np.uint8), None)

    assert result == Measurements(
        label_counts={"1": 24},
        physical_volume_nm3={},
        surface_area_nm2={},
        component_counts={"1": 1},
        bounding_boxes={"1": BoundingBox(first=(0, 0, 0), last=(3, 2, 1))},
        centroids_voxels={"1": (1.5, 1.0, 0.5)},
        centroids_nm={},
    )


def test_places_are_told_along_x_y_z_and_components_by_label() -> None:
    volume = np.zeros((5, 6, 7), dtype=np.uint8)
    volume[1, 2, 3:5] = 2
    volume[3:5, 5, 6] = 2

    result = measure(volume, (1.0, 2.0, 0.5), labels=(1, 2))

    assert result.component_counts == {"1": 0, "2": 2}
    assert result.bounding_boxes == {"2": BoundingBox(first=(3, 2, 1), last=(6, 5, 4))}
    assert result.centroids_voxels == {"2": (4.75, 3.5, 2.25)}
    assert result.centroids_nm == {"2": (4.75, 7.0, 1.125)}


def test_the_face_between_two_touching_labels_belongs_to_both() -> None:
    both = np.zeros((14, 14, 24), dtype=np.uint8)
    both[2:12, 2:12, 2:12] = 1
    both[2:12, 2:12, 12:22] = 2
    alone = np.where(both == 1, both, 0)

    result = measure(both, (1.0, 1.0, 1.0), labels=(1, 2))

    assert result.surface_area_nm2["1"] == area(alone, (1.0, 1.0, 1.0))
    assert result.surface_area_nm2["2"] == pytest.approx(result.surface_area_nm2["1"], rel=1e-12)


@pytest.mark.parametrize("corner", [(0, 0, 0), (0, 0, 3), (0, 3, 0), (3, 0, 0), (3, 3, 3), (2, 1, 2)])
def test_an_object_at_the_border_is_closed_there(corner: tuple[int, int, int]) -> None:
    z, y, x = corner
    ball = ellipsoid((4.0, 4.0, 4.0), (1.0, 1.0, 1.0))[2:-2, 2:-2, 2:-2]
    volume = np.zeros(tuple(extent + 3 for extent in ball.shape), dtype=np.uint8)
    volume[z : z + ball.shape[0], y : y + ball.shape[1], x : x + ball.shape[2]] = ball

    assert area(volume, CUBIC) == pytest.approx(area(np.pad(ball, 4), CUBIC), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 4), (5, 1, 4), (5, 4, 1)])
def test_a_filled_volume_has_the_surface_of_its_box(shape: tuple[int, int, int]) -> None:
    volume = np.ones(shape, dtype=np.uint8)

    assert area(volume, CUBIC) == pytest.approx(area(np.pad(volume, 2), CUBIC), rel=1e-12)
    assert area(volume, CUBIC) > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
def test_every_dtype_of_labels_measures_the_same(dtype: type[np.integer]) -> None:
    ball = ellipsoid((5.0, 5.0, 5.0), CUBIC)

    assert measure(ball.astype(dtype)) == measure(ball)


def test_labels_beyond_127_are_told_apart() -> None:
    ball = ellipsoid((5.0, 5.0, 5.0), CUBIC).astype(np.int16)

    result = measure(ball * 32767, labels=(127, 255, 32767))

    assert result.label_counts == {"127": 0, "255": 0, "32767": np.count_nonzero(ball)}
    assert result.surface_area_nm2 == {"127": 0.0, "255": 0.0, "32767": area(ball, CUBIC)}


def test_a_number_that_is_no_label_of_the_model_counts_as_outside() -> None:
    ball = ellipsoid((5.0, 5.0, 5.0), CUBIC)

    result = measure(np.where(ball == 1, 1, 9).astype(np.uint8)[2:-2, 2:-2, 2:-2])

    assert result.label_counts == {"1": np.count_nonzero(ball)}
    assert result.surface_area_nm2["1"] == pytest.approx(area(ball, CUBIC), rel=1e-12)


def test_slabs_may_be_read_only_and_are_not_kept() -> None:
    volume = np.array([[[1]], [[0]], [[1]]], dtype=np.uint8)
    volume.setflags(write=False)
    buffer = volume[:1].copy()
    statistics = LabelStatistics((3, 1, 1), (1,), CUBIC)

    statistics.add(buffer)
    buffer[:] = 0
    statistics.add(volume[1:])

    assert statistics.result() == measure(volume)


def test_a_result_before_the_last_plane_is_refused() -> None:
    statistics = LabelStatistics((3, 2, 2), (1,), CUBIC)
    statistics.add(np.zeros((2, 2, 2), dtype=np.uint8))

    with pytest.raises(ValueError, match="2 of 3 planes"):
        statistics.result()


def test_more_planes_than_the_volume_has_are_refused() -> None:
    statistics = LabelStatistics((3, 2, 2), (1,), CUBIC)

    with pytest.raises(ValueError, match="4 planes are too many"):
        statistics.add(np.zeros((4, 2, 2), dtype=np.uint8))


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 3, 2), (2, 2)])
def test_planes_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    statistics = LabelStatistics((3, 2, 2), (1,), CUBIC)

    with pytest.raises(ValueError, match="is no part of a volume"):
        statistics.add(np.zeros(shape, dtype=np.uint8))


def test_intensities_in_place_of_labels_are_refused() -> None:
    statistics = LabelStatistics((3, 2, 2), (1,), CUBIC)

    with pytest.raises(TypeError, match="float32"):
        statistics.add(np.zeros((1, 2, 2), dtype=np.float32))  # type: ignore[arg-type]


def test_a_volume_without_voxels_is_refused() -> None:
    with pytest.raises(ValueError, match="no voxels"):
        LabelStatistics((3, 0, 2), (1,), CUBIC)


def peak_memory(slab: Labels) -> int:
    statistics = LabelStatistics((1000, *slab.shape[1:]), (1, 2, 3), CUBIC)
    tracemalloc.start()
    statistics.add(slab)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_is_ten_bytes_a_voxel_of_a_plane_and_twenty_megabytes() -> None:
    slab = np.zeros((4, 1024, 1024), dtype=np.uint8)
    slab[1:, 100:400, 200:800] = 1
    slab[:, 500:900, 200:800] = 2

    assert peak_memory(slab) <= 10 * slab[0].size + 20e6
    assert peak_memory(np.zeros((1, 2048, 2048), dtype=np.uint8)) <= 10 * 2048**2 + 20e6


@pytest.mark.parametrize("filled", [0.1, 0.75])
def test_memory_for_noise_is_a_hundred_megabytes_more(filled: float) -> None:
    rng = np.random.default_rng(1)
    shape = (6, 1024, 1024)
    slab = np.where(rng.random(shape) < filled, rng.integers(1, 4, shape), 0).astype(np.uint8)

    assert peak_memory(slab) <= 10 * slab[0].size + 120e6
