"""What the network sees, row of tiles by row of tiles: normalised, resampled and padded as it is needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryomamba_inference.engine.image import Box, Image
from cryomamba_inference.engine.normalisation import Normalise
from cryomamba_inference.engine.resampling import Piece, Resampling, piece, taps
from cryomamba_inference.engine.slab_shapes import CHUNK_PLANES
from cryomamba_inference.engine.tiling import Tiling

_CHUNK_ROWS = 64
_STACK_BYTES = 1 << 24


class Planes(Protocol):
    """One channel of the volume as the network is to see it, without padding."""

    def read(self, planes: range, rows: range, into: NDArray[Any]) -> None:
        """Write some rows of some planes, [z, y, x]; a plane's first index never falls much from call to call."""


@dataclass(frozen=True)
class NormalisedPlanes:
    """A channel of a volume's non-zero box."""

    image: Image
    channel: int
    box: Box
    normalise: Normalise
    dtype: type[np.floating[Any]]

    def read(self, planes: range, rows: range, into: NDArray[Any]) -> None:
        """Write normalised intensities, a few planes at a time."""
        for start in range(0, len(planes), CHUNK_PLANES):
            part = planes[start : start + CHUNK_PLANES]
            into[start : start + len(part)] = self.fresh(part, rows)

    def fresh(self, planes: range, rows: range) -> NDArray[Any]:
        """Return normalised intensities [z, y, x] in an array of their own."""
        (z, _), (y, _), columns = self.box
        window = ((z + planes.start, z + planes.stop), (y + rows.start, y + rows.stop), columns)
        values = self.image.read(window, self.channel).astype(self.dtype, copy=False)
        self.normalise(values)
        return values


