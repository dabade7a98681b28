"""Where tiles lie, how they are weighted and which ways they are flipped: nnU-Net's arithmetic, axis by axis.

Sources: ``compute_steps_for_sliding_window`` and ``compute_gaussian`` in
``nnunetv2.inference.sliding_window_prediction``, ``pad_nd_image`` in ``acvl_utils``, and
``_internal_maybe_mirror_and_predict`` in ``nnunetv2.inference.predict_from_raw_data`` (nnU-Net 2.8.1).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryomamba_inference.engine.image import Shape

_DIMENSIONS = 3
_LARGEST_WEIGHT = 10
"""In the middle of a tile, as nnU-Net has it, so that float16 holds the small ones too."""


@dataclass(frozen=True)
class Tiling:
    """The tiles of one volume, all in the file's axes [z, y, x]."""

    shape: Shape
    """What the network is to see of the volume, after crop and resampling, without padding."""
    patch: Shape
    """1 along the slices of a 2d model."""
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxel of the tiles along each axis, in the padded volume."""

    @property
    def padded(self) -> Shape:
        """The shape, at least a patch along each axis."""
        depth, height, width = (max(size, patch) for size, patch in zip(self.shape, self.patch, strict=True))
        return depth, height, width

    @property
    def padding(self) -> Shape:
        """Voxels of zeros in front of the volume along each axis."""
        before = (max(0, patch - size) // 2 for size, patch in zip(self.shape, self.patch, strict=True))
        depth, height, width = before
        return depth, height, width

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(starts) for starts in self.starts)

    def final_after(self, row: int) -> int:
        """Return the first plane that a row of tiles after this one (by its index) still adds to."""
        rows = self.starts[0]
        return rows[row + 1] if row + 1 < len(rows) else self.padded[0]

    def first_row_reaching(self, plane: int) -> int:
        """Return the index of the first row of tiles that covers a plane of the padded volume."""
        return next(row for row, start in enumerate(self.starts[0]) if start + self.patch[0] > plane)


def tile_volume(shape: Shape, patch_size: Sequence[int], transpose_forward: Sequence[int], step: float) -> Tiling:
    """Lay tiles over a volume.

    Args:
        shape: As the network is to see it, [z, y, x].
        patch_size: The plan's, in its axes; two entries for a 2d model, which takes plan axis 0 slice by slice.
        transpose_forward: Plan axis i is file axis ``transpose_forward[i]``.
        step: Distance of neighbouring tiles as a fraction of the patch.
    """
    patch = in_file_axes(patch_in_three(patch_size), transpose_forward)
    sliced = transpose_forward[0] if len(patch_size) < _DIMENSIONS else None
    starts = [
        tuple(range(size)) if axis == sliced else tile_starts(max(size, edge), edge, step)
        for axis, (size, edge) in enumerate(zip(shape, patch, strict=True))
    ]
    return Tiling(shape, patch, (starts[0], starts[1], starts[2]))


def tile_starts(size: int, patch: int, step: float) -> tuple[int, ...]:
    """Return where the tiles along one axis begin.

    Args:
        size: Voxels along the axis, at least `patch`.
        patch: Voxels of a tile along it.
        step: As a fraction of the patch: the farthest that two tiles may be apart.
    """
    count = math.ceil((size - patch) / (patch * step)) + 1
    pace = (size - patch) / (count - 1) if count > 1 else 0
    return tuple(round(pace * index) for index in range(count))


def largest_overlap(tiling: Tiling) -> int:
    """Return the most planes that two neighbouring rows of tiles share."""
    starts = tiling.starts[0]
    return max((one + tiling.patch[0] - following for one, following in itertools.pairwise(starts)), default=0)


def tile_weights(patch_size: Sequence[int]) -> NDArray[np.float32]:
    """Return the weight of each voxel of a tile: a Gaussian, rounded to float16 as nnU-Net's is, where it is never 0.

    Args:
        patch_size: The plan's, in its axes, two or three of them.
    """
    # A Gaussian of an impulse is the product of those along its axes, to the last bit if they are multiplied in order.
    weights = functools.reduce(np.multiply.outer, [_bell(edge) for edge in patch_size])
    weights /= weights.max() / _LARGEST_WEIGHT
    half = weights.astype(np.float16)
    half[half == 0] = half[half > 0].min()
    exact: NDArray[np.float32] = half.astype(np.float32)
    return exact


def _bell(edge: int) -> NDArray[np.float64]:
    impulse = np.zeros(edge)
    impulse[edge // 2] = 1
    bell: NDArray[np.float64] = gaussian_filter(impulse, edge / 8, mode="constant", cval=0)
    return bell


def mirrorings(axes: Sequence[int] | None) -> tuple[tuple[int, ...], ...]:
    """Return the sets of the patch's axes to flip, none first, in the order in which nnU-Net adds them up."""
    axes = axes or ()
    return tuple(itertools.chain.from_iterable(itertools.combinations(axes, count) for count in range(len(axes) + 1)))


def patch_in_three(patch_size: Sequence[int]) -> Shape:
    """Return a patch with three axes: 1 along the slices of a 2d model."""
    first, second, third = (1,) * (_DIMENSIONS - len(patch_size)) + tuple(patch_size)
    return first, second, third


def in_file_axes(values: Sequence[int], transpose_forward: Sequence[int]) -> Shape:
    """Reorder one value an axis from the plan's axes to the file's."""
    z, y, x = (values[transpose_forward.index(axis)] for axis in range(_DIMENSIONS))
    return z, y, x
