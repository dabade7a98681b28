"""Labels of one Z plane of the input as tiles come in: what a preview shows while the network runs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_inference.engine.interface import Labels


@dataclass(frozen=True)
class Geometry:
    """How an input volume became what the network sees: transposed, cropped, resampled, padded.

    "Plan axes" are those after the transpose: ``plan axis i = file axis transpose_forward[i]``.
    """

    input_shape: tuple[int, int, int]
    """[z, y, x] of the file."""
    transpose_forward: tuple[int, int, int]
    box: Sequence[tuple[int, int]]
    """The non-zero box, start and stop in plan axes."""
    network_shape: tuple[int, int, int]
    """Plan axes, after resampling, before padding."""
    patch_size: tuple[int, int, int]
    """Plan axes; 1 along the slices of a 2d model."""

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """The network's shape, padded to the patch."""
        a, b, c = (max(size, patch) for size, patch in zip(self.network_shape, self.patch_size, strict=True))
        return a, b, c

    def padding_before(self, axis: int) -> int:
        """Return how many voxels were padded in front, as acvl_utils' pad_nd_image does."""
        return max(0, self.patch_size[axis] - self.network_shape[axis]) // 2

    def network_indices(self, axis: int) -> NDArray[np.intp]:
        """Return for each input voxel along a plan axis its nearest index in the padded network; -1 outside the box."""
        start, stop = self.box[axis]
        size = self.network_shape[axis]
        within = ((np.arange(stop - start) + 0.5) * size / (stop - start)).astype(np.intp).clip(0, size - 1)
        indices = np.full(self.input_shape[self.transpose_forward[axis]], -1, dtype=np.intp)
        indices[start:stop] = within + self.padding_before(axis)
        return indices


class PlaneLabels:
    """Sums the weighted outputs of the tiles that meet one plane; one thread adds, another looks."""

    def __init__(
        self,
        geometry: Geometry,
        z: int,
        heads: int,
        region_order: Sequence[int] | None,
        weights: NDArray[np.float32],
    ) -> None:
        """Start without any tile.

        Args:
            geometry: Of the volume.
            z: Index of the plane in the file.
            heads: Output channels of the network.
            region_order: Label numbers of the regions in class order; None for exclusive labels.
            weights: Of a tile's voxels, the patch's shape.
        """
        self._geometry = geometry
        self._region_order = region_order
        self._weights = weights
        self._normal = geometry.transpose_forward.index(0)
        self._index = int(geometry.network_indices(self._normal)[z])
        shape = tuple(size for axis, size in enumerate(geometry.padded_shape) if axis != self._normal)
        self._logits = np.zeros((heads, *shape), dtype=np.float32)
        self._weight = np.zeros(shape, dtype=np.float32)
        self._dtype = label_dtype(max(region_order) if region_order else heads - 1)
        self._lock = threading.Lock()

    def plane_within(self, offset: tuple[int, int, int]) -> tuple[int, int] | None:
        """Return the plan axis and the index within a tile at which the plane cuts it; None where it does not.

        Args:
            offset: Of the tile in the padded network, plan axes.
        """
        index = self._index - offset[self._normal]
        if self._index < 0 or not 0 <= index < self._geometry.patch_size[self._normal]:
            return None
        return self._normal, index

    def add(self, cut: NDArray[np.float32], offset: tuple[int, int, int]) -> None:
        """Add a tile's outputs in the plane.

        Args:
            cut: [heads, ...], the tile's outputs at `plane_within`.
            offset: Of the tile in the padded network, plan axes.
        """
        first, second = (start for axis, start in enumerate(offset) if axis != self._normal)
        height, width = cut.shape[1:]
        window = (slice(first, first + height), slice(second, second + width))
        weights = self._weights.take(self._index - offset[self._normal], axis=self._normal)
        with self._lock:
            self._logits[:, *window] += cut * weights
            self._weight[window] += weights

    def labels(self) -> Labels:
        """Return the plane's labels so far, [y, x] of the input, 0 where no tile has been."""
        with self._lock:
            decided = self._decide()
            decided[self._weight == 0] = 0
        first, second = (axis for axis in range(3) if axis != self._normal)
        rows, columns = self._geometry.network_indices(first), self._geometry.network_indices(second)
        plane: Labels = decided[np.ix_(rows, columns)]
        plane[rows < 0, :] = 0
        plane[:, columns < 0] = 0
        forward = self._geometry.transpose_forward
        return plane if forward[first] < forward[second] else np.ascontiguousarray(plane.T)

    def _decide(self) -> Labels:
        if self._region_order is None:
            exclusive: Labels = self._logits.argmax(axis=0).astype(self._dtype)
            return exclusive
        decided: Labels = np.zeros(self._weight.shape, dtype=self._dtype)
        for logits, label in zip(self._logits, self._region_order, strict=True):
            decided[logits > 0] = label
        return decided


def label_dtype(largest: int) -> type[np.integer[Any]]:
    """Return the type of label arrays."""
    return np.uint8 if largest < 255 else np.int16  # noqa: PLR2004  # a byte's range, 255 left free as nnU-Net does
