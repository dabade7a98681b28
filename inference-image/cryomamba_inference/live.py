"""Previews while a job runs: the middle slice with the labels decided so far, at most every few seconds."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds import keys
from cryomamba_crds.failures import FailureError
from cryomamba_crds.report import Preview, Report
from cryomamba_crds.task import PreviewParams
from cryomamba_inference.preview import preview_geometry, render_preview, source_slice
from cryomamba_inference.report import Reporter
from cryomamba_inference.storage import Storage
from cryomamba_inference.volume import Volume

_log = logging.getLogger(__name__)
_PAUSE_AFTER_FAILURE = 30.0


class LivePreview:
    """Draws, stores and announces previews of one volume.

    Args:
        volume: The input.
        colours: "#rrggbb" of each label.
        params: Whether, how often and how small.
        prefix: Under which key prefix the picture is stored; each replaces the one before.
        clock: Seconds on a clock that does not jump.
    """

    def __init__(
        self,
        volume: Volume,
        colours: dict[int, str],
        params: PreviewParams,
        *,
        prefix: str,
        storage: Storage,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._params = params
        self._colours = colours
        self._key = keys.live_preview(prefix)
        self._storage = storage
        self._reporter = reporter
        self._clock = clock
        self._shape, self._slice = preview_geometry(volume.header.shape, params.downsample_factor)
        self.plane = source_slice(volume.header.shape, params.downsample_factor)
        """Z index in the volume of the slice that is shown."""
        self._grey = volume.planes(self.plane, self.plane + 1)[0]
        self._sequence = 0
        self._next = 0.0

    def offer(self, labels: Callable[[], NDArray[np.integer]]) -> None:
        """Show the labels [y, x] of the slice, if it is time for a new picture."""
        if self._params.enabled and self._clock() >= self._next:
            self._show(labels())

    def show_image(self) -> None:
        """Show the slice alone: there are no labels yet."""
        if self._params.enabled:
            self._show(None)

    def render(self, labels: NDArray[np.integer]) -> bytes:
        """Return the slice with its final labels [y, x], as PNG in full size."""
        return render_preview(self._grey, labels, self._colours, 1)

    def _show(self, labels: NDArray[np.integer] | None) -> None:
        scale = self._params.downsample_factor
        try:
            self._storage.put_bytes(self._key, render_preview(self._grey, labels, self._colours, scale))
        except FailureError as error:
            # No picture may stop the inference; whether the store is of use shows when the result goes there.
            _log.warning("a preview could not be stored: %s", error)
            self._next = self._clock() + max(self._params.interval_seconds, _PAUSE_AFTER_FAILURE)
            return
        self._sequence += 1
        self._next = self._clock() + self._params.interval_seconds
        preview = Preview(sequence=self._sequence, key=self._key, scale=scale, shape=self._shape, slice_idx=self._slice)
        self._reporter.send(Report(preview=preview))
