"""Segments one volume through nnU-Net's own predictor, in a thread that the generator owns."""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import count_tiles, image_spacing, network_shape
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.engine.interface import Labels, Options, Segmentation, Stage, Tick
from cryomamba_inference.engine.memory import Workload, available_memory, refuse_what_does_not_fit
from cryomamba_inference.engine.plane import Geometry, PlaneLabels, label_dtype
from cryomamba_inference.engine.predictor import Slicer, Stopped, TickingPredictor
from cryomamba_inference.model import Model

_Event: TypeAlias = Tick | Segmentation | Exception

_DIMENSIONS = 3


def segment(
    model: Model,
    image: NDArray[np.float32],
    *,
    voxel_size_nm: VoxelSize | None,
    options: Options,
    free_memory: Callable[[], int | None] = available_memory,
) -> Generator[Tick, None, Segmentation]:
    """Segment a volume, tick by tick; the generator's return value is the segmentation.

    The work is done in a thread. Closing the generator stops it at the next tile and waits for that.

    Args:
        model: Loaded.
        image: [z, y, x], or [c, z, y, x] with one channel. Not changed.
        voxel_size_nm: Along X, Y, Z in nm; None where unknown.
        options: See `Options`; the spacing policy is already decided.
        free_memory: Says how many bytes of main memory may be taken.

    Yields:
        A tick when preprocessing begins, one a tile and fold, and one when assembling begins.

    Raises:
        FailureError: VALIDATION_ERROR, the image cannot be segmented (see the message); OUT_OF_MEMORY, the machine or
            the device is too small; GPU_ERROR, the device failed; INFERENCE_ERROR, anything else that the network or
            nnU-Net ran into.
    """
    volume = _single_channel(image)
    _refuse_unusable(volume)
    spacing = image_spacing(model.facts, options.spacing_policy, voxel_size_nm)
    shape = network_shape(model.facts, volume.shape, spacing)
    _refuse_misfit(model, volume, shape, options, free_memory())
    run = _Run(model, volume, spacing, options, count_tiles(shape, model.facts.patch_size, options.step_size))
    thread = threading.Thread(target=run.work, name="segment", daemon=True)
    thread.start()
    try:
        while True:
            event = run.events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Segmentation):
                return event
            yield event
    finally:
        run.end(thread)


def _single_channel(image: NDArray[np.float32]) -> NDArray[np.float32]:
    if image.ndim == _DIMENSIONS + 1 and image.shape[0] == 1:
        channel: NDArray[np.float32] = image[0]
        return channel
    if image.ndim != _DIMENSIONS:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"volume: an array of shape {image.shape} is not one channel of three axes",
            hint="Give one volume with axes X, Y, Z.",
        )
    return image


def _refuse_unusable(volume: NDArray[np.float32]) -> None:
    """Refuse what nnU-Net would turn into an all-background mask without a word."""
    if volume.size == 0:
        raise FailureError(FailureCode.VALIDATION_ERROR, "volume: it has no voxels", hint="Check the file.")
    least, most = np.inf, -np.inf
    for z, plane in enumerate(volume):
        finite = np.isfinite(plane)
        if not finite.all():
            y, x = (int(index) for index in np.argwhere(~finite)[0])
            raise FailureError(
                FailureCode.VALIDATION_ERROR,
                f"volume: voxel [{x}, {y}, {z}] is {plane[y, x]}; one such voxel spoils the whole result",
                hint="Replace NaN and infinite values, for example by the volume's mean, and upload it again.",
                details={"voxel": [x, y, z]},
            )
        least, most = min(least, float(plane.min())), max(most, float(plane.max()))
    if least == most:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"volume: every voxel has the value {least:g}",
            hint="There is nothing in it to segment; check that the right file was uploaded.",
        )


