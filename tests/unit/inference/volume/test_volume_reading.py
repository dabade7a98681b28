"""Tomograms as arrays, against mrcfile's and nibabel's own reading of the same files."""

import gzip
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import nibabel
import numpy as np
import pytest

from cryomamba_crds.volumes import VolumeError
from cryomamba_inference.volume import Volume, open_volume

WriteMrc = Callable[..., Path]
Opened = Callable[[Path], Volume]

RANDOM = np.random.default_rng(3)


def voxels(dtype: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray[Any, Any]:
    """Random voxels over most of the type's range."""
    if dtype.startswith("float"):
        return RANDOM.normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("extended", [b"", bytes(80), b"odd"], ids=["plain", "extended", "odd length"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
def test_every_mode_is_read_as_it_was_written(
    write_mrc: WriteMrc, opened: Opened, dtype: str, order: str, extended: bytes
) -> None:
    data = voxels(dtype)

    volume = opened(write_mrc(data, order=order, extended=extended))

    np.testing.assert_array_equal(volume.data[0], data)
    assert volume.data.dtype.name == dtype
    planes = volume.planes(1, 3)
    np.testing.assert_array_equal(planes, data[1:3].astype(np.float32))
    assert planes.dtype == np.float32
    assert planes.dtype.isnative
    assert planes.flags.c_contiguous
    assert planes.flags.writeable


@pytest.mark.parametrize("order", ["<", ">"])
def test_unsigned_bytes_of_imod_are_read_unsigned(write_mrc: WriteMrc, opened: Opened, order: str) -> None:
    data = voxels("uint8")
    path = write_mrc(data, order=order, imod_flags=0)

    np.testing.assert_array_equal(opened(path).data[0], data)


def test_bytes_that_imod_flags_as_signed_are_read_signed(write_mrc: WriteMrc, opened: Opened) -> None:
    data = voxels("int8")

    np.testing.assert_array_equal(opened(write_mrc(data, imod_flags=1)).data[0], data)


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_any_order_of_axes_is_brought_into_z_y_x(
    write_mrc: WriteMrc, opened: Opened, axes: tuple[int, int, int]
) -> None:
    truth = voxels("int16")  # [z, y, x]
    slowest_first = [3 - axis for axis in reversed(axes)]

    volume = opened(write_mrc(truth.transpose(slowest_first), mapc=axes[0], mapr=axes[1], maps=axes[2]))

    np.testing.assert_array_equal(volume.data[0], truth)
    assert volume.shape == truth.shape
    np.testing.assert_array_equal(volume.planes(0, 2), truth[:2].astype(np.float32))


def test_the_array_is_a_read_only_view_of_the_file(write_mrc: WriteMrc, opened: Opened) -> None:
    volume = opened(write_mrc(voxels("float32")))

    assert not volume.data.flags.writeable
    assert not volume.data.flags.owndata


def test_opening_a_large_volume_costs_next_to_nothing(write_mrc: WriteMrc, opened: Opened) -> None:
    path = write_mrc(np.zeros((10, 10, 10), np.float32), nx=1000, ny=1000, nz=100)
    with path.open("r+b") as file:
        file.truncate(1024 + 400_000_000)

    tracemalloc.start()
    volume = opened(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert volume.shape == (100, 1000, 1000)
    assert peak < 1_000_000


def test_a_volume_of_more_than_2_to_the_31_voxels_is_read_at_its_far_end(write_mrc: WriteMrc, opened: Opened) -> None:
    path = write_mrc(np.zeros((1, 1, 1), np.int8), nx=1000, ny=1000, nz=2200)
    with path.open("r+b") as file:
        file.seek(1024 + 2_200_000_000 - 1)
        file.write(b"\x2a")

    volume = opened(path)

    assert volume.data[0, 2199, 999, 999] == 42
    assert volume.data[0, 2199, 999, 998] == 0


def test_a_real_map_reads_as_mrcfile_reads_it(emd_3197: Path, opened: Opened) -> None:
    volume = opened(emd_3197)

    np.testing.assert_array_equal(volume.data[0], mrcfile.read(emd_3197))


@pytest.mark.parametrize("name", ["input.nii", "input.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_every_type_of_nifti_reads_as_nibabel_reads_it_transposed(
    tmp_path: Path, opened: Opened, dtype: str, order: str, name: str
) -> None:
    image = nibabel.Nifti1Image(
        voxels(dtype), np.diag([13.48, 13.48, 13.48, 1]), nibabel.Nifti1Header(endianness=order)
    )
    image.set_data_dtype(dtype)
    nibabel.save(image, tmp_path / name)
    theirs = nibabel.load(tmp_path / name)

    volume = opened(tmp_path / name)

    assert volume.header.byte_order == order
    np.testing.assert_array_equal(volume.data[0], np.asanyarray(theirs.dataobj).transpose())
    expected = theirs.get_fdata().transpose((2, 1, 0)).astype(np.float32)
    np.testing.assert_array_equal(volume.planes(0, volume.shape[0]), expected)
    assert volume.header.voxel_size_nm == pytest.approx((1.348, 1.348, 1.348))


@pytest.mark.parametrize("name", ["input.nii", "input.nii.gz"])
def test_scaling_is_applied_as_nibabel_applies_it(tmp_path: Path, opened: Opened, name: str) -> None:
    image = nibabel.Nifti1Image(voxels("int16"), np.eye(4))
    image.header.set_slope_inter(0.037, -12.5)
    nibabel.save(image, tmp_path / name)

    volume = opened(tmp_path / name)

    assert volume.header.scale != (1.0, 0.0)
    expected = nibabel.load(tmp_path / name).get_fdata().transpose((2, 1, 0)).astype(np.float32)
    np.testing.assert_array_equal(volume.planes(0, volume.shape[0]), expected)


def test_an_extension_before_the_voxels_is_skipped(tmp_path: Path, opened: Opened) -> None:
    data = voxels("int16")
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"made by hand" * 20))
    nibabel.save(image, tmp_path / "input.nii.gz")

    np.testing.assert_array_equal(opened(tmp_path / "input.nii.gz").data[0], data.transpose())


@pytest.mark.parametrize("name", ["input.nii", "input.nii.gz"])
def test_volumes_one_after_another_are_the_channels_of_one(tmp_path: Path, opened: Opened, name: str) -> None:
    data = np.random.default_rng(8).integers(-999, 999, (5, 4, 3, 2)).astype(np.int16)
    image = nibabel.Nifti1Image(data, np.diag([13.48, 13.48, 13.48, 1]))
    image.header.set_slope_inter(0.5, -12.5)
    nibabel.save(image, tmp_path / name)

    volume = opened(tmp_path / name)

    expected = nibabel.load(tmp_path / name).get_fdata().transpose((3, 2, 1, 0)).astype(np.float32)
    assert (volume.shape, volume.channels) == ((3, 4, 5), 2)
    for channel in (0, 1):
        np.testing.assert_array_equal(volume.read(((1, 3), (0, 4), (2, 5)), channel), expected[channel, 1:3, :, 2:5])
    np.testing.assert_array_equal(volume.planes(0, 3), expected[0])


def test_a_bad_file_is_refused_by_the_gate_and_leaves_nothing_in_scratch(tmp_path: Path) -> None:
    path = tmp_path / "input.mrc"
    path.write_bytes(b"x,y,z\n" * 1000)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    with pytest.raises(VolumeError, match="a text file"):
        open_volume(path, scratch)

    assert list(scratch.iterdir()) == []


def test_a_gzip_bomb_never_grows_past_the_claimed_size_in_scratch(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels("int16"), np.eye(4)), tmp_path / "input.nii")
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress((tmp_path / "input.nii").read_bytes() + bytes(30_000_000)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    with pytest.raises(VolumeError, match="inflates to more"):
        open_volume(path, scratch)

    assert list(scratch.iterdir()) == []
