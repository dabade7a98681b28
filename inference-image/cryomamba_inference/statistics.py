"""Where a label is, how much it fills, in how many pieces, and its surface: in one pass over the volume along Z."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.report import BoundingBox, Measurements
from cryomamba_inference.components import ComponentFinder, ComponentTable
from cryomamba_inference.surface import weight_table

_BLOCK_VOXELS = 1 << 18
"""Voxels looked at in one go: few enough for a processor's cache, enough to make the overhead of a call small."""

_GATHER_BITS = np.uint64(0x0102040810204080)
_TOP_BYTE = np.uint64(56)


class LabelStatistics:
    """Counts, volumes, surfaces, components and places of labels, gathered from slabs handed over in the order of Z.

    The surface of a label is where it meets anything else: background or another label. What is outside the volume
    counts as background, so that the face along which the volume's border cuts an object belongs to its surface; this
    is the convention of ITK and MorphoLibJ. The result does not depend on how the volume is cut into slabs, bit for
    bit.

    Beside the slab itself, memory is needed for ten bytes a voxel of a plane and 20 MB. Where labels are noise it is up
    to 100 MB more: there are rows for all components within the two million voxels that are looked at in one go.

    Args:
        shape_zyx: Shape of the whole volume.
        label_ids: Every label of the model; 0 is background and is left out. Voxels with another number are part of no
            surface and are not counted.
        voxel_size_nm: Edge lengths of a voxel along X, Y, Z; None where they are unknown: then nothing is told in nm.
        on_components: Is given every component, in the order of their last voxels, as soon as it is complete.

    Raises:
        ValueError: An extent or a voxel size is not positive.
    """

    def __init__(
        self,
        shape_zyx: tuple[int, int, int],
        label_ids: Sequence[int],
        voxel_size_nm: tuple[float, float, float] | None,
        on_components: Callable[[ComponentTable], None] | None = None,
    ) -> None:
        if min(shape_zyx) < 1:
            raise ValueError(f"a volume of shape {shape_zyx} has no voxels")
        self._shape = shape_zyx
        self._label_ids = sorted(set(label_ids) - {0})
        self._voxel_size_nm = voxel_size_nm
        self._weights = None if voxel_size_nm is None else weight_table(voxel_size_nm)
        self._planes_seen = 0
        self._histograms = {label: np.zeros(256, dtype=np.int64) for label in self._label_ids}
        self._last_plane = np.zeros((1, shape_zyx[1] + 2, shape_zyx[2]), dtype=np.uint8)
        self._labels_of_last_block: set[int] = set()
        self._components = ComponentFinder(shape_zyx, self._label_ids, self._take_components)
        self._on_components = on_components
        self._totals = ComponentTable.blank(len(self._label_ids))
        self._component_counts = np.zeros(len(self._label_ids), np.int64)

    def add(self, slab: NDArray[np.integer]) -> None:
        """Takes the next planes of the volume.

        Args:
            slab: Labels [z, y, x], any number of planes; it is not changed and not kept.

        Raises:
            ValueError: The slab's planes have another shape than the volume's, or there are too many of them.
            TypeError: The slab does not hold integers.
        """
        if slab.ndim != len(self._shape) or slab.shape[1:] != self._shape[1:]:
            raise ValueError(f"a slab of shape {slab.shape} is no part of a volume of shape {self._shape}")
        if not np.issubdtype(slab.dtype, np.integer):
            raise TypeError(f"labels are integers, not {slab.dtype}")
        if self._planes_seen + len(slab) > self._shape[0]:
            raise ValueError(f"{self._planes_seen + len(slab)} planes are too many for a volume of shape {self._shape}")
        planes = max(1, _BLOCK_VOXELS // math.prod(self._shape[1:]))
        for start in range(0, len(slab), planes):
            self._add_block(slab[start : start + planes])
        self._components.add(slab)
        self._planes_seen += len(slab)
        if self._planes_seen == self._shape[0]:
            # What follows the last plane is outside the volume.
            self._add_block(np.zeros((1, *self._shape[1:]), dtype=slab.dtype))

    def result(self) -> Measurements:
        """Tells what was measured, once all planes are in.

        Returns:
            For every label its voxels, components, volume in nm3 and surface area in nm2, 0 for one that does not
            occur; for those that do, box and centroid. What is in nm is empty where the voxel size is unknown.

        Raises:
            ValueError: Planes are missing.
        """
        if self._planes_seen != self._shape[0]:
            raise ValueError(f"{self._planes_seen} of {self._shape[0]} planes were handed over")
        counts = dict(zip(map(str, self._label_ids), self._totals.voxels.tolist(), strict=True))
        present = self._totals.pick(self._totals.voxels > 0)
        names = [str(label) for label in present.label]
        measured = Measurements(
            label_counts=counts,
            physical_volume_nm3={},
            surface_area_nm2={},
            component_counts=dict(zip(counts, self._component_counts.tolist(), strict=True)),
            bounding_boxes={
                name: BoundingBox(first=first, last=last)
                for name, first, last in zip(names, present.first.tolist(), present.last.tolist(), strict=True)
            },
            centroids_voxels=_named(names, present.centroids),
        )
        if self._voxel_size_nm is None or self._weights is None:
            return measured
        voxel_nm3 = math.prod(self._voxel_size_nm)
        areas = {str(label): float(self._histograms[label] @ self._weights) for label in self._label_ids}
        return measured.model_copy(
            update={
                "physical_volume_nm3": {label: count * voxel_nm3 for label, count in counts.items()},
                "surface_area_nm2": areas,
                "centroids_nm": _named(names, present.centroids * self._voxel_size_nm),
            }
        )

    def _take_components(self, table: ComponentTable) -> None:
        rows = np.searchsorted(self._label_ids, table.label)
        self._totals.merge(rows, table)
        np.add.at(self._component_counts, rows, 1)
        if self._on_components:
            self._on_components(table)

    def _add_block(self, block: NDArray[np.integer]) -> None:
        if self._weights is None:
            return
        labels = {label for label in self._label_ids if np.any(block == label)}
        planes = np.concatenate([self._last_plane, np.pad(block, ((0, 0), (1, 1), (0, 0)))])
        rows = max(1, _BLOCK_VOXELS // math.prod(planes[:, 0].shape))
        for top in range(0, planes.shape[1] - 1, rows):
            self._add_surfaces(planes[:, top : top + rows + 1], labels | self._labels_of_last_block)
        self._last_plane = planes[-1:].copy()
        self._labels_of_last_block = labels

    def _add_surfaces(self, box: NDArray[np.integer], labels: set[int]) -> None:
        corners = _mixed_neighbourhoods(box)
        for label in labels:
            # A row of eight truth values is one 64-bit word with a 1 or a 0 in each byte. The product moves byte k's to
            # bit 56 + k; all others of its terms fall below bit 56 or out of the word, and no two meet.
            inside = (corners == label).view("<u8").ravel()
            self._histograms[label] += np.bincount((inside * _GATHER_BITS >> _TOP_BYTE).view(np.int64), minlength=256)


def _named(names: Sequence[str], places: NDArray[np.float64]) -> dict[str, tuple[float, float, float]]:
    return {name: (x, y, z) for name, (x, y, z) in zip(names, places.tolist(), strict=True)}


def _mixed_neighbourhoods(box: NDArray[np.integer]) -> NDArray[np.integer]:
    """Voxels of the 2 x 2 x 2 neighbourhoods in a box that do not hold one value only.

    Most neighbourhoods lie inside a label or the background and add nothing to a surface; they are passed over for all
    labels at once.

    Args:
        box: Labels [z, y, x]; before and behind each row is background.

    Returns:
        [n, 8], column x + 2 y + 4 z being the voxels at (x, y, z) of the neighbourhoods, in the dtype of `box`.
    """
    # One voxel of background before each row serves both ends: in the flat array it also follows the row before. Steps
    # along X, Y, Z are then shifts of a flat array, which numpy does at the speed of memory.
    depth, height, width = box.shape
    row, plane = width + 1, height * (width + 1)
    flat = np.zeros(depth * plane + row + 1, dtype=box.dtype)
    flat[: depth * plane].reshape(depth, height, row)[:, :, 1:] = box
    mixed = flat[1:] ^ flat[:-1]
    for step in (row, plane):
        mixed = mixed[step:] | mixed[:-step] | (flat[step : step + len(mixed) - step] ^ flat[: len(mixed) - step])
    # What follows the last row of a plane is the first one of the next plane, no neighbour.
    mixed.reshape(depth - 1, height, row)[:, -1] = 0
    places = np.flatnonzero(mixed != 0)
    steps = [x + row * y + plane * z for z in (0, 1) for y in (0, 1) for x in (0, 1)]
    corners = np.empty((len(places), len(steps)), dtype=box.dtype)
    for column, step in enumerate(steps):
        corners[:, column] = flat[places + step]
    return corners
