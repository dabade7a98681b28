"""How much memory a volume takes with a model: arithmetic on plans and header, before either is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cryomamba_crds.model_gate import ModelFacts, network_shape
from cryomamba_inference.components import component_bytes
from cryomamba_inference.engine.image import Shape, whole
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.memory import Workload, host_memory_needed
from cryomamba_inference.engine.network_input import chunk_bytes
from cryomamba_inference.engine.network_memory import network_of, pass_bytes
from cryomamba_inference.engine.plane import label_dtype
from cryomamba_inference.engine.resampling import UnsupportedError
from cryomamba_inference.engine.slab_shapes import PLANES_AT_ONCE, held_planes, transfer_bytes
from cryomamba_inference.engine.suitability import Route, plan_route
from cryomamba_inference.engine.tiling import Tiling, in_file_axes, largest_overlap, mirrorings, tile_volume

_FLOAT = 4
_HALF = 2
_ITSELF = 40 << 20
"""Bytes of main memory that torch's libraries, threads and the survey of the volume take, whatever the model."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak, beyond what the program itself takes."""

    tiles: int
    """Over all folds."""
    host: dict[str, int]
    """Main memory, by what it is for."""
    device: dict[str, int]
    """The GPU's memory; empty where the network runs on the CPU."""

    @property
    def host_bytes(self) -> int:
        """Main memory."""
        return sum(self.host.values())

    @property
    def device_bytes(self) -> int:
        """The GPU's memory."""
        return sum(self.device.values())


@dataclass(frozen=True)
class Outlook:
    """What segmenting a volume will be like."""

    route: Route | None
    """Through the streaming engine; None where nnU-Net's own predictor has to do it."""
    because: str
    """Of what; to end the sentence "the model ..."; empty where it streams."""
    seen: Shape
    """What the network sees of the volume, [z, y, x], before padding."""
    memory: MemoryPlan


@dataclass(frozen=True)
class Setting:
    """What memory depends on, beside model and volume."""

    device: Literal["cpu", "cuda"]
    folds: int
    batch: int
    """Passes of the network at once."""
    sums_on_host: bool = False
    """Whether tiles are summed and labels decided in main memory though the network runs on a GPU."""


def plan_memory(
    facts: ModelFacts, configuration: Mapping[str, Any], shape: Shape, route: Route, options: Options, setting: Setting
) -> MemoryPlan:
    """Tell what the streaming engine takes.

    Main memory was measured as the growth of RssAnon from before the model is loaded, on the CPU with one thread: on
    the grid of the engine's correctness, on volumes of up to 64 x 512 x 512 with 3 to 40 classes, and with full-size
    networks (see `pass_bytes`; 2.08 GB plain with two folds, 2.34 GB residual: told are 2.11 and 2.40). What is told
    of a GPU's memory is arithmetic only.

    Args:
        facts: The model's.
        configuration: The plans' entry for it.
        shape: Of the file, [z, y, x].
        route: Of the volume through the network; that of the whole volume is an upper bound.
        options: How it is segmented.
        setting: Where, and with how much at once.
    """
    tiling = tile_volume(route.seen, facts.patch_size, facts.transpose_forward, options.step_size)
    weights, network = _network(facts, configuration, options, setting)
    channels = len(facts.channel_names)
    lines, on_device = transfer_bytes(tiling, channels, setting.device)
    sums = {"sums": _sums(tiling, facts, route, options), "logits": _logits(tiling, facts, route, options)}
    host = {
        "program": _ITSELF,
        # The first fold's; those of all are mapped from their files.
        "weights": weights,
        "input": lines + _resampled(tiling, route, channels),
        "labels": _labels(tiling, facts, shape, options),
        "statistics": component_bytes(math.prod(shape[1:])),
        "preview": _FLOAT * (facts.heads + 3) * math.prod(tiling.padded[1:]),
    }
    tiles = tiling.count * setting.folds
    if setting.device == "cpu":
        return MemoryPlan(tiles, {**host, **network, **sums}, {})
    device = {
        # Every fold's, and those of one in half precision.
        "weights": weights * setting.folds + weights // 2,
        **network,
        "lines": on_device,
    }
    if setting.sums_on_host:
        return MemoryPlan(tiles, {**host, **sums, "tile": _tile(facts)}, device)
    return MemoryPlan(tiles, host, {**device, **sums})


def foresee(
    facts: ModelFacts,
    configuration: Mapping[str, Any],
    shape: Shape,
    spacing: tuple[float, float, float],
    options: Options,
    setting: Setting,
) -> Outlook:
    """Tell how a volume will be segmented and what that takes, from its header alone.

    Args:
        facts: The model's.
        configuration: The plans' entry for it.
        shape: Of the file, [z, y, x]. Its non-zero box, which only the voxels tell, is at most as large.
        spacing: Under which nnU-Net is handed the volume, [z, y, x].
        options: How it is segmented.
        setting: Where, and with how much at once.
    """
    try:
        route = plan_route(facts, configuration, whole(shape), spacing)
    except UnsupportedError as unsupported:
        seen = in_file_axes(network_shape(facts, shape, spacing), facts.transpose_forward)
        return Outlook(None, str(unsupported), seen, _plan_stock(facts, configuration, (shape, seen), options, setting))
    return Outlook(route, "", route.seen, plan_memory(facts, configuration, shape, route, options, setting))


