"""The table of objects, read back as programs and spreadsheets do."""

import csv
import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from cryomamba_inference.components import ComponentFinder
from cryomamba_inference.objects import COLUMNS, ObjectWriter, as_text

Size = tuple[float, float, float]


def write(volume: NDArray[np.integer], voxel_size: Size | None, names: dict[int, str], cuts: Sequence[int] = ()) -> str:
    """The file for a volume [z, y, x], handed over in slabs cut before these planes."""
    file = io.StringIO(newline="")
    depth, height, width = volume.shape
    writer = ObjectWriter(file, names, (depth, height, width), voxel_size)
    finder = ComponentFinder((depth, height, width), list(names), writer.write)
    for slab in np.split(volume, cuts):
        finder.add(slab)
    return file.getvalue()


@pytest.fixture
def volume() -> NDArray[np.uint8]:
    """Label 1 in three pieces, label 2 in one; one piece ends before it began to be the second of its label."""
    volume = np.zeros((6, 7, 8), np.uint8)
    volume[1:5, 1, 1] = 1
    volume[2, 3:5, 3:7] = 1
    volume[3, 6, 7] = 1
    volume[2:4, 5:7, 2] = 2
    return volume


def test_each_component_is_a_row_with_units_in_the_header(volume: NDArray[np.uint8]) -> None:
    text = write(volume, (1.0, 2.0, 0.5), {1: "membrane", 2: "particle"})

    assert text == (
        "label,name,component,volume_voxels,volume_nm3,"
        "centroid_x_voxels,centroid_y_voxels,centroid_z_voxels,centroid_x_nm,centroid_y_nm,centroid_z_nm,"
        "first_x_voxel,first_y_voxel,first_z_voxel,last_x_voxel,last_y_voxel,last_z_voxel,touches_border\r\n"
        "1,membrane,1,8,8.0,4.5,3.5,2.0,4.5,7.0,1.0,3,3,2,6,4,2,false\r\n"
        "2,particle,1,4,4.0,2.0,5.5,2.5,2.0,11.0,1.25,2,5,2,2,6,3,true\r\n"
        "1,membrane,2,1,1.0,7.0,6.0,3.0,7.0,12.0,1.5,7,6,3,7,6,3,true\r\n"
        "1,membrane,3,4,4.0,1.0,1.0,2.5,1.0,2.0,1.25,1,1,1,1,1,4,false\r\n"
    )


def test_of_an_unknown_voxel_size_what_is_in_nanometres_is_empty(volume: NDArray[np.uint8]) -> None:
    rows = list(csv.DictReader(io.StringIO(write(volume, None, {1: "membrane", 2: "particle"}), newline="")))

    assert len(rows) == 4
    for row in rows:
        assert [name for name, value in row.items() if not value] == [name for name in COLUMNS if "nm" in name[-3:]]


def test_the_bytes_do_not_depend_on_how_the_volume_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    volume = np.where(rng.random((15, 16, 17)) < 0.1, rng.integers(1, 4, (15, 16, 17)), 0).astype(np.uint8)
    names = {1: "a", 2: "b", 3: "c"}
    expected = write(volume, (1.348, 1.348, 2.1), names)

    monkeypatch.setattr("cryomamba_inference.objects._ROWS", 7)
    for number in range(1, 15):
        cuts = np.sort(rng.choice(np.arange(1, 15), number, replace=False)).tolist()
        assert write(volume, (1.348, 1.348, 2.1), names, cuts) == expected
    assert len(expected.splitlines()) > 100


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("place", [0, -1])
def test_a_voxel_on_any_face_of_the_volume_touches_the_border(axis: int, place: int) -> None:
    volume = np.zeros((5, 6, 7), np.uint8)
    middle = [2, 3, 3]
    volume[tuple(middle)] = 1
    middle[axis] = place
    volume[tuple(middle)] = 2

    rows = csv.DictReader(io.StringIO(write(volume, None, {1: "in", 2: "out"}), newline=""))

    assert {row["name"]: row["touches_border"] for row in rows} == {"in": "false", "out": "true"}


@pytest.mark.parametrize(
    "name", ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "\uff201"]
)
def test_a_name_that_a_spreadsheet_would_run_gets_an_apostrophe(name: str) -> None:
    text = write(np.ones((1, 1, 1), np.uint8), None, {1: name})

    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["name"] == f"'{name}"


@pytest.mark.parametrize("name", ["membrane", "a, b", 'the "outer" one', "Hülle", "two\r\nlines", "a=b", "'quoted"])
def test_every_other_name_comes_back_as_it_is(name: str) -> None:
    text = write(np.ones((1, 1, 1), np.uint8), None, {1: name})

    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert as_text(name) == name
    assert row["name"] == name
    assert all(len(line) > 1 for line in csv.reader(io.StringIO(text, newline="")))


def test_a_volume_of_background_has_a_header_alone() -> None:
    assert write(np.zeros((2, 2, 2), np.uint8), None, {1: "membrane"}) == ",".join(COLUMNS) + "\r\n"