def _refuse_misfit(
    model: Model,
    volume: NDArray[np.float32],
    shape: tuple[int, int, int],
    options: Options,
    available: int | None,
) -> None:
    facts = model.facts
    if min(shape) < 1:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"voxel size: it makes the volume {shape} voxels at the model's spacing {facts.spacing}",
            hint="Check the voxel size, or use the spacing policy 'ignore'.",
        )
    patch = _patch_in_three(facts.patch_size)
    padded = [max(size, edge) for size, edge in zip(shape, patch, strict=True)]
    backward = [facts.transpose_forward.index(axis) for axis in range(_DIMENSIONS)]
    load = Workload(
        input_shape=volume.shape,
        network_shape=[padded[axis] for axis in backward],
        heads=facts.heads,
        folds=len(model.folds),
        regions=facts.regions,
        probabilities=options.save_probabilities,
        network_bytes=_network_bytes(model) if model.device.type == "cpu" else 0,
    )
    refuse_what_does_not_fit(load, available)


def _network_bytes(model: Model) -> int:
    """Estimate what one pass on the CPU takes: about eight maps at full resolution, which outweigh the deeper ones.

    Convolutions of few channels unfold their input by the kernel's 27 voxels; those of many, whose maps are large, do
    not (measured: 41 maps for 8 channels and a patch of 32 x 64 x 64).
    """
    weights = sum(parameter.nbytes for parameter in model.network.parameters())
    architecture = model.configuration.configuration["architecture"]["arch_kwargs"]
    full = math.prod(model.facts.patch_size) * int(architecture["features_per_stage"][0]) * 4
    return weights + 8 * full + min(27 * full, 256 * 1024**2)


def _patch_in_three(patch_size: tuple[int, ...]) -> tuple[int, int, int]:
    first, second, third = (1,) * (_DIMENSIONS - len(patch_size)) + patch_size
    return first, second, third