def _plan_stock(
    facts: ModelFacts,
    configuration: Mapping[str, Any],
    shapes: tuple[Shape, Shape],
    options: Options,
    setting: Setting,
) -> MemoryPlan:
    """Tell what nnU-Net's own predictor takes: the whole volume, and its logits as float16."""
    shape, seen = shapes
    tiling = tile_volume(seen, facts.patch_size, facts.transpose_forward, options.step_size)
    weights, network = _network(facts, configuration, options, replace(setting, batch=1))
    load = Workload(
        input_shape=shape,
        network_shape=tiling.padded,
        resampled=seen != shape,
        heads=facts.heads,
        folds=setting.folds,
        regions=facts.regions,
        probabilities=options.save_probabilities,
        channels=len(facts.channel_names),
    )
    voxels = math.prod(tiling.padded)
    # The logits, the sums of their weights and the input. Where they don't fit nnU-Net keeps them on the host.
    bytes_a_voxel = _HALF * facts.heads + _HALF + _FLOAT * len(facts.channel_names)
    volume = {"volume": 0 if setting.sums_on_host else voxels * bytes_a_voxel}
    host = {"program": _ITSELF, "weights": weights, "volume": host_memory_needed(load)}
    tiles = tiling.count * setting.folds
    if setting.device == "cuda":
        return MemoryPlan(tiles, host, {"weights": weights + weights // 2, **network, **volume})
    return MemoryPlan(tiles, {**host, **network}, {})


def _network(
    facts: ModelFacts, configuration: Mapping[str, Any], options: Options, setting: Setting
) -> tuple[int, dict[str, int]]:
    """Return the bytes of a fold's weights, and what passes of the network take beside them."""
    network = network_of(configuration, len(facts.channel_names), facts.heads)
    flips = len(mirrorings(facts.mirroring_axes)) if options.mirroring else 1
    one_pass = pass_bytes(network, facts.patch_size, setting.batch, on_gpu=setting.device == "cuda")
    # What a batch gave, one of it turned back, and the sums of the tiles that it is of. With more flips than go at once
    # they are there while the next batch is on its way.
    given = _tile(facts) * (setting.batch + 1 + max(1, setting.batch // flips))
    inputs = 2 * setting.batch * _FLOAT * len(facts.channel_names) * math.prod(facts.patch_size)
    tiles = inputs + (given if flips > setting.batch else max(0, given - one_pass))
    return _FLOAT * network.weights, {"activations": one_pass, "tiles": tiles}


def _tile(facts: ModelFacts) -> int:
    return _FLOAT * facts.heads * math.prod(facts.patch_size)


def _divided(route: Route, options: Options) -> bool:
    return route.back.changes or options.save_probabilities


def _sums(tiling: Tiling, facts: ModelFacts, route: Route, options: Options) -> int:
    channels = facts.heads + _divided(route, options)
    depth, height, _ = tiling.patch
    _, rows, columns = tiling.padded
    return _FLOAT * channels * columns * (depth * height + largest_overlap(tiling) * rows)


def _logits(tiling: Tiling, facts: ModelFacts, route: Route, options: Options) -> int:
    """What is kept of logits, and what deciding takes a voxel: the largest, a mask, the labels twice."""
    heads = facts.heads if options.save_probabilities else 1
    if not route.back.changes:
        height, columns = tiling.patch[1], tiling.shape[2]
        return PLANES_AT_ONCE * height * columns * (7 + (2 * _FLOAT + _HALF) * heads * options.save_probabilities)
    _, rows, columns = tiling.shape
    kept = _FLOAT * facts.heads * held_planes(tiling, route.back) * rows * columns
    _, height, width = route.back.target
    planes = math.ceil(PLANES_AT_ONCE * max(1, route.back.source[0] / route.back.target[0])) + 2
    gathered = 2 * _FLOAT * planes * (rows * width + height * width) + 2 * _FLOAT * PLANES_AT_ONCE * height * width
    decided = PLANES_AT_ONCE * height * width * (7 + (3 * _FLOAT + _HALF) * heads * options.save_probabilities)
    return kept + gathered + decided


def _resampled(tiling: Tiling, route: Route, channels: int) -> int:
    """What is kept of the volume, resampled, for lines to be read from."""
    if not route.into.changes:
        return 0
    _, rows, columns = tiling.shape
    held = _FLOAT * channels * min(tiling.patch[0], tiling.shape[0]) * rows * columns
    return held + chunk_bytes(route.into, channels)


def _labels(tiling: Tiling, facts: ModelFacts, shape: Shape, options: Options) -> int:
    planes = max(_deepest(tiling), PLANES_AT_ONCE)
    one = label_dtype(max(facts.label_names))().itemsize
    return planes * shape[1] * shape[2] * (one + _HALF * facts.heads * options.save_probabilities)


def _deepest(tiling: Tiling) -> int:
    return max(tiling.final_after(row) - start for row, start in enumerate(tiling.starts[0]))
