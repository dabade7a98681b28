"""One pass over the voxels before anything is predicted: their range, and whether they can be segmented at all."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.volumes import VolumeError, VolumeHeader
from cryomamba_inference.volume.reading import Volume, as_intensities

_BLOCK_VOXELS = 1_048_576  # 4 MB as float32, 8 MB as the float64 in which sums are taken


@dataclass(frozen=True)
class IntensityRange:
    """Statistics of all voxels, scaled as the header says, in float64."""

    min: float
    max: float
    mean: float
    std: float
    """Of the population: the sum of squares is divided by the number of voxels."""


def check_intensities(volume: Volume) -> IntensityRange:
    """Return the range of a volume's intensities over all channels, block by block in file order.

    Mean and squared deviations are joined by Chan, Golub and LeVeque's update (1979), which does not lose digits
    where the mean is large against the deviation.

    Raises:
        VolumeError: Field ``voxels``: a voxel is NaN or infinite (nnU-Net would answer with an all-background mask),
            or all have the same value.
    """
    stored = _in_file_order(volume)
    low, high, mean, squares = math.inf, -math.inf, 0.0, 0.0
    for start in range(0, stored.size, _BLOCK_VOXELS):
        block = as_intensities(stored[start : start + _BLOCK_VOXELS], volume.header.scale)
        if not np.isfinite(block).all():
            raise _not_finite(block, start, volume.header)
        low, high = min(low, float(block.min())), max(high, float(block.max()))
        block_mean = float(block.mean(dtype=np.float64))
        shift = block_mean - mean
        deviations = np.subtract(block, block_mean, dtype=np.float64)
        squares += float(deviations @ deviations) + shift**2 * start * block.size / (start + block.size)
        mean += shift * block.size / (start + block.size)
    if low == high:
        raise _constant(low)
    return IntensityRange(min=low, max=high, mean=mean, std=math.sqrt(squares / stored.size))


def _in_file_order(volume: Volume) -> NDArray[np.generic]:
    """A flat view in the order in which the file is read fastest."""
    slowest_first = [4 - axis for axis in volume.header.axis_order[::-1]]  # 3, 2, 1: the axes 1, 2, 3 of [c, z, y, x]
    return volume.data.transpose(0, *slowest_first).reshape(-1)


def _not_finite(block: NDArray[np.float32], start: int, header: VolumeHeader) -> VolumeError:
    first = int(np.argmin(np.isfinite(block)))
    kind = "NaN" if np.isnan(block[first]) else "infinite, or too large for float32"
    fast, middle, _ = header.file_shape
    channel, place = divmod(start + first, header.voxels)
    where = f" of channel {channel}" if header.channels > 1 else ""
    in_file = (place % fast, place // fast % middle, place // (fast * middle))
    x, y, z = (in_file[header.axis_order.index(axis)] for axis in (1, 2, 3))
    return VolumeError(
        "voxels",
        f"The voxel at X, Y, Z = {x}, {y}, {z}{where} (counted from 0) is {kind}; every voxel must be a finite number.",
        hint="Look for masked or padded regions, replace such voxels by the mean density, and upload the volume again.",
    )


def _constant(value: float) -> VolumeError:
    what = "zero: the volume is empty" if value == 0 else f"{value:g}: the volume is constant"
    return VolumeError(
        "voxels",
        f"Every voxel is {what}, and there is nothing to segment.",
        hint="Open the file in a viewer; the reconstruction or the export may have failed.",
    )
