"""Connected components of labels, found slab by slab along Z: the same ones as in the whole volume at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

_BLOCK_VOXELS = 1 << 21
"""Voxels looked at in one go, beside the plane before them: numbers of components take four bytes each."""

_STRIP_VOXELS = 1 << 18
"""Voxels measured in one go: few enough for a processor's cache."""

_NOWHERE = np.iinfo(np.int64).max


def component_bytes(plane: int) -> int:
    """Return what finding components takes for planes of so many voxels, of which not many are components of their own.

    Numbers, the labels beside them and cc3d's own count; noise took up to 100 MB more.
    """
    return 8 * (max(_BLOCK_VOXELS, plane) + plane)


@dataclass(frozen=True)
class ComponentTable:
    """What is known of some components: a row each, an array a column, int64 throughout."""

    label: NDArray[np.int64]
    voxels: NDArray[np.int64]
    index_sum: NDArray[np.int64]
    """[row, 3]: of the voxels' X, Y, Z indices."""
    first: NDArray[np.int64]
    """[row, 3]: lowest X, Y, Z index of a voxel."""
    last: NDArray[np.int64]
    """[row, 3]: highest X, Y, Z index of a voxel."""
    last_voxel: NDArray[np.int64]
    """Highest place of a voxel in the volume, counted along X, then Y, then Z."""

    @classmethod
    def blank(cls, rows: int) -> "ComponentTable":
        """Return rows that have no voxels yet; their label is 0."""
        return cls(
            label=np.zeros(rows, np.int64),
            voxels=np.zeros(rows, np.int64),
            index_sum=np.zeros((rows, 3), np.int64),
            first=np.full((rows, 3), _NOWHERE),
            last=np.full((rows, 3), -1),
            last_voxel=np.full(rows, -1),
        )

    def __len__(self) -> int:
        """Return how many components there are."""
        return len(self.label)

    @property
    def centroids(self) -> NDArray[np.float64]:
        """[row, 3]: mean X, Y, Z index of the voxels."""
        return self.index_sum / self.voxels[:, None]

    def pick(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "ComponentTable":
        """Return some of the rows: places of them in their order, or a truth value a row."""
        return ComponentTable(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def merge(self, rows: NDArray[np.integer], other: "ComponentTable") -> None:
        """Add each row of another table to the row that is named for it; one may be named several times."""
        # Equal for all that are put together, but for those without voxels.
        np.maximum.at(self.label, rows, other.label)
        np.add.at(self.voxels, rows, other.voxels)
        np.maximum.at(self.last_voxel, rows, other.last_voxel)
        for axis in range(3):
            np.add.at(self.index_sum[:, axis], rows, other.index_sum[:, axis])
            np.minimum.at(self.first[:, axis], rows, other.first[:, axis])
            np.maximum.at(self.last[:, axis], rows, other.last[:, axis])


class ComponentFinder:
    """Finds the components of every label: voxels of one label that touch by a face, an edge or a corner.

    Labels are components on their own, however they touch. What is found is what cc3d finds in the whole volume, and
    does not depend on how the volume is cut into slabs. In memory are a block of the slab with a number a voxel, one
    plane, and rows for the components of the block and for those that reach its last plane; all others are handed on.

    Args:
        shape_zyx: Shape of the whole volume.
        label_ids: Every label of the model; voxels with another number are part of no component.
        take: Is given components that are complete, in the order of their `last_voxel`, over all calls.
    """

    def __init__(
        self, shape_zyx: tuple[int, int, int], label_ids: Sequence[int], take: Callable[[ComponentTable], None]
    ) -> None:
        self._shape = shape_zyx
        self._label_ids = sorted(set(label_ids) - {0})
        self._take = take
        self._planes_seen = 0
        self._open = ComponentTable.blank(0)
        self._last_plane = np.zeros((1, *shape_zyx[1:]), np.uint8)
        self._last_runs = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        """Where in the last plane runs begin, and the row among the open components that each is part of."""

    def add(self, slab: NDArray[np.integer]) -> None:
        """Take the next planes [z, y, x]; after the last one every component has been handed on."""
        planes = max(1, _BLOCK_VOXELS // math.prod(self._shape[1:]))
        for start in range(0, len(slab), planes):
            self._add_block(slab[start : start + planes])

    def _add_block(self, block: NDArray[np.integer]) -> None:
        # The plane before is looked at once more: its voxels have a number in the old count and one in the new, and
        # that says which components are the same. Looking for touching voxels would say no more.
        planes = np.concatenate([self._last_plane, block])
        numbers, count = cc3d.connected_components(planes, connectivity=26, return_N=True)
        found = _measure(planes[1:], numbers[1:], count, self._planes_seen, self._label_ids)
        starts, rows = self._last_runs
        size = count + len(self._open)
        pairs = (numbers[0].reshape(-1)[starts] - 1, rows + count)
        same = sparse.coo_array((np.ones(len(starts), np.bool_), pairs), shape=(size, size))
        groups, group = csgraph.connected_components(same, directed=False)
        merged = ComponentTable.blank(groups)
        merged.merge(group[:count], found)
        merged.merge(group[count:], self._open)

        self._planes_seen += len(block)
        starts, _ = _find_runs(planes[-1], self._label_ids)
        reaching = group[numbers[-1].reshape(-1)[starts] - 1]
        is_open = np.zeros(groups, np.bool_)
        is_open[reaching] = self._planes_seen < self._shape[0]
        closed = np.flatnonzero(~is_open & (merged.voxels > 0))
        if len(closed):
            self._take(merged.pick(closed[np.argsort(merged.last_voxel[closed])]))
        self._open = merged.pick(is_open)
        self._last_plane = planes[-1:].copy()
        self._last_runs = (starts, np.cumsum(is_open)[reaching] - 1)


def _measure(
    labels: NDArray[np.integer], numbers: NDArray[np.integer], count: int, first_plane: int, label_ids: Sequence[int]
) -> ComponentTable:
    """Measure the components of a block.

    Args:
        labels: [z, y, x].
        numbers: Of the same voxels' components, from 1 to `count`; 0 for background.
        count: How many rows the table has; a component without voxels here has an empty one.
        first_plane: Z index in the volume.
        label_ids: Voxels with another number are left out.
    """
    _, height, width = labels.shape
    table = ComponentTable.blank(count)
    rows, row_numbers = labels.reshape(-1, width), numbers.reshape(-1, width)
    step = max(1, _STRIP_VOXELS // width)
    for top in range(0, len(rows), step):
        runs, starts = _measure_runs(rows[top : top + step], top + first_plane * height, height, label_ids)
        table.merge(row_numbers[top : top + step].reshape(-1)[starts] - 1, runs)
    return table


def _measure_runs(
    rows: NDArray[np.integer], first_row: int, height: int, label_ids: Sequence[int]
) -> tuple[ComponentTable, NDArray[np.int64]]:
    """Measure the runs of some rows.

    Args:
        rows: Labels [row, x]; rows follow each other along Y, then Z.
        first_row: Where in the volume the first of them is.
        height: Rows of a plane.
        label_ids: Voxels with another number are left out.

    Returns:
        The runs as components, and where in `rows` each begins.
    """
    starts, lengths = _find_runs(rows, label_ids)
    width = rows.shape[1]
    row, x = np.divmod(starts, width)
    z, y = np.divmod(row + first_row, height)
    stops = x + lengths - 1
    runs = ComponentTable(
        label=rows.reshape(-1)[starts].astype(np.int64),
        voxels=lengths,
        index_sum=np.stack([lengths * (x + stops) // 2, lengths * y, lengths * z], axis=1),
        first=np.stack([x, y, z], axis=1),
        last=np.stack([stops, y, z], axis=1),
        last_voxel=(row + first_row) * width + stops,
    )
    return runs, starts


def _find_runs(rows: NDArray[np.integer], label_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find voxels of one label that follow each other along X: always of one component, and far fewer than voxels.

    Args:
        rows: Labels [row, x].
        label_ids: Voxels with another number are left out.

    Returns:
        Where each run begins, counted along X, then rows; and how many voxels it has.
    """
    voxels = rows.reshape(-1)
    begins = np.empty(voxels.size, np.bool_)
    np.not_equal(voxels[1:], voxels[:-1], out=begins[1:])
    begins[:: rows.shape[1]] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=voxels.size)
    filled = voxels[starts] != 0
    starts, lengths = starts[filled], lengths[filled]
    known = np.isin(voxels[starts], label_ids)
    return starts[known], lengths[known]
