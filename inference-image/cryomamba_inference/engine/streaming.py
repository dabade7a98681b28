"""The streaming engine: rows of tiles along the file's Z, slabs of labels as soon as they are final."""

import contextlib
import functools
import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cryomamba_inference.engine.arrival import Arrival
from cryomamba_inference.engine.deciding import Heads
from cryomamba_inference.engine.image import Box, Image, Shape
from cryomamba_inference.engine.interface import Labels, Options, Segmentation, Slab, Stage, Tick
from cryomamba_inference.engine.lines import Lines
from cryomamba_inference.engine.network import TileNetwork
from cryomamba_inference.engine.network_input import (
    NormalisedPlanes,
    Planes,
    ResampledPlanes,
    clip_bounds,
    fill_line,
)
from cryomamba_inference.engine.normalisation import normalisation
from cryomamba_inference.engine.plane import Geometry, PlaneLabels, label_dtype
from cryomamba_inference.engine.slab_shapes import line_buffers
from cryomamba_inference.engine.slabs import DirectSlabs, Place, ResampledSlabs, Slabs
from cryomamba_inference.engine.suitability import Route
from cryomamba_inference.engine.sums import SlidingSums
from cryomamba_inference.engine.survey import Survey, extremes_along
from cryomamba_inference.engine.tiling import Tiling, patch_in_three, tile_volume, tile_weights
from cryomamba_inference.model import Model

_NUMPY_TYPES: dict[torch.dtype, type[np.floating[Any]]] = {torch.float32: np.float32, torch.float64: np.float64}


@dataclass(frozen=True)
class Work:
    """One volume for one model."""

    model: Model
    image: Image
    survey: Survey
    route: Route
    options: Options
    batch: int = 1
    """Passes of the network at once."""
    sums_on: torch.device | None = None
    """Where tiles are summed and labels decided; None: on the model's device."""
    dtype: torch.dtype = torch.float32
    """Of intensities and sums; float64 is for tests."""

    @property
    def tiling(self) -> Tiling:
        """The tiles."""
        facts = self.model.facts
        return tile_volume(self.route.seen, facts.patch_size, facts.transpose_forward, self.options.step_size)


