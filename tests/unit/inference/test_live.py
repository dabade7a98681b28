"""Previews while a job runs, where the store does not take them."""

from types import SimpleNamespace

import numpy as np

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.report import Report
from cryomamba_crds.task import PreviewParams
from cryomamba_inference.live import LivePreview


class Store:
    """Takes pictures, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0

    def put_bytes(self, *_: object) -> None:
        self.asked += 1
        if self.away:
            raise FailureError(FailureCode.SERVICE_UNAVAILABLE, "The store is away.", hint="Wait.")


def test_a_preview_that_cannot_be_stored_is_not_told_and_stops_nothing() -> None:
    plane = np.arange(64, dtype=np.float32).reshape(8, 8)
    volume = SimpleNamespace(header=SimpleNamespace(shape=(8, 8, 4)), planes=lambda *_: plane[None])
    store, told, time = Store(), [], [0.0]
    live = LivePreview(
        volume,  # type: ignore[arg-type]
        {1: "#ff0000"},
        PreviewParams(interval_seconds=5, downsample_factor=1),
        prefix="jobs/u/1/",
        storage=store,  # type: ignore[arg-type]
        reporter=SimpleNamespace(send=told.append),  # type: ignore[arg-type]
        clock=lambda: time[0],
    )
    labels = np.zeros((8, 8), np.uint8)
    live.offer(lambda: labels)
    store.away = True
    for second in range(5, 36, 5):
        time[0] = second
        live.offer(lambda: labels)
    asked_while_away = store.asked - 1
    store.away = False
    time[0] = 65
    live.offer(lambda: labels)

    assert asked_while_away == 2, "a store that is away is not asked each time"
    assert [report.preview.sequence for report in told if isinstance(report, Report)] == [1, 2]
