"""Segments one volume: through the streaming engine, or through nnU-Net's own predictor where a model needs that."""

import logging
import math
from collections.abc import Callable, Generator

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import count_tiles, image_spacing, network_shape
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.engine.errors import named
from cryomamba_inference.engine.image import ArrayImage, Image, Shape, whole
from cryomamba_inference.engine.interface import Options, Segmentation, Slab, Tick
from cryomamba_inference.engine.memory import Workload, available_memory, refuse_what_does_not_fit
from cryomamba_inference.engine.plane import label_dtype
from cryomamba_inference.engine.planning import Setting, plan_memory, refuse_what_is_too_large
from cryomamba_inference.engine.resampling import UnsupportedError
from cryomamba_inference.engine.streaming import Work, stream
from cryomamba_inference.engine.suitability import Route, plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.engine.tiling import in_file_axes, patch_in_three
from cryomamba_inference.model import Model

_log = logging.getLogger(__name__)
_DIMENSIONS = 3


def segment(
    model: Model,
    image: NDArray[np.float32] | Image,
    *,
    voxel_size_nm: VoxelSize | None,
    options: Options,
    free_memory: Callable[[], int | None] = available_memory,
) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume, tick by tick and slab by slab; the generator's return value is the summary.

    Closing the generator ends the work: at once, or at the next tile where nnU-Net's own predictor is at work.

    Args:
        model: Loaded.
        image: An `Image`, or an array [z, y, x] or [c, z, y, x] with one channel. Not changed.
        voxel_size_nm: Along X, Y, Z in nm; None where unknown.
        options: See `Options`; the spacing policy is already decided.
        free_memory: Says how many bytes of main memory may be taken.

    Yields:
        A tick when preprocessing begins, one a tile and fold, and one when assembling begins; slabs when they are
        final.

    Raises:
        FailureError: VALIDATION_ERROR, the image cannot be segmented (see the message); OUT_OF_MEMORY, the machine or
            the device is too small; GPU_ERROR, the device failed; INFERENCE_ERROR, anything else that the network or
            nnU-Net ran into.
    """
    try:
        return (yield from _segment(model, _one_channel(image), voxel_size_nm, options, free_memory))
    except FailureError:
        raise
    except Exception as error:
        raise named(error, model.device) from error


def _segment(
    model: Model,
    image: Image,
    voxel_size_nm: VoxelSize | None,
    options: Options,
    free_memory: Callable[[], int | None],
) -> Generator[Tick | Slab, None, Segmentation]:
    facts = model.facts
    spacing = image_spacing(facts, options.spacing_policy, voxel_size_nm)
    seen = network_shape(facts, image.shape, spacing)
    _refuse_vanished(model, seen)
    # Nothing is read before it is known to fit. The non-zero box, which only the voxels tell, is at most the volume.
    route = _route(model, image.shape, spacing)
    if route is None:
        refuse_what_does_not_fit(_workload(model, image.shape, seen, options), free_memory())
    else:
        setting = Setting("cuda" if model.device.type == "cuda" else "cpu", len(model.folds), batch=1)
        planned = plan_memory(facts, model.configuration.configuration, image.shape, route, options, setting)
        refuse_what_is_too_large(planned, image.shape[0], free_memory())
    total = count_tiles(seen, facts.patch_size, options.step_size) * len(model.folds)
    yield Tick("preprocess", 0, total, _nothing_yet(model, image.shape))
    found = survey(image)
    if route is None:
        from cryomamba_inference.engine.stock import segment_whole  # noqa: PLC0415 - a second and 100 MB to import

        return (yield from segment_whole(model, image.read(whole(image.shape)), spacing, options))
    within = plan_route(facts, model.configuration.configuration, found.box, spacing)
    return (yield from stream(Work(model, image, found, within, options)))


def _route(model: Model, shape: Shape, spacing: tuple[float, float, float]) -> Route | None:
    """Return how the streaming engine would go, None where it can't."""
    try:
        return plan_route(model.facts, model.configuration.configuration, whole(shape), spacing)
    except UnsupportedError as unsupported:
        _log.warning("the model %s: nnU-Net's own predictor is used, with the whole volume in memory", unsupported)
        return None


def _one_channel(image: NDArray[np.float32] | Image) -> Image:
    if not isinstance(image, np.ndarray):
        return image
    if image.ndim == _DIMENSIONS + 1 and image.shape[0] == 1:
        return ArrayImage(image[0])
    if image.ndim != _DIMENSIONS:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"volume: an array of shape {image.shape} is not one channel of three axes",
            hint="Give one volume with axes X, Y, Z.",
        )
    return ArrayImage(image)


def _refuse_vanished(model: Model, seen: tuple[int, int, int]) -> None:
    if min(seen) < 1:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"voxel size: it makes the volume {seen} voxels at the model's spacing {model.facts.spacing}",
            hint="Check the voxel size, or use the spacing policy 'ignore'.",
        )


def _workload(model: Model, shape: Shape, seen: tuple[int, int, int], options: Options) -> Workload:
    facts = model.facts
    padded = [max(size, edge) for size, edge in zip(seen, patch_in_three(facts.patch_size), strict=True)]
    return Workload(
        input_shape=shape,
        network_shape=in_file_axes(padded, facts.transpose_forward),
        heads=facts.heads,
        folds=len(model.folds),
        regions=facts.regions,
        probabilities=options.save_probabilities,
        network_bytes=_network_bytes(model) if model.device.type == "cpu" else 0,
    )


def _network_bytes(model: Model) -> int:
    """Estimate what one pass on the CPU takes: about eight maps at full resolution, which outweigh the deeper ones.

    Convolutions of few channels unfold their input by the kernel's 27 voxels; those of many, whose maps are large, do
    not (measured: 41 maps for 8 channels and a patch of 32 x 64 x 64).
    """
    weights = sum(parameter.nbytes for parameter in model.network.parameters())
    architecture = model.configuration.configuration["architecture"]["arch_kwargs"]
    full = math.prod(model.facts.patch_size) * int(architecture["features_per_stage"][0]) * 4
    return weights + 8 * full + min(27 * full, 256 * 1024**2)


def _nothing_yet(model: Model, shape: Shape) -> Callable[[], NDArray[np.integer]]:
    """Return what a preview shows before there is anything to show."""
    return lambda: np.zeros(shape[1:], dtype=label_dtype(max(model.facts.label_names)))
