"""How much memory a volume takes with a model: arithmetic on plans and header, before either is loaded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import ModelFacts
from cryomamba_inference.engine.image import Shape
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.network_input import chunk_bytes
from cryomamba_inference.engine.plane import label_dtype
from cryomamba_inference.engine.slab_shapes import PLANES_AT_ONCE, held_planes
from cryomamba_inference.engine.suitability import Route
from cryomamba_inference.engine.tiling import Tiling, largest_overlap, patch_in_three, tile_volume

_FLOAT = 4
_HALF = 2
_UNFOLDED_AT_MOST = 256 << 20


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
        "activations": _activations(configuration, facts) * setting.batch,
        "tiles": 3 * facts.heads * _FLOAT * math.prod(facts.patch_size) * setting.batch,
    }
    sums = {"sums": _sums(tiling, facts, route, options), "logits": _logits(tiling, facts, route, options)}
    host = {
        "input": _input(tiling, route),
        "labels": _labels(tiling, facts, shape, options),
        "preview": 2 * facts.heads * _FLOAT * math.prod(sorted(tiling.padded)[1:]),
    }
    tiles = tiling.count * setting.folds
    if setting.device == "cuda":
        lines = {"lines": 2 * _FLOAT * math.prod(tiling.patch[:2]) * tiling.padded[2]}
        return MemoryPlan(tiles, {**host, "weights": network["weights"]}, {**network, **sums, **lines})
    return MemoryPlan(tiles, {**host, **network, **sums}, {})


def refuse_what_is_too_large(plan: MemoryPlan, planes: int, free: int | None) -> None:
    """Refuse a volume whose segmentation needs more main memory than there is.

    Args:
        plan: For it.
        planes: Of the volume along Z. What is held does not grow with them.
        free: Bytes; None where it is unknown, which refuses nothing.

    Raises:
        FailureError: OUT_OF_MEMORY, with both figures and what would fit.
    """
    if free is None or plan.host_bytes <= free:
        return
    fixed = sum(plan.host.get(name, 0) for name in ("weights", "activations", "tiles"))
    share = max(0.0, (free - fixed) / (plan.host_bytes - fixed))
    crop = f"A crop to about {math.floor(100 * math.sqrt(share))} % along X and Y would fit. " if share else ""
    largest = max(plan.host, key=plan.host.__getitem__)
    raise FailureError(
        FailureCode.OUT_OF_MEMORY,
        f"memory: segmenting this volume takes about {plan.host_bytes / 1e9:.1f} GB of main memory, most of it for "
        f"{largest}, and {free / 1e9:.1f} GB are free",
        hint=f"{crop}Bin or crop the volume (fewer of its {planes} Z planes change nothing), use a machine with more "
        "memory, or, if the voxel size makes the volume larger than it is, the spacing policy 'ignore'.",
        details={"needed_bytes": plan.host_bytes, "available_bytes": free, "parts": plan.host},
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


def _activations(configuration: Mapping[str, Any], facts: ModelFacts) -> int:
    """Estimate what one pass takes: about eight maps at full resolution, which outweigh the deeper ones.

    On the CPU convolutions of few channels unfold their input by the kernel's 27 voxels; those of many, whose maps are
    large, do not (measured: 41 maps for 8 channels and a patch of 32 x 64 x 64).
    """
    full = math.prod(patch_in_three(facts.patch_size)) * int(_architecture(configuration)["features_per_stage"][0])
    return 8 * _FLOAT * full + min(27 * _FLOAT * full, _UNFOLDED_AT_MOST)
