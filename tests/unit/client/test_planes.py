"""Reading slices from disk."""

from pathlib import Path

import mrcfile
import nibabel
import numpy as np
import pytest

from cryomamba.errors import CryoMambaError
from cryomamba.planes import header_of, middle_plane, volume

VOXELS = np.arange(6 * 5 * 4).reshape(6, 5, 4)  # Z, Y, X


def test_the_middle_slice_of_an_mrc_file(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    mrcfile.write(path, VOXELS.astype(np.float32))

    plane = middle_plane(path)

    assert plane.index == 3
    assert np.array_equal(plane.values, VOXELS[3])


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_nifti_file_read_whole_and_by_its_middle_slice(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(VOXELS.T.astype(np.int16), np.eye(4)), path)

    assert np.array_equal(middle_plane(path).values, VOXELS[3])
    assert np.array_equal(volume(path), VOXELS)


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_of_several_channels_the_first_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(np.stack([VOXELS.T, -VOXELS.T], axis=3).astype(np.int16), np.eye(4)), path)

    assert header_of(path).channels == 2
    assert np.array_equal(middle_plane(path).values, VOXELS[3])
    assert np.array_equal(volume(path), VOXELS)


def test_axes_in_another_order_come_out_as_z_y_x(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    with mrcfile.new(path, VOXELS.transpose(1, 2, 0).astype(np.float32)) as file:  # Z fastest, X, Y slowest
        file.header.mapc, file.header.mapr, file.header.maps = 3, 1, 2

    assert header_of(path).shape == (4, 5, 6)
    assert np.array_equal(volume(path), VOXELS)
    assert np.array_equal(middle_plane(path).values, VOXELS[3])


def test_a_big_endian_file_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    mrcfile.write(path, VOXELS.astype(">i2"))

    assert np.array_equal(volume(path), VOXELS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CryoMambaError, match=r"gone\.mrc cannot be read"):
        header_of(tmp_path / "gone.mrc")
