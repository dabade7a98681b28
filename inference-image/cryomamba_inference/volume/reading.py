"""A tomogram mapped from its file: nothing is read before it is used, and nothing is held twice."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.volumes import VolumeHeader, iter_voxels, read_header

Item = TypeVar("Item", bound=np.generic)

INFLATED_NAME = "inflated-voxels"
"""Name of the file in the scratch folder that a .nii.gz is inflated to."""


@dataclass(frozen=True)
class Volume:
    """A tomogram whose header has passed the gate."""

    data: NDArray[np.generic]
    """The voxels as stored, [c, z, y, x]: a read-only view of the mapped file, in the file's type and byte order."""
    header: VolumeHeader

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along [z, y, x]."""
        x, y, z = self.header.shape
        return (z, y, x)

    @property
    def channels(self) -> int:
        """How many intensities a voxel has."""
        return self.header.channels

    def planes(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the first channel's intensities in the planes `start` to `stop` along Z, scaled as the header says.

        A fresh contiguous array [z, y, x] in native byte order.
        """
        return as_intensities(self.data[0, start:stop], self.header.scale)

    def read(self, box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]], channel: int) -> NDArray[np.float32]:
        """Return the intensities of a channel in a box, as `planes` does.

        Args:
            box: Start and stop along [z, y, x].
            channel: Its number, from 0 on.
        """
        z, y, x = (slice(*edges) for edges in box)
        return as_intensities(self.data[channel, z, y, x], self.header.scale)


def as_intensities(stored: NDArray[np.generic], scale: tuple[float, float]) -> NDArray[np.float32]:
    """Return stored values as float32 intensities, a fresh contiguous array of the same shape.

    Scaling is done in float64, as nibabel and so nnU-Net do. What float32 cannot hold becomes infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if scale == (1.0, 0.0):
            return np.array(stored, dtype=np.float32, order="C")
        slope, intercept = scale
        return np.array(stored.astype(np.float64) * slope + intercept, dtype=np.float32, order="C")


def open_volume(path: Path, scratch: Path) -> Volume:
    """Check a volume's header and map its voxels.

    Args:
        path: An MRC or NIfTI-1 file; what it is is told by its content.
        scratch: Existing folder. A .nii.gz is inflated to a file in it, which must outlive the volume.

    Raises:
        VolumeError: The file is no volume that can be segmented.
        OSError: The file cannot be read, or the scratch folder is full.
    """
    with path.open("rb") as stream:
        header = read_header(stream, path.stat().st_size)
        if not header.compressed:
            return Volume(_mapped(path, header.data_offset, header), header)
        inflated = scratch / INFLATED_NAME
        try:
            with inflated.open("wb") as out:
                out.writelines(iter_voxels(stream, header))
        except BaseException:
            inflated.unlink()  # a bomb or a full disk shall not keep its space
            raise
    return Volume(_mapped(inflated, 0, header), header)


def _mapped(path: Path, offset: int, header: VolumeHeader) -> NDArray[np.generic]:
    dtype = np.dtype(header.dtype).newbyteorder(header.byte_order)
    shape = (header.channels, *header.file_shape[::-1])
    in_file = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    return in_zyx(in_file, header.axis_order)


def in_zyx(in_file: NDArray[Item], axis_order: tuple[int, int, int]) -> NDArray[Item]:
    """Return a view [..., z, y, x] of an array that is indexed as it lies in the file: slowest axis first."""
    slowest_first = axis_order[::-1]
    ahead = in_file.ndim - len(slowest_first)
    return in_file.transpose([*range(ahead), *(ahead + slowest_first.index(axis) for axis in (3, 2, 1))])
