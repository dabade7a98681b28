"""Components from slabs, against those of cc3d in the whole volume."""

from dataclasses import fields

import cc3d
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from cryomamba_inference.components import ComponentFinder, ComponentTable

Labels = NDArray[np.integer]
LABELS = (1, 2, 300)


def find(volume: Labels, thicknesses: list[int], labels: tuple[int, ...] = LABELS) -> ComponentTable:
    """Components of a volume cut into slabs of these thicknesses, over and over."""
    tables = [ComponentTable.blank(0)]
    depth, height, width = volume.shape
    finder = ComponentFinder((depth, height, width), labels, tables.append)
    start, turn = 0, 0
    while start < depth:
        stop = min(depth, start + thicknesses[turn % len(thicknesses)])
        finder.add(volume[start:stop])
        start, turn = stop, turn + 1
    return ComponentTable(
        **{field.name: np.concatenate([getattr(table, field.name) for table in tables]) for field in fields(tables[0])}
    )


def of_the_whole(volume: Labels, labels: tuple[int, ...] = LABELS) -> list[tuple[object, ...]]:
    """What cc3d finds, measured voxel by voxel; in the order of the last voxels."""
    numbers = cc3d.connected_components(np.where(np.isin(volume, labels), volume, 0), connectivity=26)
    found = []
    for number in range(1, int(numbers.max()) + 1):
        z, y, x = places = np.nonzero(numbers == number)
        last_voxel = int(np.ravel_multi_index(places, volume.shape).max())
        low, high = [(int(edge(x)), int(edge(y)), int(edge(z))) for edge in (np.min, np.max)]
        total = (int(x.sum()), int(y.sum()), int(z.sum()))
        found.append((last_voxel, int(volume[places][0]), len(x), total, low, high))
    return sorted(found)


def rows(table: ComponentTable) -> list[tuple[object, ...]]:
    return [
        (last_voxel, label, voxels, tuple(total), tuple(low), tuple(high))
        for last_voxel, label, voxels, total, low, high in zip(
            table.last_voxel.tolist(),
            table.label.tolist(),
            table.voxels.tolist(),
            table.index_sum.tolist(),
            table.first.tolist(),
            table.last.tolist(),
            strict=True,
        )
    ]


def cup(depth: int) -> Labels:
    """Two walls [z, y, x] that meet in the last plane only, and two that part after the first."""
    volume = np.zeros((depth, 3, 9), np.uint8)
    volume[:, 1, [0, 3]] = 1
    volume[-1, 1, 0:4] = 1
    volume[:, 1, [5, 8]] = 1
    volume[0, 1, 5:9] = 1
    return volume


def spiral() -> Labels:
    """A coil around Z, one turn in eight planes and two voxels wide, with another of label 2 between its turns."""
    volume = np.zeros((40, 15, 15), np.uint8)
    for step in range(40 * 16):
        z, angle = step / 16, 2 * np.pi * step / 128
        for label, turned in ((1, 0.0), (2, np.pi)):
            y, x = 7 + 6 * np.sin(angle + turned), 7 + 6 * np.cos(angle + turned)
            volume[int(z), round(y), round(x)] = label
    return volume


def comb() -> Labels:
    """Sixty teeth of two labels that meet in bars of their own at the end, plane by plane."""
    volume = np.zeros((12, 5, 121), np.uint8)
    volume[:9, 1, 1::4] = 1
    volume[:10, 3, 3::4] = 2
    volume[9, 1, :] = 1
    volume[10, 3, :] = 2
    return volume


