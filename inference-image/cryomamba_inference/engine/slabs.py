"""Slabs of the file's planes, decided as the network's logits become complete; resampled to the file's voxels first."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryomamba_inference.engine.deciding import Heads
from cryomamba_inference.engine.host_resampling import HostResampler
from cryomamba_inference.engine.image import Box, Shape
from cryomamba_inference.engine.interface import Labels, Slab
from cryomamba_inference.engine.resampling import Resampling, Rule, taps
from cryomamba_inference.engine.slab_shapes import PLANES_AT_ONCE, held_planes
from cryomamba_inference.engine.tiling import Tiling


@dataclass(frozen=True)
class Place:
    """Where the network's volume lies in the file's, axes [z, y, x]."""

    shape: Shape
    """Of the file."""
    box: Box
    """What was cropped out."""
    tiling: Tiling
    resampling: Resampling
    """From the network's voxels back to those of the box."""


class Slabs(ABC):
    """Takes logits and gives slabs of the file's planes, from one plane to the last, without gaps.

    Args:
        heads: What the logits stand for.
        place: Where they belong.
        first: The file's first plane to give; those before it are there already.
        probabilities: Whether these are wanted too.
    """

    def __init__(self, heads: Heads, place: Place, first: int, *, probabilities: bool) -> None:
        self._heads = heads
        self._place = place
        self._next = first
        self._probabilities = probabilities

    @property
    def next_plane(self) -> int:
        """The file's first plane that has not been given."""
        return self._next

    @property
    @abstractmethod
    def first_plane_needed(self) -> int:
        """The first plane of the padded network volume that the next planes are made from."""

    @abstractmethod
    def add(self, plane: int, rows: range, logits: torch.Tensor) -> None:
        """Take complete logits.

        Args:
            plane: Of the padded network volume, the first one.
            rows: Of the padded network volume.
            logits: [heads, planes, rows, columns of the padded volume].
        """

    @abstractmethod
    def _ready(self, final: int) -> Iterator[Slab]:
        """Give the planes of the box that can be decided when all of the network's before `final` have come."""

    def slabs(self, final: int) -> Iterator[Slab]:
        """Give the planes that can be decided. A slab's arrays are good until the next one is asked for.

        Args:
            final: All planes of the padded network volume before this one have come.
        """
        start, stop = self._place.box[0]
        yield from self._background(start)
        yield from self._ready(final - self._place.tiling.padding[0])
        if self._next >= stop:
            yield from self._background(self._place.shape[0])

    def _background(self, stop: int) -> Iterator[Slab]:
        while self._next < stop:
            yield self._given(*self._empty(min(PLANES_AT_ONCE, stop - self._next)))

    def _empty(self, planes: int) -> tuple[Labels, NDArray[np.float16] | None]:
        shape = (planes, *self._place.shape[1:])
        labels: Labels = np.zeros(shape, dtype=self._heads.dtype)
        return labels, self._heads.probabilities_of_nothing(shape) if self._probabilities else None

    def _given(self, labels: Labels, probabilities: NDArray[np.float16] | None) -> Slab:
        first, self._next = self._next, self._next + len(labels)
        return Slab(first, labels, probabilities)

    def _within(self, plane: int, rows: range, logits: torch.Tensor, first: int) -> "_Part | None":
        """Cut the padding off, and the planes before `first` (of the network's volume without padding)."""
        tiling = self._place.tiling
        before, above, left = tiling.padding
        start, stop = max(plane - before, first), min(plane - before + logits.shape[1], tiling.shape[0])
        top, bottom = max(0, rows.start - above), min(tiling.shape[1], rows.stop - above)
        if start >= stop or top >= bottom:
            return None
        inside = logits[
            :,
            start - plane + before : stop - plane + before,
            top - rows.start + above : bottom - rows.start + above,
            left : left + tiling.shape[2],
        ]
        return _Part(range(start, stop), range(top, bottom), inside)


@dataclass(frozen=True)
class _Part:
    planes: range
    """Of the network's volume without padding, as `rows`."""
    rows: range
    logits: torch.Tensor


