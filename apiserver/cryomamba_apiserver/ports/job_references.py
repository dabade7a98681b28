"""The port to what jobs need of the store, for whoever removes what nothing needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class JobReference:
    """What the record of one job names."""

    job_id: str
    uid: str
    file_id: str
    model_key: str
    """Of the zip that it runs, or ran."""
    ended_at: datetime | None
    """None while it is queued or running."""
    keys: frozenset[str]
    """Objects that its record names: artifacts, manifest, the last preview."""


class JobReferences(Protocol):
    """The references of all jobs."""

    async def all(self) -> list[JobReference]:
        """Return those of every job that there is now."""

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Remove the records of jobs that have ended; one that has not, or is not there, stays as it is."""