@given(
    volume=hnp.arrays(
        st.sampled_from([np.uint8, np.int16]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=7),
        elements=st.sampled_from([0, 0, 1, 2, 3]),
    ),
    thicknesses=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    block_voxels=st.integers(1, 150),
    strip_voxels=st.integers(1, 60),
)
def test_components_are_those_of_cc3d_in_the_whole_volume(
    volume: Labels, thicknesses: list[int], block_voxels: int, strip_voxels: int
) -> None:
    if volume.dtype == np.int16:
        volume = np.where(volume == 2, 300, volume).astype(np.int16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryomamba_inference.components._BLOCK_VOXELS", block_voxels)
        patch.setattr("cryomamba_inference.components._STRIP_VOXELS", strip_voxels)
        found = find(volume, thicknesses)

    assert rows(found) == of_the_whole(volume)


@pytest.mark.parametrize("filled", [0.03, 0.08, 0.12, 0.3])
@pytest.mark.parametrize("thicknesses", [[1], [2, 1, 5], [7], [100]])
def test_noise_near_the_threshold_of_percolation_is_as_in_the_whole_volume(
    filled: float, thicknesses: list[int]
) -> None:
    # With 26 neighbours a tenth of the voxels is about where pieces become one that reaches through everything.
    rng = np.random.default_rng(int(filled * 100))
    volume = np.where(rng.random((24, 20, 22)) < filled, rng.integers(1, 3, (24, 20, 22)), 0).astype(np.uint8)

    assert rows(find(volume, thicknesses)) == of_the_whole(volume)


@pytest.mark.parametrize("volume", [cup(6), spiral(), comb()], ids=["cup", "spiral", "comb"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)], ids=["z", "y", "x"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_meets_late_or_winds_through_all_slabs_is_one(
    volume: Labels, axes: tuple[int, int, int], *, turned: bool
) -> None:
    volume = np.ascontiguousarray(np.transpose(volume[::-1] if turned else volume, axes))

    expected = of_the_whole(volume)

    assert len(expected) <= 2
    for thicknesses in ([1], [2], [3, 1], [100]):
        assert rows(find(volume, thicknesses)) == expected


def test_labels_that_touch_are_components_on_their_own() -> None:
    volume = np.ones((4, 4, 4), np.uint8)
    volume[1:3, 1:3, 1:3] = 2

    found = find(volume, [1])

    assert found.label.tolist() == [2, 1]
    assert found.voxels.tolist() == [8, 56]


@pytest.mark.parametrize("step", [(1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1), (1, -1, 0), (1, 1, -1), (1, -1, -1)])
def test_a_corner_is_enough_to_be_one_across_two_slabs(step: tuple[int, int, int]) -> None:
    volume = np.zeros((2, 3, 3), np.uint8)
    volume[0, 1, 1] = 1
    volume[step[0], 1 + step[1], 1 + step[2]] = 1

    assert find(volume, [1]).voxels.tolist() == [2]


@pytest.mark.parametrize("height", [255, 256, 257, 512])
def test_two_plates_that_touch_in_many_rows_are_one(height: int) -> None:
    volume = np.ones((2, height, 3), np.uint8)

    assert find(volume, [1]).voxels.tolist() == [volume.size]


def test_a_plane_between_two_voxels_parts_them() -> None:
    volume = np.zeros((3, 1, 1), np.uint8)
    volume[[0, 2]] = 1

    assert rows(find(volume, [1])) == [
        (0, 1, 1, (0, 0, 0), (0, 0, 0), (0, 0, 0)),
        (2, 1, 1, (0, 0, 2), (0, 0, 2), (0, 0, 2)),
    ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 7), (7, 1, 1), (1, 7, 1)])
def test_volumes_one_voxel_thick_are_measured(shape: tuple[int, int, int]) -> None:
    volume = np.random.default_rng(4).integers(0, 3, shape).astype(np.uint8)
    volume[-1, -1, -1] = 1

    assert rows(find(volume, [1])) == of_the_whole(volume)
    assert rows(find(volume, [9])) == of_the_whole(volume)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
def test_every_dtype_of_labels_gives_the_same(dtype: type[np.integer]) -> None:
    volume = np.random.default_rng(6).integers(0, 3, (6, 7, 8))

    assert rows(find(volume.astype(dtype), [2])) == of_the_whole(volume.astype(np.uint8))


def test_a_number_that_is_no_label_of_the_model_is_no_component() -> None:
    volume = np.array([[[1, 9, 1]], [[9, 9, 9]], [[1, 9, 9]]], np.uint8)

    assert find(volume, [1], (1,)).voxels.tolist() == [1, 1, 1]


def test_a_component_is_handed_on_as_soon_as_a_plane_lies_between() -> None:
    volume = np.zeros((6, 2, 2), np.uint8)
    volume[1], volume[3] = 1, 1
    tables: list[ComponentTable] = []
    finder = ComponentFinder((6, 2, 2), (1,), tables.append)

    seen = []
    for plane in range(6):
        finder.add(volume[plane : plane + 1])
        seen.append(sum(map(len, tables)))

    assert seen == [0, 0, 1, 1, 2, 2]


def test_sums_of_indices_beyond_what_float32_and_int32_hold_are_exact() -> None:
    volume = np.ones((3, 1200, 1200), np.uint8)

    (row,) = rows(find(volume, [2]))

    total = 3 * 1200 * 1199 * 1200 // 2
    assert row == (volume.size - 1, 1, volume.size, (total, total, volume.size), (0, 0, 0), (1199, 1199, 2))