class DirectSlabs(Slabs):
    """Where the network's voxels are the file's: decided line by line, so that no logits are kept."""

    def __init__(self, heads: Heads, place: Place, first: int, *, probabilities: bool) -> None:
        super().__init__(heads, place, first, probabilities=probabilities)
        tiling = place.tiling
        starts = tiling.starts[0]
        self._labels, self._chances = self._empty(
            max(tiling.final_after(row) - start for row, start in enumerate(starts))
        )
        self._coming: list[tuple[tuple[slice, ...], Callable[[], Labels]]] = []
        """Labels of the last line, which a GPU may still be at, and their places."""

    @property
    def first_plane_needed(self) -> int:
        """The next plane itself."""
        start, stop = self._place.box[0]
        return min(max(self._next, start), stop) - start + self._place.tiling.padding[0]

    def add(self, plane: int, rows: range, logits: torch.Tensor) -> None:
        """Decide these voxels."""
        (start, _), (top, _), columns = self._place.box
        base = max(self._next - start, 0)
        part = self._within(plane, rows, logits, base)
        self._place_what_came()
        if part is None:
            return
        place = (slice(top + part.rows.start, top + part.rows.stop), slice(*columns))
        first = part.planes.start - base
        for start in range(0, len(part.planes), PLANES_AT_ONCE):
            logits = part.logits[:, start : start + PLANES_AT_ONCE]
            planes = slice(first + start, first + start + logits.shape[1])
            self._coming.append(((planes, *place), self._heads.labels(logits)))
            if self._chances is not None:
                self._chances[:, planes, *place] = self._heads.probabilities(logits)

    def _place_what_came(self) -> None:
        for place, labels in self._coming:
            self._labels[place] = labels()
        self._coming.clear()

    def _ready(self, final: int) -> Iterator[Slab]:
        self._place_what_came()
        start, stop = self._place.box[0]
        planes = min(final, stop - start) - (self._next - start)
        if planes > 0:
            yield self._given(self._labels[:planes], None if self._chances is None else self._chances[:, :planes])


