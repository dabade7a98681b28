"""Segments one volume: through the streaming engine, or through nnU-Net's own predictor where a model needs that."""

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import check_channels, image_spacing, network_shape
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.engine.errors import named
from cryomamba_inference.engine.fitting import Fit, Free, best_setting, fit
from cryomamba_inference.engine.image import ArrayImage, Image, Shape, read_whole
from cryomamba_inference.engine.interface import Options, Rung, Segmentation, Slab, Tick
from cryomamba_inference.engine.ladder import stream_down_the_ladder, under
from cryomamba_inference.engine.memory import available_memory
from cryomamba_inference.engine.plane import label_dtype
from cryomamba_inference.engine.planning import Outlook, Setting, foresee
from cryomamba_inference.engine.streaming import Work
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.model import Model

_log = logging.getLogger(__name__)
_RANKS = (3, 4)


def free_memory(device: torch.device) -> Free:
    """Return what this process may still take on the host, and on a GPU."""
    return Free(available_memory(), torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None)


def segment(
    model: Model,
    image: NDArray[np.float32] | Image,
    *,
    voxel_size_nm: VoxelSize | None,
    options: Options,
    first: int = 0,
    rung: Rung | None = None,
    free: Callable[[torch.device], Free] = free_memory,
) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume, tick by tick and slab by slab; the generator's return value is the summary.

    Closing the generator ends the work: at once, or at the next tile where nnU-Net's own predictor is at work.

    Args:
        model: Loaded.
        image: An `Image`, or an array [c, z, y, x], or [z, y, x] where there is one channel. Not changed.
        voxel_size_nm: Along X, Y, Z in nm; None where unknown.
        options: See `Options`; the spacing policy is already decided.
        first: Z index of the first plane to give; what comes is, to the last bit, what a run from 0 gives.
        rung: On which the planes before were made, where the run that made them had to give something up.
        free: Says how many bytes may be taken, of main memory and of the model's device.

    Yields:
        A tick when preprocessing begins, one a tile and fold, and one when assembling begins; slabs when they are
        final.

    Raises:
        FailureError: VALIDATION_ERROR, the image cannot be segmented (see the message); OUT_OF_MEMORY, the machine or
            the device is too small; GPU_ERROR, the device failed; INFERENCE_ERROR, anything else that the network or
            nnU-Net ran into.
    """
    try:
        return (yield from _segment(model, _as_image(image), voxel_size_nm, options, (first, rung, free)))
    except FailureError:
        raise
    except Exception as error:
        raise named(error, model.device) from error


def _segment(
    model: Model,
    image: Image,
    voxel_size_nm: VoxelSize | None,
    options: Options,
    bounds: tuple[int, Rung | None, Callable[[torch.device], Free]],
) -> Generator[Tick | Slab, None, Segmentation]:
    first, rung, free = bounds
    facts = model.facts
    check_channels(facts, image.channels)
    spacing = image_spacing(facts, options.spacing_policy, voxel_size_nm)
    seen = network_shape(facts, image.shape, spacing)
    _refuse_vanished(model, seen)
    # Nothing is read, and nothing is on the device, before it is known to fit.
    fitting = _fit(model, (image.shape, spacing), options, rung, free(model.device))
    setting, outlook = fitting.setting, fitting.outlook
    for step in fitting.steps:
        _log.warning("memory: %s", step)
    yield Tick("preprocess", 0, outlook.memory.tiles, _nothing_yet(model, image.shape), fitting.steps)
    found = survey(image)
    for name, channel in zip(facts.channel_names, found.channels, strict=True):
        if channel.low == channel.high:
            _log.warning("channel %s has the value %g in every voxel", name, channel.low)
    if outlook.route is None:
        _log.warning("the model %s: nnU-Net's own predictor has to run it, whole in memory", outlook.because)
        from cryomamba_inference.engine.stock import segment_whole  # noqa: PLC0415 - a second and 100 MB to import

        where = replace(model, device=torch.device("cpu")) if setting.device == "cpu" else model
        events = segment_whole(where, read_whole(image), spacing, options, first)
        rung = Rung(setting.batch, steps=fitting.steps, on_cpu=where.device.type == "cpu")
        return (yield from _told_of(rung, events))
    route = plan_route(facts, model.configuration.configuration, found.box, spacing)
    work = under(setting, Work(model, image, found, route, options))
    return (yield from stream_down_the_ladder(work, first=first, steps=fitting.steps))


def _fit(
    model: Model, volume: tuple[Shape, tuple[float, float, float]], options: Options, rung: Rung | None, free: Free
) -> Fit:
    (shape, spacing), facts, configuration = volume, model.facts, model.configuration.configuration
    device: Literal["cpu", "cuda"] = "cuda" if model.device.type == "cuda" else "cpu"
    setting = best_setting(facts, configuration, options, device, len(model.folds))
    if rung is not None:
        where: Literal["cpu", "cuda"] = "cpu" if rung.on_cpu else device
        setting = Setting(where, setting.folds, rung.passes_at_once, rung.sums_in_main_memory)

    def foreseen(cropped: Shape, setting: Setting) -> Outlook:
        return foresee(facts, configuration, cropped, spacing, options, setting)

    found = fit(foreseen, shape, setting, free, cpu_fallback=options.cpu_fallback)
    return replace(found, steps=(*rung.steps, *found.steps)) if rung else found


def _told_of(
    rung: Rung, events: Generator[Tick | Slab, None, Segmentation]
) -> Generator[Tick | Slab, None, Segmentation]:
    """Let nnU-Net's ticks, its slabs and its summary say what was given up beforehand."""
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                summary: Segmentation = stop.value
                return replace(summary, steps=rung.steps)
            yield replace(event, steps=rung.steps) if isinstance(event, Tick) else replace(event, rung=rung)


def _as_image(image: NDArray[np.float32] | Image) -> Image:
    if not isinstance(image, np.ndarray):
        return image
    if image.ndim not in _RANKS:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"volume: an array of shape {image.shape} has neither three axes nor a channel and three axes",
            hint="Give one volume with axes X, Y, Z, or several of them one after another.",
        )
    return ArrayImage(image)


def _refuse_vanished(model: Model, seen: tuple[int, int, int]) -> None:
    if min(seen) < 1:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"voxel size: it makes the volume {seen} voxels at the model's spacing {model.facts.spacing}",
            hint="Check the voxel size, or use the spacing policy 'ignore'.",
        )


def _nothing_yet(model: Model, shape: Shape) -> Callable[[], NDArray[np.integer]]:
    """Return what a preview shows before there is anything to show."""
    return lambda: np.zeros(shape[1:], dtype=label_dtype(max(model.facts.label_names)))
