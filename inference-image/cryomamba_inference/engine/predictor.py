"""nnU-Net's own predictor, made to tell of every tile and to stop between two of them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from cryomamba_inference.model import Model

Slicer = tuple[Any, ...]
"""A tile as nnU-Net indexes it: all channels, then an index (2d models) or a slice for each plan axis."""


class Stopped(Exception):  # noqa: N818  # not an error: the caller asked for it
    """Raised between two tiles after `stop` was set. No RuntimeError: nnU-Net tries again on those."""


class TickingPredictor(nnUNetPredictor):  # type: ignore[misc]  # nnU-Net ships no types
    """Runs a model tile by tile; nnU-Net owns the loop, this class its two ends."""

    def __init__(
        self,
        model: Model,
        *,
        step_size: float,
        mirroring: bool,
        on_tile: Callable[[torch.Tensor, Slicer, int], None],
        on_lost_producer: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        """Take over a loaded model.

        Args:
            model: Ready to run.
            step_size: As a fraction of the patch.
            mirroring: Whether to average over flips.
            on_tile: Called in nnU-Net's thread after each tile with the output [heads, ...], the tile, and how many
                tiles of all folds are done.
            on_lost_producer: Called when nnU-Net's thread that feeds tiles died, after which its loop would wait
                forever.
            stop: Ends the run before the next tile, with `Stopped`.
        """
        # With any other device the constructor prints to stdout, which belongs to the runner's report; the device is
        # only stored.
        super().__init__(
            tile_step_size=step_size, use_mirroring=mirroring, device=torch.device("cuda"), allow_tqdm=False
        )
        self.device = model.device
        self.perform_everything_on_device = model.device.type == "cuda"
        self.manual_initialization(
            model.network,
            model.plans,
            model.configuration,
            model.parameters,
            model.dataset,
            model.facts.trainer_name,
            model.facts.mirroring_axes,
        )
        self._on_tile = on_tile
        self._on_lost_producer = on_lost_producer
        self._stop = stop
        self._tiles = _PacedTiles([], on_lost_producer)
        self._fold = -1

    def predict_sliding_window_return_logits(self, input_image: torch.Tensor) -> torch.Tensor:
        """Run one fold; see nnU-Net."""
        self._fold += 1
        logits: torch.Tensor = super().predict_sliding_window_return_logits(input_image)
        return logits

    def _internal_predict_sliding_window_return_logits(
        self,
        data: torch.Tensor,
        slicers: Sequence[Slicer],
        do_on_device: bool = True,  # noqa: FBT001, FBT002  # nnU-Net's
    ) -> torch.Tensor:
        self._tiles = _PacedTiles(slicers, self._on_lost_producer)
        try:
            logits: torch.Tensor = super()._internal_predict_sliding_window_return_logits(
                data, self._tiles, do_on_device
            )
        finally:
            self._tiles.end()
        return logits

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        if self._stop.is_set():
            raise Stopped
        tile, index = self._tiles.take()
        prediction: torch.Tensor = super()._internal_maybe_mirror_and_predict(x)
        self._on_tile(prediction[0], tile, self._fold * len(self._tiles) + index + 1)
        return prediction


class _PacedTiles:
    """The tiles of a volume, handed to nnU-Net's feeding thread one ahead of the network.

    That thread puts into a queue of two and blocks for ever when the loop that empties it ends early. Held one tile
    ahead it never finds the queue full, and has ended when `end` returns.
    """

    def __init__(self, tiles: Sequence[Slicer], on_lost_producer: Callable[[], None]) -> None:
        self._tiles = tiles
        self._on_lost_producer = on_lost_producer
        self._permits = threading.Semaphore(1)
        self._ended = threading.Event()
        self._feeder: threading.Thread | None = None
        self._fed: deque[Slicer] = deque()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._tiles)

    def __iter__(self) -> Iterator[Slicer]:
        complete = False
        self._feeder = threading.current_thread()
        try:
            for tile in self._tiles:
                self._permits.acquire()
                if self._ended.is_set():
                    break
                self._fed.append(tile)
                yield tile
            complete = True
        finally:
            if not complete:
                self._on_lost_producer()

    def take(self) -> tuple[Slicer, int]:
        """Return the tile that the network gets now and its index, and let the next one be fed."""
        tile = self._fed.popleft()
        self._permits.release()
        self._taken += 1
        return tile, self._taken - 1

    def end(self) -> None:
        """Let the feeding thread end and wait for that; once the loop is over, all it still does is bounded."""
        self._ended.set()
        self._permits.release()
        if self._feeder is not None:
            self._feeder.join()