class ResampledSlabs(Slabs):
    """Where they are not: logits are kept for a row of tiles and resampled head by head, for a few planes at a time.

    Args:
        heads: As in `Slabs`.
        place: As in `Slabs`.
        first: As in `Slabs`.
        probabilities: As in `Slabs`.
        like: Any tensor of the device and type of the logits.
    """

    def __init__(self, heads: Heads, place: Place, first: int, *, probabilities: bool, like: torch.Tensor) -> None:
        super().__init__(heads, place, first, probabilities=probabilities)
        how = place.resampling
        self._along = [
            _Axis(old, new, rule, like) for old, new, rule in zip(how.source, how.target, how.rules, strict=True)
        ]
        self._logits = like.new_empty(
            (heads.count, held_planes(place.tiling, place.resampling), *place.tiling.shape[1:])
        )
        on_host = like.device.type == "cpu"
        self._on_host = HostResampler(how, like.cpu().numpy().dtype) if on_host else None
        self._base = self._first_needed()
        """The network's plane, without padding, that `_logits` begin with."""

    @property
    def first_plane_needed(self) -> int:
        """The first one that the next plane is interpolated from."""
        return self._first_needed() + self._place.tiling.padding[0]

    @torch.inference_mode()
    def add(self, plane: int, rows: range, logits: torch.Tensor) -> None:
        """Keep the logits."""
        part = self._within(plane, rows, logits, self._base)
        if part is not None:
            planes = slice(part.planes.start - self._base, part.planes.stop - self._base)
            self._logits[:, planes, part.rows.start : part.rows.stop] = part.logits

    def _ready(self, final: int) -> Iterator[Slab]:
        start = self._place.box[0][0]
        known = min(final, self._place.tiling.shape[0])
        ready = start + self._along[0].ready(known)
        before: Callable[[], tuple[Labels, NDArray[np.float16] | None]] | None = None
        for first in range(self._next - start, ready - start, PLANES_AT_ONCE):
            decided = self._decided(range(first, min(first + PLANES_AT_ONCE, ready - start)))
            # A GPU is at these planes while the ones before go out.
            if before is not None:
                yield self._given(*before())
            before = decided
        if before is not None:
            yield self._given(*before())
        self._move_on(known)

    @torch.inference_mode()
    def _move_on(self, known: int) -> None:
        """Keep the planes that others will be made from as well, at the front."""
        needed = min(self._first_needed(), known)
        for index in range(known - needed):
            self._logits[:, index] = self._logits[:, needed - self._base + index]
        self._base = max(needed, self._base)

    def _first_needed(self) -> int:
        start, stop = self._place.box[0]
        return self._along[0].first(max(self._next - start, 0)) if self._next < stop else self._place.tiling.shape[0]

    def _decided(self, planes: range) -> Callable[[], tuple[Labels, NDArray[np.float16] | None]]:
        labels, probabilities = self._empty(len(planes))
        _, rows, columns = (slice(*edges) for edges in self._place.box)
        inside = labels[:, rows, columns], None if probabilities is None else probabilities[:, :, rows, columns]
        if self._on_host is None:
            coming = self._decide_on_device(planes, inside[1])
        else:
            self._decide_on_host(self._on_host, planes, *inside)
            coming = None

        def arrived() -> tuple[Labels, NDArray[np.float16] | None]:
            if coming is not None:
                inside[0][:] = coming()
            return labels, probabilities

        return arrived

    def _decide_on_host(
        self, resampler: HostResampler, planes: range, labels: Labels, probabilities: NDArray[np.float16] | None
    ) -> None:
        """Decide band by band, each in one of as many threads as torch uses.

        A thread has more to do than with torch's own, which share out each of hundreds of short calls and wait for
        each other at its end.
        """
        logits = self._logits.numpy()

        def decide(rows: range) -> None:
            band = slice(rows.start, rows.stop)
            heads = resampler.heads(logits, self._base, planes, rows)
            if probabilities is None:
                labels[:, band] = self._heads.labels_on_host(heads)
            else:
                stack = np.stack([head.copy() for head in heads])
                labels[:, band] = self._heads.labels_on_host(stack)
                probabilities[:, :, band] = self._heads.probabilities(torch.from_numpy(stack))

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for _ in threads.map(decide, resampler.bands()):
                pass

    @torch.inference_mode()
    def _decide_on_device(self, planes: range, probabilities: NDArray[np.float16] | None) -> Callable[[], Labels]:
        heads = (self._resampled(head, planes) for head in range(self._heads.count))
        if probabilities is None:
            return self._heads.labels(heads)
        logits = torch.stack(list(heads))
        coming = self._heads.labels(logits)
        probabilities[:] = self._heads.probabilities(logits)
        return coming

    def _resampled(self, head: int, planes: range) -> torch.Tensor:
        across, along_rows, along_columns = self._along
        first, last = across.first(planes.start), across.last(planes.stop - 1)
        logits = self._logits[head, first - self._base : last + 1 - self._base]
        # Columns first: they are the slowest to gather, and so far there are the fewest of them.
        logits = along_rows.apply(along_columns.apply(logits, 2), 1)
        return across.apply(logits, 0, planes, first)


class _Axis:
    """Interpolation along one axis of logits."""

    def __init__(self, source: int, target: int, rule: Rule, like: torch.Tensor) -> None:
        both = taps(source, target, rule)
        self._lower, self._upper = both.lower, both.upper
        self._changes, self._blends = rule != "same", bool(both.weight.any())
        self._at = [torch.from_numpy(indices).to(like.device) for indices in (both.lower, both.upper)]
        self._weight = torch.from_numpy(both.weight).to(like.device, like.dtype)

    def ready(self, known: int) -> int:
        """Return how many target voxels need no source voxel from `known` on."""
        return int(np.searchsorted(self._upper, known))

    def first(self, target: int) -> int:
        """Return the first source voxel that a target voxel is made from."""
        return int(self._lower[target])

    def last(self, target: int) -> int:
        """Return the last one."""
        return int(self._upper[target])

    def apply(self, values: torch.Tensor, dim: int, window: range | None = None, offset: int = 0) -> torch.Tensor:
        """Interpolate.

        Args:
            values: Of the source, from `offset` on along `dim`.
            dim: Which one.
            window: Target voxels; None: all.
            offset: Index of the first source voxel in `values`.
        """
        if not self._changes:
            return values
        part = slice(None) if window is None else slice(window.start, window.stop)
        lower, upper = (at[part] - offset for at in self._at)
        near = values.index_select(dim, lower)
        if not self._blends:
            return near
        shape = [1] * values.ndim
        shape[dim] = -1
        return near.lerp_(values.index_select(dim, upper), self._weight[part].reshape(shape))
