"""What the engine reads: boxes of float32 intensities, from a file that is mapped or an array that is there already."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int, int]

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Start and stop along [z, y, x]."""


class Image(Protocol):
    """A volume whose voxels are read as they are needed."""

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""

    def read(self, box: Box) -> NDArray[np.float32]:
        """Return the intensities of a box, [z, y, x]: a fresh array that the caller may change."""


@dataclass(frozen=True)
class ArrayImage:
    """An array in memory."""

    data: NDArray[np.float32]
    """[z, y, x]."""

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""
        depth, height, width = self.data.shape
        return depth, height, width

    def read(self, box: Box) -> NDArray[np.float32]:
        """Return a copy of a box."""
        return np.array(self.data[tuple(slice(*edges) for edges in box)], dtype=np.float32, order="C")


@dataclass(frozen=True)
class InvertedImage:
    """An image with every intensity negated."""

    image: Image

    @property
    def shape(self) -> Shape:
        """Voxels along [z, y, x]."""
        return self.image.shape

    def read(self, box: Box) -> NDArray[np.float32]:
        """Return a negated box."""
        read = self.image.read(box)
        np.negative(read, out=read)
        return read


def whole(shape: Shape) -> Box:
    """Return the box of all voxels."""
    depth, height, width = shape
    return (0, depth), (0, height), (0, width)