class ResampledPlanes:
    """A channel of a volume's non-zero box, resampled; planes must be asked for in rising order.

    Args:
        source: What is resampled.
        resampling: How.
        clip: Least and largest value, arrays that are broadcast over the result [z, y, x]; None: none are cut off.
        depth: How many planes a call asks for at most; as many are held.
    """

    def __init__(
        self,
        source: NormalisedPlanes,
        resampling: Resampling,
        clip: tuple[NDArray[Any], NDArray[Any]] | None,
        depth: int,
    ) -> None:
        self._source = source
        self._resampling = resampling
        self._clip = clip
        _, height, width = resampling.target
        self._within = [
            [piece(old, new, rule, range(start, min(start + _CHUNK_ROWS, new))) for start in range(0, new, _CHUNK_ROWS)]
            for old, new, rule in list(zip(resampling.source, resampling.target, resampling.rules, strict=True))[1:]
        ]
        self._flat: dict[int, NDArray[np.float64]] = {}
        self._held = np.empty((min(depth, resampling.target[0]), height, width), dtype=source.dtype)
        self._first = 0
        self._count = 0
        self._ahead: tuple[int, NDArray[Any]] | None = None

    def read(self, planes: range, rows: range, into: NDArray[Any]) -> None:
        """Write resampled intensities."""
        self._hold(planes)
        offset = planes.start - self._first
        into[:] = self._held[offset : offset + len(planes), rows.start : rows.stop]

    def _hold(self, planes: range) -> None:
        last = self._first + self._count
        if planes.start < self._first or planes.start > last:
            self._first, self._count = planes.start, 0
        elif planes.start > self._first:
            kept = last - planes.start
            # Front to back, so that no plane is overwritten before it has moved.
            for index in range(kept):
                self._held[index] = self._held[planes.start - self._first + index]
            self._first, self._count = planes.start, kept
        while self._first + self._count < planes.stop:
            following = self._first + self._count
            chunk = self._chunk(following // CHUNK_PLANES)
            inside = chunk[following % CHUNK_PLANES :][: planes.stop - following]
            self._held[self._count : self._count + len(inside)] = inside
            self._count += len(inside)

    def _chunk(self, index: int) -> NDArray[Any]:
        """Return the planes of a chunk, the last one again where a call ended within it."""
        if self._ahead is not None and self._ahead[0] == index:
            return self._ahead[1]
        old, new, rule = self._resampling.source[0], self._resampling.target[0], self._resampling.rules[0]
        window = range(index * CHUNK_PLANES, min((index + 1) * CHUNK_PLANES, new))
        across = piece(old, new, rule, window)
        for done in [plane for plane in self._flat if plane < across.start]:
            del self._flat[done]
        for plane in range(across.start, across.stop):
            if plane not in self._flat:
                self._flat[plane] = self._flatten(plane)
        chunk = self._combine(window, across)
        self._ahead = (index, chunk)
        return chunk

    def _flatten(self, plane: int) -> NDArray[np.float64]:
        """Resample one plane of the source along its rows and columns."""
        values = self._source.fresh(range(plane, plane + 1), range(self._resampling.source[1]))[0].astype(np.float64)
        along_rows, along_columns = self._within
        values = _mapped(values, along_rows) if self._resampling.rules[1] != "same" else values
        return _mapped(values.T, along_columns).T if self._resampling.rules[2] != "same" else values

    def _combine(self, window: range, across: Piece) -> NDArray[Any]:
        _, height, width = self._resampling.target
        chunk = np.empty((len(window), height, width), dtype=self._source.dtype)
        depth = across.stop - across.start
        rows = max(1, _STACK_BYTES // (8 * depth * width))
        for start in range(0, height, rows):
            part = slice(start, min(start + rows, height))
            stack = np.stack([self._flat[plane][part] for plane in range(across.start, across.stop)])
            values = (across.matrix @ stack.reshape(depth, -1)).reshape(len(window), -1, width)
            if self._clip is not None:
                low, high = (bound[window.start : window.stop] if len(bound) > 1 else bound for bound in self._clip)
                low, high = (bound[:, part] if bound.shape[1] > 1 else bound for bound in (low, high))
                np.clip(values, low, high, out=values)
            chunk[:, part] = values
        return chunk


def _mapped(values: NDArray[np.float64], pieces: list[Piece]) -> NDArray[np.float64]:
    """Apply a map along axis 0."""
    return np.concatenate([part.matrix @ values[part.start : part.stop] for part in pieces])


def fill_line(channels: Sequence[Planes], tiling: Tiling, corner: tuple[int, int], into: NDArray[Any]) -> None:
    """Write what the tiles of one line see, zeros where the volume ends.

    Args:
        channels: The volume.
        tiling: Its tiles.
        corner: First plane and first row of the tiles in the padded volume.
        into: [c, patch z, patch y, padded x].
    """
    inside = []
    targets = []
    for start, edge, before, size in zip(corner, tiling.patch[:2], tiling.padding[:2], tiling.shape[:2], strict=True):
        first, last = max(0, start - before), min(size, start + edge - before)
        inside.append(range(first, last))
        targets.append(slice(first + before - start, last + before - start))
    columns = slice(tiling.padding[2], tiling.padding[2] + tiling.shape[2])
    for rows, planes in zip(into, channels, strict=True):
        part = rows[targets[0], targets[1], columns]
        if part.shape != rows.shape:
            rows.fill(0)
        planes.read(inside[0], inside[1], part)


def chunk_bytes(resampling: Resampling, channels: int) -> int:
    """Return what resampling takes beside the planes that are asked for: planes ahead, and their neighbours.

    Args:
        resampling: Of the non-zero box.
        channels: Each keeps its planes; they are resampled one after another.
    """
    source, target, rule = resampling.source[0], resampling.target[0], resampling.rules[0]
    middle = target // 2 // CHUNK_PLANES * CHUNK_PLANES
    across = piece(source, target, rule, range(middle, min(middle + CHUNK_PLANES, target)))
    plane = resampling.target[1] * resampling.target[2]
    larger = max(resampling.source[1], resampling.target[1]) * max(resampling.source[2], resampling.target[2])
    kept = (across.stop - across.start) * plane * 8 + CHUNK_PLANES * plane * 4
    return channels * kept + CHUNK_PLANES * plane * 4 + 3 * larger * 8 + 2 * _STACK_BYTES


def clip_bounds(
    resampling: Resampling,
    normalise: Normalise,
    extremes: Callable[[int], tuple[NDArray[np.float32], NDArray[np.float32]]],
    overall: tuple[float, float],
    dtype: type[np.floating[Any]],
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return what a cubic spline is clipped to, since skimage cuts off what overshoots the range of its input.

    Args:
        resampling: Of the box.
        normalise: Applied before it.
        extremes: Returns minimum and maximum of every slice of the channel across an axis, not yet normalised.
        overall: Minimum and maximum of the source, not yet normalised.
        dtype: Of the intensities.
    """
    if "cubic" not in resampling.rules:
        return None
    axis = resampling.separate
    if axis is None:
        bounds = [np.full((1, 1, 1), value, dtype=dtype) for value in overall]
    else:
        rule = resampling.rules[axis]
        places = taps(resampling.source[axis], resampling.target[axis], rule).lower
        shape = [1, 1, 1]
        shape[axis] = len(places)
        bounds = [values[places].astype(dtype).reshape(shape) for values in extremes(axis)]
    for bound in bounds:
        normalise(bound)
    return bounds[0], bounds[1]
