"""What the engine reads: boxes of float32 intensities, from a file that is mapped or an array that is there already."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Start and stop along [z, y, x]."""


class Image(Protocol):
    """A volume whose voxels are read as they are needed, one channel at a time."""

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""

    @property
    def channels(self) -> int:
        """How many intensities a voxel has."""

    def read(self, box: Box, channel: int) -> NDArray[np.float32]:
        """Return the intensities of a box, [z, y, x]: a fresh array that the caller may change."""


@dataclass(frozen=True)
class ArrayImage:
    """An array in memory."""

    data: NDArray[np.float32]
    """[c, z, y, x], or [z, y, x] where there is one channel."""

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""
        depth, height, width = self.data.shape[-3:]
        return depth, height, width

    @property
    def channels(self) -> int:
        """How many intensities a voxel has."""
        return math.prod(self.data.shape[:-3])

    def read(self, box: Box, channel: int) -> NDArray[np.float32]:
        """Return a copy of a box."""
        one = self.data[channel] if self.data.ndim > len(box) else self.data
        return np.array(one[tuple(slice(*edges) for edges in box)], dtype=np.float32, order="C")


@dataclass(frozen=True)
class InvertedImage:
    """An image with every intensity negated."""

    image: Image

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""
        return self.image.shape

    @property
    def channels(self) -> int:
        """How many intensities a voxel has."""
        return self.image.channels

    def read(self, box: Box, channel: int) -> NDArray[np.float32]:
        """Return a negated box."""
        read = self.image.read(box, channel)
        np.negative(read, out=read)
        return read


def read_whole(image: Image) -> NDArray[np.float32]:
    """Return all intensities, [c, z, y, x]."""
    box = whole(image.shape)
    if image.channels == 1:
        return image.read(box, 0)[None]
    read = np.empty((image.channels, *image.shape), dtype=np.float32)
    for channel in range(image.channels):
        read[channel] = image.read(box, channel)
    return read


def whole(shape: Shape) -> Box:
    """Return the box of all voxels."""
    depth, height, width = shape
    return (0, depth), (0, height), (0, width)
