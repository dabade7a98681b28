"""How much memory a volume takes with a model: arithmetic on plans and header, before either is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import ModelFacts, network_shape
from cryomamba_inference.engine.image import Shape, whole
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.memory import Workload, host_memory_needed
from cryomamba_inference.engine.network_input import chunk_bytes
from cryomamba_inference.engine.plane import label_dtype
from cryomamba_inference.engine.resampling import UnsupportedError
from cryomamba_inference.engine.slab_shapes import PLANES_AT_ONCE, held_planes
from cryomamba_inference.engine.suitability import Route, plan_route
from cryomamba_inference.engine.tiling import Tiling, in_file_axes, largest_overlap, patch_in_three, tile_volume

_FLOAT = 4
_HALF = 2
_FEW_FEATURES = 16
_FIXED = ("program", "network", "weights", "activations", "tiles")
"""Parts that no crop makes smaller."""
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


def plan_memory(
    facts: ModelFacts, configuration: Mapping[str, Any], shape: Shape, route: Route, options: Options, setting: Setting
) -> MemoryPlan:
    """Tell what the streaming engine takes.

    Args:
        facts: The model's.
        configuration: The plans' entry for it.
        shape: Of the file, [z, y, x].
        route: Of the volume through the network; that of the whole volume is an upper bound.
        options: How it is segmented.
        setting: Where, and with how much at once.
    """
    tiling = tile_volume(route.seen, facts.patch_size, facts.transpose_forward, options.step_size)
    network = {
        "weights": _weights(configuration, facts) * (setting.folds + 1),
        "activations": _activations(configuration, facts, setting.batch),
        "tiles": 3 * facts.heads * _FLOAT * math.prod(facts.patch_size) * setting.batch,
    }
    sums = {"sums": _sums(tiling, facts, route, options), "logits": _logits(tiling, facts, route, options)}
    host = {
        "program": _ITSELF,
        "input": _input(tiling, route),
        "labels": _labels(tiling, facts, shape, options),
        "preview": 2 * facts.heads * _FLOAT * math.prod(tiling.padded[1:]),
    }
    tiles = tiling.count * setting.folds
    if setting.device == "cuda":
        lines = {"lines": 2 * _FLOAT * math.prod(tiling.patch[:2]) * tiling.padded[2]}
        return MemoryPlan(tiles, {**host, "weights": network["weights"]}, {**network, **sums, **lines})
    return MemoryPlan(tiles, {**host, **network, **sums}, {})


def choose_batch(configuration: Mapping[str, Any], device: Literal["cpu", "cuda"]) -> int:
    """Return how many passes of the network go at once.

    A rule and not a timed trial, since the last bits of the result depend on it: two runs must give the same. Measured
    on two cores: with 4 to 16 features a pass in a batch of two takes half the time or less, as torch then leaves its
    slow path for single inputs; with 32 it takes longer. On a GPU one pass of a full-size patch fills the device.
    """
    few = int(_architecture(configuration)["features_per_stage"][0]) <= _FEW_FEATURES
    return 2 if device == "cpu" and few else 1


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
    network = _weights(configuration, facts) * 2 + _activations(configuration, facts, 1)
    load = Workload(
        input_shape=shape,
        network_shape=tiling.padded,
        heads=facts.heads,
        folds=setting.folds,
        regions=facts.regions,
        probabilities=options.save_probabilities,
    )
    # The logits, the sums of their weights and the input. Where they don't fit nnU-Net keeps them on the host.
    voxels = math.prod(tiling.padded)
    device = {"network": network, "volume": voxels * (_HALF * facts.heads + _HALF + _FLOAT)}
    host = {"program": _ITSELF, "volume": host_memory_needed(load)}
    tiles = tiling.count * setting.folds
    if setting.device == "cuda":
        return MemoryPlan(tiles, host, device)
    return MemoryPlan(tiles, {**host, "network": network}, {})


def refuse_what_does_not_fit(outlook: Outlook, planes: int, free: int | None) -> None:
    """Refuse a volume whose segmentation needs more main memory than there is.

    Args:
        outlook: For it.
        planes: Of the volume along Z. What the streaming engine holds does not grow with them.
        free: Bytes; None where it is unknown, which refuses nothing.

    Raises:
        FailureError: OUT_OF_MEMORY, with both figures and what would fit.
    """
    plan = outlook.memory
    if free is None or plan.host_bytes <= free:
        return
    fixed = sum(plan.host.get(name, 0) for name in _FIXED)
    share = max(0.0, (free - fixed) / (plan.host_bytes - fixed))
    if outlook.route is None:
        way = f" by nnU-Net's own predictor, since the model {outlook.because},"
        crop = f"A crop to about {math.floor(planes * share)} of the {planes} Z planes would fit. " if share else ""
    else:
        way = ""
        crop = f"A crop to about {math.floor(100 * math.sqrt(share))} % along X and Y would fit. " if share else ""
    raise FailureError(
        FailureCode.OUT_OF_MEMORY,
        f"memory: segmenting this volume{way} takes about {plan.host_bytes / 1e9:.1f} GB of main memory and "
        f"{free / 1e9:.1f} GB are free",
        hint=f"{crop}Bin or crop the volume, use a machine with more memory, or, if the voxel size makes the volume "
        "larger than it is, the spacing policy 'ignore'.",
        details={
            "needed_bytes": plan.host_bytes,
            "available_bytes": free,
            "parts": plan.host,
            "network_shape": list(outlook.seen),
        },
    )


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


def _input(tiling: Tiling, route: Route) -> int:
    lines = 2 * _FLOAT * math.prod(tiling.patch[:2]) * tiling.padded[2]
    if not route.into.changes:
        return lines
    _, rows, columns = tiling.shape
    held = _FLOAT * min(tiling.patch[0], tiling.shape[0]) * rows * columns
    return lines + held + chunk_bytes(route.into)


def _labels(tiling: Tiling, facts: ModelFacts, shape: Shape, options: Options) -> int:
    planes = max(_deepest(tiling), PLANES_AT_ONCE)
    one = label_dtype(max(facts.label_names))().itemsize
    return planes * shape[1] * shape[2] * (one + _HALF * facts.heads * options.save_probabilities)


def _deepest(tiling: Tiling) -> int:
    return max(tiling.final_after(row) - start for row, start in enumerate(tiling.starts[0]))


def _architecture(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments: Mapping[str, Any] = configuration["architecture"]["arch_kwargs"]
    return arguments


def _weights(configuration: Mapping[str, Any], facts: ModelFacts) -> int:
    """Bytes of a fold's weights, biases and norms left out: kernels of encoder, decoder and upsampling."""
    arguments = _architecture(configuration)
    features, kernels, strides = (arguments[name] for name in ("features_per_stage", "kernel_sizes", "strides"))
    residual = "n_blocks_per_stage" in arguments
    blocks = arguments["n_blocks_per_stage"] if residual else arguments["n_conv_per_stage"]
    total, before = 0, len(facts.channel_names)
    for width, kernel, count in zip(features, kernels, blocks, strict=True):
        convolutions = 2 * count if residual else count
        total += math.prod(kernel) * width * (before + (convolutions - 1) * width)
        # A residual block that changes the number of features carries its input past by a kernel of one voxel.
        total += before * width if residual else 0
        before = width
    for stage, count in enumerate(arguments["n_conv_per_stage_decoder"]):
        level = len(features) - 2 - stage
        width, below = features[level], features[level + 1]
        total += below * width * math.prod(strides[level + 1])
        total += math.prod(kernels[level]) * width * width * (2 + count - 1)
    return _FLOAT * total


def _activations(configuration: Mapping[str, Any], facts: ModelFacts, batch: int) -> int:
    """Estimate what one batch takes, from what was measured on nets of 4 to 32 features and patches of 16 to 96 voxels.

    It was 8.2 to 8.9 maps of the first stage's size, which outweigh the deeper ones, and some 40 MB. On the CPU torch
    unfolds single inputs of few features by the voxels of the kernel (50 maps in all).
    """
    features = int(_architecture(configuration)["features_per_stage"][0])
    one = _FLOAT * math.prod(patch_in_three(facts.patch_size)) * features
    unfolded = 32 * one if batch == 1 and features < _FEW_FEATURES else 0
    return 9 * one * batch + unfolded + (40 << 20)
