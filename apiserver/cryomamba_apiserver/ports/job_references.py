"""The port to what jobs need of the store, for whoever removes what nothing needs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryomamba_crds import keys


@dataclass(frozen=True)
class JobReference:
    """What the record of one job names."""

    job_id: str
    uid: str
    file_id: str | None
    """None: it reads no uploaded file."""
    model_keys: frozenset[str]
    """Of the zip that it runs, or ran, and of its card; none where it runs whichever its name stands for."""
    ended_at: datetime | None
    """None while it is queued or running."""
    keys: frozenset[str]
    """Objects that its record names: artifacts, manifest, the last preview; one that ends with a slash names all below
    it."""


def model_keys(name: str, digest: str | None) -> frozenset[str]:
    """Return the keys of a pinned model."""
    if digest is None:
        return frozenset()
    return frozenset({keys.model_archive(name, digest), keys.model_archive_card(name, digest)})


class JobReferences(Protocol):
    """The references of all jobs."""

    async def all(self) -> list[JobReference]:
        """Return those of every job that there is now."""

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Remove the records of jobs that have ended; one that has not, or is not there, stays as it is."""