class _Run:
    """One segmentation in its thread: nnU-Net drives, events go to the generator."""

    def __init__(
        self,
        model: Model,
        volume: NDArray[np.float32],
        spacing: tuple[float, float, float],
        options: Options,
        tiles: int,
    ) -> None:
        # Bounded: a caller that is busy with a preview holds the network back instead of being flooded.
        self.events: queue.Queue[_Event] = queue.Queue(maxsize=16)
        self._model = model
        self._volume = volume
        self._spacing = spacing
        self._options = options
        self._total = tiles * len(model.folds)
        self._done = 0
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._plane: PlaneLabels | None = None
        self._began = 0.0

    def end(self, thread: threading.Thread) -> None:
        """Stop the thread at its next tile and wait for it, unless nnU-Net's loop hangs."""
        self._stop.set()
        while thread.is_alive() and not self._lost.is_set():
            with contextlib.suppress(queue.Empty):
                self.events.get_nowait()
            thread.join(timeout=0.02)

    def work(self) -> None:
        """Run to the end; the last event is the segmentation or what went wrong."""
        try:
            self.events.put(self._segment())
        except Stopped:
            return
        except Exception as error:  # noqa: BLE001  # handed to the generator, which raises it
            self.events.put(named(error, self._model.device))

    def _segment(self) -> Segmentation:
        model = self._model
        self._tick("preprocess")
        properties: dict[str, Any] = {"spacing": list(self._spacing)}
        data, mask, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            self._volume[None], None, properties, model.plans, model.configuration, model.dataset
        )
        network_input = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))
        del data, mask
        first, second, third = network_input.shape[1:]
        self._prepare_plane((first, second, third), properties)
        patch = model.facts.patch_size
        self._total = count_tiles((first, second, third), patch, self._options.step_size) * len(model.folds)
        predictor = TickingPredictor(
            model,
            step_size=self._options.step_size,
            mirroring=self._options.mirroring,
            on_tile=self._tile_done,
            on_lost_producer=self._producer_lost,
            stop=self._stop,
        )
        self._began = time.monotonic()
        logits = predictor.predict_logits_from_preprocessed_data(network_input)
        seconds = time.monotonic() - self._began
        compute_gaussian.cache_clear()
        del network_input, predictor
        if self._stop.is_set():
            raise Stopped
        self._tick("assemble")
        labels, probabilities = self._assemble(logits, properties)
        return Segmentation(labels, probabilities, self._total, seconds / self._total)

    def _assemble(self, logits: torch.Tensor, properties: dict[str, Any]) -> tuple[Labels, NDArray[np.float16] | None]:
        model = self._model
        result = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            model.plans,
            model.configuration,
            model.labels,
            properties,
            return_probabilities=self._options.save_probabilities,
            num_threads_torch=torch.get_num_threads(),
        )
        labels, probabilities = result if self._options.save_probabilities else (result, None)
        dtype = label_dtype(max(model.facts.label_names))
        return (
            np.ascontiguousarray(labels, dtype=dtype),
            None if probabilities is None else np.ascontiguousarray(probabilities, dtype=np.float16),
        )

    def _prepare_plane(self, shape: tuple[int, int, int], properties: dict[str, Any]) -> None:
        facts = self._model.facts
        depth, height, width = self._volume.shape
        geometry = Geometry(
            input_shape=(depth, height, width),
            transpose_forward=facts.transpose_forward,
            box=[(int(start), int(stop)) for start, stop in properties["bbox_used_for_cropping"]],
            network_shape=shape,
            patch_size=_patch_in_three(facts.patch_size),
        )
        weights = compute_gaussian(
            facts.patch_size, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")
        )
        self._plane = PlaneLabels(
            geometry,
            depth // 2 if self._options.preview_plane is None else self._options.preview_plane,
            facts.heads,
            tuple(facts.label_names) if facts.regions else None,
            weights.float().numpy().reshape(geometry.patch_size),
        )

    def _tile_done(self, prediction: torch.Tensor, tile: Slicer, done: int) -> None:
        plane = self._plane
        starts = tuple(part if isinstance(part, int) else part.start for part in tile[1:])
        offset = (starts[0], starts[1], starts[2])
        cut = plane.plane_within(offset) if plane is not None else None
        if plane is not None and cut is not None:
            patch = (prediction.shape[0], *_patch_in_three(self._model.facts.patch_size))
            axis, index = cut
            plane.add(prediction.reshape(patch).select(axis + 1, index).float().cpu().numpy(), offset)
        # On a device that is too small nnU-Net starts the fold again; the count waits until it is reached again.
        self._done = max(self._done, done)
        self._tick("infer")

    def _producer_lost(self) -> None:
        self._lost.set()
        self.events.put(
            FailureError(
                FailureCode.OUT_OF_MEMORY,
                "inference: a tile could not be brought to the device",
                hint="The device is most likely full: stop what else runs on it, or use one with more memory.",
            )
        )

    def _tick(self, stage: Stage) -> None:
        if self._stop.is_set():
            raise Stopped
        self.events.put(Tick(stage, self._done, self._total, self._partial_labels))

    def _partial_labels(self) -> Labels:
        if self._plane is None:
            dtype = label_dtype(max(self._model.facts.label_names))
            return np.zeros(self._volume.shape[1:], dtype=dtype)
        return self._plane.labels()


def named(error: Exception, device: torch.device) -> FailureError:
    """Turn what torch, NumPy or nnU-Net raised into a failure that a person can act on."""
    if isinstance(error, FailureError):
        return error
    cause = f"{type(error).__name__}: {error}"[:1500]
    failure: FailureError
    if isinstance(error, torch.OutOfMemoryError):
        failure = FailureError(
            FailureCode.OUT_OF_MEMORY,
            f"inference: {device} is out of memory ({cause})",
            hint="Stop what else runs on the GPU, use one with more memory, or a model with a smaller patch; step size "
            "and mirroring make no difference.",
        )
    elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        failure = FailureError(
            FailureCode.OUT_OF_MEMORY,
            f"inference: main memory is full ({cause})",
            hint="Bin or crop the volume, or use a machine with more memory.",
        )
    elif "CUDA error" in str(error) or "CUDNN" in str(error):
        failure = FailureError(
            FailureCode.GPU_ERROR,
            f"inference: {device} failed ({cause})",
            hint="Run the job again; if it fails on the same GPU again, have the GPU checked (nvidia-smi -q).",
        )
    else:
        failure = FailureError(
            FailureCode.INFERENCE_ERROR,
            f"inference: nnU-Net failed ({cause})",
            hint="Check that the model fits this volume: its dimensions, voxel size and intensities.",
        )
    failure.__cause__ = error
    return failure
