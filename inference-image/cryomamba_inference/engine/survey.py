"""One pass over a volume before the network: can it be segmented, where is it not zero, and what normalises it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_inference.engine.image import Box, Image, whole

_BLOCK_VOXELS = 1 << 20  # 4 MB as float32, 8 MB as the float64 in which sums are taken


@dataclass(frozen=True)
class Intensities:
    """What a channel holds within the non-zero box."""

    low: float
    high: float
    mean: float
    std: float
    """Of the population, in float64."""


@dataclass(frozen=True)
class Survey:
    """What one pass tells of a volume."""

    box: Box
    """Of the voxels that are not zero in any channel; what is around it is background by nnU-Net's rule."""
    channels: tuple[Intensities, ...]


def survey(image: Image) -> Survey:
    """Look at every voxel once, and twice where there is a border of zeros.

    nnU-Net (``crop_to_nonzero``) fills the holes of the non-zero mask, which does not move its box. A channel of one
    value is let through beside others: a map of what is known before may be empty.

    Raises:
        FailureError: VALIDATION_ERROR; a voxel is no finite number, there is none, or all of every channel are the
            same, which nnU-Net would turn into an all-background mask without a word.
    """
    if math.prod(image.shape) == 0:
        raise FailureError(FailureCode.VALIDATION_ERROR, "volume: it has no voxels", hint="Check the file.")
    everything = whole(image.shape)
    extent = _Extent()
    moments = [_Moments() for _ in range(image.channels)]
    for channel, of_channel in enumerate(moments):
        for start, block in _blocks(image, everything, channel):
            _refuse_no_numbers(block, start, channel if image.channels > 1 else None)
            extent.add(start, block)
            of_channel.add(block)
    if all(one.low == one.high for one in moments):
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"volume: every voxel has the value {', '.join(f'{one.low:g}' for one in moments)}",
            hint="There is nothing in it to segment; check that the right file was uploaded.",
        )
    if extent.box != everything:
        moments = [_Moments() for _ in moments]
        for channel, of_channel in enumerate(moments):
            for _, block in _blocks(image, extent.box, channel):
                of_channel.add(block)
    return Survey(extent.box, tuple(one.result() for one in moments))


def extremes_along(image: Image, channel: int, box: Box, axis: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return minimum and maximum of each slice of a channel's box across an axis of [z, y, x]."""
    first, last = box[axis]
    low = np.full(last - first, np.inf, dtype=np.float32)
    high = np.full(last - first, -np.inf, dtype=np.float32)
    others = tuple(other for other in range(len(box)) if other != axis)
    for start, block in _blocks(image, box, channel):
        place = slice(start[axis] - first, start[axis] - first + block.shape[axis])
        np.minimum(low[place], block.min(axis=others), out=low[place])
        np.maximum(high[place], block.max(axis=others), out=high[place])
    return low, high


class _Extent:
    """The box around what is not zero."""

    def __init__(self) -> None:
        self._edges: list[tuple[int, int]] | None = None

    @property
    def box(self) -> Box:
        z, y, x = self._edges or [(0, 0)] * 3
        return z, y, x

    def add(self, start: tuple[int, int, int], block: NDArray[np.float32]) -> None:
        nonzero = block != 0
        found = []
        for axis in range(block.ndim):
            (places,) = nonzero.any(axis=tuple(other for other in range(block.ndim) if other != axis)).nonzero()
            if len(places) == 0:
                return
            found.append((start[axis] + int(places[0]), start[axis] + int(places[-1]) + 1))
        before = self._edges or found
        self._edges = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(before, found, strict=True)]


class _Moments:
    """Mean and squared deviations, joined by Chan, Golub and LeVeque's update (1979), which loses no digits."""

    def __init__(self) -> None:
        self.low, self.high, self.mean, self.squares, self.count = math.inf, -math.inf, 0.0, 0.0, 0

    def add(self, block: NDArray[np.float32]) -> None:
        self.low, self.high = min(self.low, float(block.min())), max(self.high, float(block.max()))
        mean = float(block.mean(dtype=np.float64))
        deviations = np.subtract(block, mean, dtype=np.float64).ravel()
        total = self.count + block.size
        shift = mean - self.mean
        self.squares += float(deviations @ deviations) + shift**2 * self.count * block.size / total
        self.mean += shift * block.size / total
        self.count = total

    def result(self) -> Intensities:
        return Intensities(self.low, self.high, self.mean, math.sqrt(self.squares / self.count))


def _blocks(image: Image, box: Box, channel: int) -> Iterator[tuple[tuple[int, int, int], NDArray[np.float32]]]:
    """Read a channel's box in blocks of rows, in the order of the file; with each comes where its first voxel is."""
    (z0, z1), (y0, y1), (x0, x1) = box
    rows = max(1, _BLOCK_VOXELS // (x1 - x0))
    planes = max(1, rows // (y1 - y0))
    for z in range(z0, z1, planes):
        for y in range(y0, y1, rows):
            yield (z, y, x0), image.read(((z, min(z + planes, z1)), (y, min(y + rows, y1)), (x0, x1)), channel)


def _refuse_no_numbers(block: NDArray[np.float32], start: tuple[int, int, int], channel: int | None) -> None:
    finite = np.isfinite(block)
    if finite.all():
        return
    place = np.unravel_index(int(np.argmin(finite)), block.shape)
    z, y, x = (int(index) + first for index, first in zip(place, start, strict=True))
    raise FailureError(
        FailureCode.VALIDATION_ERROR,
        f"volume: voxel [{x}, {y}, {z}]{'' if channel is None else f' of channel {channel}'} is {block[place]}; "
        "one such voxel spoils the whole result",
        hint="Replace NaN and infinite values, for example by the volume's mean, and upload it again.",
        details={"voxel": [x, y, z]} | ({} if channel is None else {"channel": channel}),
    )