def stream(work: Work, *, first: int = 0) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume; the generator's return value is the summary.

    Args:
        work: What is to be done.
        first: The file's first plane that is wanted. The slabs from there on are, to the last bit, those that a run
            from the beginning gives.

    Raises:
        FailureError: INFERENCE_ERROR; the network's output is not finite.
    """
    run = _Run(work, first)
    began = time.monotonic()
    with run.network.restored_at_the_end():
        yield from run.rows()
    seconds = time.monotonic() - began
    yield run.tick("assemble")
    a_tile = seconds / run.done_here if run.done_here else None
    return Segmentation("streaming", run.total, (), work.batch, a_tile, str(work.model.device))


class _Run:
    def __init__(self, work: Work, first: int) -> None:
        model, options = work.model, work.options
        facts = model.facts
        self._tiling = work.tiling
        self._forward = facts.transpose_forward
        self._flat = len(facts.patch_size) < len(self._tiling.patch)
        self._channels = [_planes(work, channel, self._tiling.patch[0]) for channel in range(work.image.channels)]
        self.network = TileNetwork(
            model, mirroring=options.mirroring, batch=work.batch, dtype=work.dtype, tuning=options.tuning
        )
        weights = tile_weights(facts.patch_size).reshape(patch_in_three(facts.patch_size))
        # Transposed by the order in which the file's axes appear in the plan's.
        self._backward = [self._forward.index(axis) for axis in range(len(self._forward))]
        in_file = torch.from_numpy(np.ascontiguousarray(weights.transpose(self._backward)))
        in_file = in_file.to(work.sums_on or model.device, work.dtype)
        order = tuple(facts.label_names) if facts.regions else None
        heads = Heads(facts.heads, order, label_dtype(max(facts.label_names)))
        place = Place(work.image.shape, work.survey.box, self._tiling, work.route.back)
        resampled, wanted = place.resampling.changes, options.save_probabilities
        self._sums = SlidingSums(self._tiling, in_file, heads.count, divided=resampled or wanted)
        self._dtype = work.dtype
        self._slabs: Slabs = (
            ResampledSlabs(heads, place, first, probabilities=wanted, like=in_file)
            if resampled
            else DirectSlabs(heads, place, first, probabilities=wanted)
        )
        self._end = work.survey.box[0][1]
        self._preview = _preview_plane(work, self._tiling, heads, weights)
        self._cuts: deque[tuple[Arrival, Shape]] = deque()
        """Outputs in the preview's plane that may still be on their way, and the places of their tiles."""
        self.total = self._tiling.count * self.network.folds
        self.done = 0
        self.done_here = 0

    def tick(self, stage: Stage) -> Tick:
        return Tick(stage, self.done, self.total, self._partial_labels)

    def rows(self) -> Iterator[Tick | Slab]:
        starts = self._tiling.starts[0]
        first = len(starts)
        if self._slabs.next_plane < self._end:
            first = self._tiling.first_row_reaching(self._slabs.first_plane_needed)
        a_row = self.total // len(starts)
        self.done = first * a_row
        with contextlib.closing(self._lines(first)) as lines:
            for row in range(first, len(starts)):
                self._sums.begin_row(row)
                for line, y in enumerate(self._tiling.starts[1]):
                    self._sums.begin_line(line)
                    yield from self._line(starts[row], y, lines.take())
                    rows, logits = self._sums.end_line(line)
                    self._slabs.add(starts[row], rows, logits)
                yield from self._slabs.slabs(self._tiling.final_after(row))
        if first == len(starts):
            yield from self._slabs.slabs(self._tiling.padded[0])

    def _lines(self, first: int) -> Lines:
        """Return what lines of tiles see, from a row on."""
        tiling, device = self._tiling, self.network.device
        return Lines(
            lambda corner, into: fill_line(self._channels, tiling, corner, into),
            list(itertools.product(tiling.starts[0][first:], tiling.starts[1])),
            (len(self._channels), *tiling.patch[:2], tiling.padded[2]),
            dtype=self._dtype,
            device=device,
            buffers=line_buffers(device.type),
        )

    def _line(self, z: int, y: int, seen: torch.Tensor) -> Iterator[Tick]:
        columns, width = self._tiling.starts[2], self._tiling.patch[2]
        at_once = self.network.tiles_at_once
        for fold in range(self.network.folds):
            self.network.use_fold(fold)
            for start in range(0, len(columns), at_once):
                part = columns[start : start + at_once]
                outputs = self.network.predict([self._in_plan(seen[..., x : x + width]) for x in part])
                for x in part:
                    # Taken out, so that it is gone before the next ones come.
                    self._add((z, y, x), outputs.pop(0))
                    yield self.tick("infer")

    def _in_plan(self, tile: torch.Tensor) -> torch.Tensor:
        """Turn a tile [c, z, y, x] from the file's axes to the patch's."""
        turned = tile.permute(0, *(axis + 1 for axis in self._forward))
        return turned[:, 0] if self._flat else turned

    def _add(self, corner: tuple[int, int, int], output: torch.Tensor) -> None:
        in_plan = output[:, None] if self._flat else output
        self._sums.add(corner[2], in_plan.permute(0, *(axis + 1 for axis in self._backward)))
        first, second, third = (corner[axis] for axis in self._forward)
        place = (first, second, third)
        cut = self._preview.plane_within(place)
        if cut is not None:
            axis, index = cut
            self._cuts.append((Arrival(in_plan.select(axis + 1, index).float()), place))
            self._add_cuts(but=1)
        self.done += 1
        self.done_here += 1

    def _add_cuts(self, *, but: int) -> None:
        """Add outputs to the preview, all but the last so many."""
        while len(self._cuts) > but:
            output, place = self._cuts.popleft()
            self._preview.add(output.values(), place)

    def _partial_labels(self) -> Labels:
        self._add_cuts(but=0)
        return self._preview.labels()


def _planes(work: Work, channel: int, depth: int) -> Planes:
    """Return a channel of the volume as the network is to see it.

    Args:
        work: What is to be done.
        channel: Its number.
        depth: How many planes are looked at together.
    """
    model, volume, into = work.model, work.survey, work.route.into
    scheme = model.configuration.configuration["normalization_schemes"][channel]
    training = model.plans.plans["foreground_intensity_properties_per_channel"][str(channel)]
    intensities = volume.channels[channel]
    normalise = normalisation(scheme, intensities, training)
    dtype = _NUMPY_TYPES[work.dtype]
    planes = NormalisedPlanes(work.image, channel, volume.box, normalise, dtype)
    if not into.changes:
        return planes
    extremes = functools.partial(extremes_along, work.image, channel, volume.box)
    clip = clip_bounds(into, normalise, extremes, (intensities.low, intensities.high), dtype)
    return ResampledPlanes(planes, into, clip, depth)


def _preview_plane(work: Work, tiling: Tiling, heads: Heads, weights: np.ndarray) -> PlaneLabels:
    facts = work.model.facts
    first, second, third = (tiling.shape[axis] for axis in facts.transpose_forward)
    geometry = Geometry(
        input_shape=work.image.shape,
        transpose_forward=facts.transpose_forward,
        box=in_plan_axes(work.survey.box, facts.transpose_forward),
        network_shape=(first, second, third),
        patch_size=patch_in_three(facts.patch_size),
    )
    plane = work.options.preview_plane
    z = work.image.shape[0] // 2 if plane is None else plane
    return PlaneLabels(geometry, z, heads.count, heads.region_order, weights)


def in_plan_axes(box: Box, transpose_forward: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return the edges of a box in the plan's axes."""
    return [box[axis] for axis in transpose_forward]
