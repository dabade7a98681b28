"""What a pod says in the status of its job: the newest of each kind, and when it may be said. Pure."""

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from cryomamba_crds.report import Artifact, GpuStats, Preview, Progress, Report
from cryomamba_crds.resource import StatusArtifact, StatusGpu, StatusPreview, StatusProgress

_MESSAGE = 256
_SHORTEST_GAP, _LONGEST_GAP = 2.0, 60.0
_FRACTION = 7
"""A seventh of the time so far is what a reader may be behind; it makes a handful of writes a doubling of the time."""
_WINDOW, _MOST = 1800.0, 58
"""Writes in any 30 minutes; the first and the last, which are not kept waiting, make it 60."""

Patch = dict[str, Any]


class Pace:
    """When the next write may be: rarely enough for an API server that many jobs write to.

    Args:
        began: When the attempt did, in seconds.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._last: float | None = None
        self._accepted: deque[float] = deque(maxlen=_MOST)

    def wrote(self, now: float, *, accepted: bool) -> None:
        """Take in a write, or the try of one."""
        self._last = now
        if accepted:
            self._accepted.append(now)

    def next(self) -> float:
        """Return the earliest time for the next write."""
        if self._last is None:
            return self._began
        gap = min(max((self._last - self._began) / _FRACTION, _SHORTEST_GAP), _LONGEST_GAP)
        full = self._accepted[0] + _WINDOW if len(self._accepted) == _MOST else self._last
        return max(self._last + gap, full)


class StatusChanges:
    """Collects reports until they are written; of each kind only the newest counts.

    The first patch also takes back what an earlier attempt has left in the status.

    Args:
        now: Returns the time, in UTC.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._sequence = 0
        self._changed: Patch = {"preview": None, "gpu": None, "artifacts": None}

    def add(self, report: Report) -> None:
        """Take in a report."""
        if report.progress:
            self._sequence += 1
            self._changed["progress"] = _progress(report.progress, self._sequence, self._now())
        if report.preview:
            self._changed["preview"] = _preview(report.preview)
        if report.gpu:
            self._changed["gpu"] = _gpu(report.gpu)
        if report.result:
            self._changed["artifacts"] = [_artifact(artifact) for artifact in report.result.artifacts]

    @property
    def pending(self) -> bool:
        """Whether there is something to write."""
        return bool(self._changed)

    def take(self) -> Patch:
        """Return what has changed as a merge patch of the status and forget it; empty where nothing has."""
        taken, self._changed = self._changed, {}
        return taken

    def give_back(self, taken: Patch) -> None:
        """Take in again what could not be written, as far as nothing newer is there."""
        self._changed = {**taken, **self._changed}


def _progress(progress: Progress, sequence: int, now: datetime) -> Patch:
    status = StatusProgress(
        sequence=sequence,
        current_step=progress.current_step,
        total_steps=progress.total_steps,
        percentage=progress.percentage,
        message=progress.message[:_MESSAGE],
        eta_seconds=progress.eta_seconds,
        updated_at=now.astimezone(UTC).replace(microsecond=0),
    )
    return status.model_dump(
        mode="json", by_alias=True
    )  # with nulls: a merge patch would leave an old etaSeconds there


def _preview(preview: Preview) -> Patch:
    status = StatusPreview(
        sequence=preview.sequence, scale=preview.scale, shape=list(preview.shape), slice_idx=preview.slice_idx
    )
    return status.model_dump(mode="json", by_alias=True)


def _gpu(gpu: GpuStats) -> Patch:
    return StatusGpu(**gpu.model_dump()).model_dump(mode="json", by_alias=True)


def _artifact(artifact: Artifact) -> Patch:
    status = StatusArtifact(
        name=artifact.name,
        size=artifact.size,
        content_type=artifact.content_type,
        created_at=artifact.created_at.astimezone(UTC).replace(microsecond=0),
    )
    return status.model_dump(mode="json", by_alias=True)
