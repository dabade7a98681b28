"""The overview picture, pixel by pixel where it matters."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image

from cryomamba.errors import CryoMambaError
from cryomamba.overview import draw_overview, enlarged_labels, scale_bar, stretched, tinted, write_overview
from cryomamba.planes import middle_plane
from cryomamba_crds.report import LabelLegend

LEGEND = {
    "0": LabelLegend(name="background", colour="#00ff00"),
    "1": LabelLegend(name="membrane", colour="#ff0000"),
    "2": LabelLegend(name="absent here", colour="#0000ff"),
}
RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


@pytest.mark.parametrize(
    ("extent_nm", "pixels", "expected_nm", "expected_pixels"),
    [(172.5, 620, 50, 180), (100, 600, 20, 120), (20, 620, 5, 155), (1.0, 500, 0.2, 100), (6000, 600, 1000, 100)],
)
def test_a_scale_bar_has_a_round_length(
    extent_nm: float, pixels: int, expected_nm: float, expected_pixels: int
) -> None:
    bar = scale_bar(extent_nm, pixels)

    assert bar.nanometres == pytest.approx(expected_nm)
    assert bar.pixels == expected_pixels


def test_a_scale_bar_says_its_length_without_rounding_errors() -> None:
    assert scale_bar(172.5, 620).text == "50 nm"
    assert scale_bar(1.0, 500).text == "0.2 nm"


def test_contrast_is_stretched_between_percentiles() -> None:
    values = np.linspace(-3, 3, 1001).reshape(7, 143)

    grey = stretched(values)

    assert (grey.min(), grey.max()) == (0, 255)
    assert grey[3, 71] in (127, 128)


def test_a_flat_slice_is_mid_grey_and_nan_does_no_harm() -> None:
    assert np.unique(stretched(np.full((4, 4), 7.0))).tolist() == [128]
    assert stretched(np.array([[np.nan, 1.0], [np.inf, 2.0]])).shape == (2, 2)


def test_enlarged_labels_keep_their_place_and_get_no_new_numbers() -> None:
    labels = np.zeros((4, 4), np.int16)
    labels[:2, :2], labels[2:, 2:] = 3, 300

    large = enlarged_labels(labels, (40, 40))

    assert np.unique(large).tolist() == [0, 3, 300]
    assert (large[5, 5], large[35, 35], large[5, 35]) == (3, 300, 0)


def test_a_label_has_a_solid_outline_and_lets_the_grey_through_inside() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1

    picture = tinted(np.full((20, 20), 100, np.uint8), labels, {1: RED})

    assert tuple(picture[5, 9]) == RED
    assert tuple(picture[0, 0]) == (100, 100, 100)
    red, green, _ = picture[10, 10]
    assert 100 < red < 255
    assert 0 < green < 100


def written(path: Path, voxels: np.ndarray, voxel_angstrom: float = 0.0) -> Path:
    with mrcfile.new(path, voxels) as file:
        file.voxel_size = voxel_angstrom
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A ramp along X of 3 x 20 x 40 voxels, and label 1 on the left half of the middle slice only."""
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (3, 20, 40)).copy()
    labels = np.zeros((3, 20, 40), np.int8)
    labels[1, :, :20] = 1
    return written(tmp_path / "ramp.mrc", ramp, 10.5), written(tmp_path / "labels.mrc", labels, 10.5)


def colours(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in picture.getcolors(maxcolors=2**24)}


def test_the_picture_shows_the_slice_plain_on_the_left_and_labelled_on_the_right(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    volume, labels = pair
    target = tmp_path / "overview.png"

    write_overview(volume, labels, LEGEND, (1.05, 1.05, 1.05), target)

    picture = np.asarray(Image.open(target))
    height, width, _ = picture.shape
    middle = picture[98 + 100]  # a row through both panels, above the scale bar
    plain, labelled = middle[28 : 28 + 620].astype(int), middle[28 + 620 + 20 : -28].astype(int)
    assert (width, labelled.shape) == (28 + 620 + 20 + 620 + 28, (620, 3))
    assert (plain[:, 0] == plain[:, 1]).all()
    assert plain[10, 0] < plain[610, 0]
    assert (labelled[10:300, 0] > labelled[10:300, 1]).all()
    assert (labelled[320:] == plain[320:]).all()
    assert height > 98 + 310


def test_the_legend_names_all_labels_but_the_background(pair: tuple[Path, Path]) -> None:
    volume, labels = pair

    picture = draw_overview("t", middle_plane(volume), middle_plane(labels).values, LEGEND, None)

    assert {RED, BLUE} <= colours(picture)
    assert GREEN not in colours(picture)


def test_without_a_voxel_size_there_is_no_scale_bar(pair: tuple[Path, Path]) -> None:
    plane, labels = middle_plane(pair[0]), middle_plane(pair[1]).values

    with_bar = np.asarray(draw_overview("t", plane, labels, LEGEND, (1.05, 1.05, 1.05)))
    without = np.asarray(draw_overview("t", plane, labels, LEGEND, None))

    bar = (slice(98 + 310 - 21, 98 + 310 - 16), slice(28 + 16, 28 + 16 + 100))
    assert (with_bar[bar] == 255).all()
    assert not (without[bar] == 255).all()


def test_voxels_that_are_longer_along_y_are_drawn_so(pair: tuple[Path, Path]) -> None:
    plane, labels = middle_plane(pair[0]), middle_plane(pair[1]).values

    cubes = draw_overview("t", plane, labels, LEGEND, (1.0, 1.0, 1.0))
    bricks = draw_overview("t", plane, labels, LEGEND, (1.0, 2.0, 1.0))

    assert bricks.height == cubes.height + 310


def test_a_very_long_name_and_many_labels_fit(pair: tuple[Path, Path]) -> None:
    many = {str(n): LabelLegend(name=f"compartment number {n}", colour="#123456") for n in range(1, 30)}

    picture = draw_overview("x" * 400 + ".mrc", middle_plane(pair[0]), middle_plane(pair[1]).values, many, None)

    margin = np.asarray(picture)[:, -20:]
    assert len(np.unique(margin.reshape(-1, 3), axis=0)) == 1


def test_volumes_that_do_not_belong_together_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = written(tmp_path / "other.mrc", np.zeros((3, 20, 41), np.int8))

    with pytest.raises(CryoMambaError, match=r"other\.mrc"):
        write_overview(pair[0], other, LEGEND, None, tmp_path / "overview.png")
