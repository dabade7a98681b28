"""Segments one volume through nnU-Net's own predictor, in a thread that the generator owns.

The way out for models that the streaming engine can't express. The whole volume is in memory.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Generator
from typing import Any, TypeAlias

import numpy as np
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import count_tiles, network_shape
from cryomamba_inference.engine.errors import named
from cryomamba_inference.engine.interface import Labels, Options, Segmentation, Slab, Stage, Tick
from cryomamba_inference.engine.plane import Geometry, PlaneLabels, label_dtype
from cryomamba_inference.engine.predictor import Slicer, Stopped, TickingPredictor
from cryomamba_inference.engine.tiling import patch_in_three
from cryomamba_inference.model import Model

_Event: TypeAlias = Tick | Slab | Segmentation | Exception


def segment_whole(
    model: Model, volume: NDArray[np.float32], spacing: tuple[float, float, float], options: Options, first: int
) -> Generator[Tick | Slab, None, Segmentation]:
    """Segment a volume; as `segment`, with one slab at the end.

    The work is done in a thread. Closing the generator stops it at the next tile and waits for that.

    Args:
        model: Loaded.
        volume: [c, z, y, x].
        spacing: Under which nnU-Net is handed it, [z, y, x].
        options: See `Options`.
        first: The first plane to give; all are segmented.

    Raises:
        FailureError: As `segment`.
    """
    depth, height, width = volume.shape[1:]
    shape = network_shape(model.facts, (depth, height, width), spacing)
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
            if isinstance(event, Tick):
                yield event
            elif first < depth:
                yield _from_plane(event, first)
    finally:
        run.end(thread)


def _from_plane(slab: Slab, first: int) -> Slab:
    probabilities = None if slab.probabilities is None else slab.probabilities[:, first:]
    return Slab(first, slab.labels[first:], probabilities)


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
        properties: dict[str, Any] = {"spacing": list(self._spacing)}
        data, mask, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            self._volume, None, properties, model.plans, model.configuration, model.dataset
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
        self.events.put(self._assemble(logits, properties))
        return Segmentation("nnunet", self._total, (), 1, seconds / self._total, str(model.device))

    def _assemble(self, logits: torch.Tensor, properties: dict[str, Any]) -> Slab:
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
        return Slab(
            0,
            np.ascontiguousarray(labels, dtype=dtype),
            None if probabilities is None else np.ascontiguousarray(probabilities, dtype=np.float16),
        )

    def _prepare_plane(self, shape: tuple[int, int, int], properties: dict[str, Any]) -> None:
        facts = self._model.facts
        depth, height, width = self._volume.shape[1:]
        geometry = Geometry(
            input_shape=(depth, height, width),
            transpose_forward=facts.transpose_forward,
            box=[(int(start), int(stop)) for start, stop in properties["bbox_used_for_cropping"]],
            network_shape=shape,
            patch_size=patch_in_three(facts.patch_size),
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
            patch = (prediction.shape[0], *patch_in_three(self._model.facts.patch_size))
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
            return np.zeros(self._volume.shape[2:], dtype=dtype)
        return self._plane.labels()
