"""The pass over all voxels before anything is predicted."""

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cryomamba_crds.volumes import VolumeError
from cryomamba_inference.volume import Volume, check_intensities

WriteMrc = Callable[..., Path]
Opened = Callable[[Path], Volume]

RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_range_is_numpys_over_several_blocks(
    write_mrc: WriteMrc, opened: Opened, order: str, offset: float
) -> None:
    data = (RANDOM.normal(0, 3, (30, 250, 300)) + offset).astype(np.float32)

    found = check_intensities(opened(write_mrc(data, order=order)))

    assert (found.min, found.max) == (data.min(), data.max())
    assert found.mean == pytest.approx(data.mean(dtype=np.float64), rel=1e-12)
    assert found.std == pytest.approx(data.std(dtype=np.float64), rel=1e-9)


def test_the_range_is_of_scaled_intensities(tmp_path: Path, opened: Opened) -> None:
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(2.0, -10.0)
    nibabel.save(image, tmp_path / "input.nii.gz")
    truth = nibabel.load(tmp_path / "input.nii.gz").get_fdata()

    found = check_intensities(opened(tmp_path / "input.nii.gz"))

    assert (found.min, found.max) == (truth.min(), truth.max())
    assert found.mean == pytest.approx(truth.mean())


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_a_voxel_that_is_no_number_is_refused_with_its_place(
    write_mrc: WriteMrc, opened: Opened, axes: tuple[int, int, int], value: float, word: str
) -> None:
    data = RANDOM.normal(0, 1, (3, 4, 5)).astype(np.float32)
    data[2, 1, 4] = value
    in_file = data.transpose([3 - axis for axis in reversed(axes)])

    with pytest.raises(VolumeError, match="X, Y, Z = 4, 1, 2") as caught:
        check_intensities(opened(write_mrc(in_file, mapc=axes[0], mapr=axes[1], maps=axes[2])))

    assert word in caught.value.failure.message
    assert caught.value.field == "voxels"
    assert caught.value.failure.hint


def test_a_bad_voxel_beyond_the_first_block_is_found(write_mrc: WriteMrc, opened: Opened) -> None:
    data = RANDOM.normal(0, 1, (30, 200, 200)).astype(np.float16)
    data[29, 150, 7] = np.nan

    with pytest.raises(VolumeError, match="X, Y, Z = 7, 150, 29"):
        check_intensities(opened(write_mrc(data)))


def test_a_number_too_large_for_float32_is_refused(tmp_path: Path, opened: Opened) -> None:
    data = np.ones((3, 4, 5))
    data[0, 0, 0] = 1e300
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "input.nii")

    with pytest.raises(VolumeError, match="too large for float32"):
        check_intensities(opened(tmp_path / "input.nii"))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5)])
@pytest.mark.parametrize(("value", "words"), [(0, "the volume is empty"), (7, "7: the volume is constant")])
def test_an_empty_or_constant_volume_is_refused_by_name(
    write_mrc: WriteMrc, opened: Opened, shape: tuple[int, int, int], value: int, words: str
) -> None:
    with pytest.raises(VolumeError, match=words) as caught:
        check_intensities(opened(write_mrc(np.full(shape, value, np.int16))))

    assert caught.value.field == "voxels"


def test_a_volume_one_voxel_thick_is_accepted(write_mrc: WriteMrc, opened: Opened) -> None:
    found = check_intensities(opened(write_mrc(np.arange(20, dtype=np.int8).reshape(1, 4, 5))))

    assert (found.min, found.max) == (0, 19)


def test_checking_holds_a_block_and_not_the_volume(write_mrc: WriteMrc, opened: Opened) -> None:
    volume = opened(write_mrc(RANDOM.integers(-99, 99, (60, 1000, 1000), dtype=np.int8)))

    tracemalloc.start()
    check_intensities(volume)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 30_000_000


def test_the_channel_of_a_voxel_that_is_no_number_is_told(tmp_path: Path, opened: Opened) -> None:
    data = np.random.default_rng(9).normal(size=(5, 4, 3, 2)).astype(np.float32)
    data[4, 1, 2, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "input.nii")

    with pytest.raises(VolumeError, match="X, Y, Z = 4, 1, 2 of channel 1"):
        check_intensities(opened(tmp_path / "input.nii"))
