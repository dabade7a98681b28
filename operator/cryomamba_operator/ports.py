"""What the reconciler asks of the cluster; `cluster` has the real one, tests have one in memory."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryomamba_crds.ids import Key
from cryomamba_operator.observe import EventFacts, Raw


class ConflictError(Exception):
    """An object of this name is there already, or it is no longer as it was when it was looked at."""


class GoneError(Exception):
    """The object is not there, or is another one of the same name by now."""


class RefusedError(Exception):
    """The API server understood and said no.

    Args:
        status: Of HTTP.
        message: The API server's.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list of all objects of a kind; the pages of a list share one resource version."""

    items: Sequence[Raw]
    resource_version: int


class Cluster(Protocol):
    """The API server, as far as it is needed; every method may raise `queue.UnavailableError` and `RefusedError`."""

    def list_records(self) -> AsyncIterator[Page]:
        """Iterate over all SegmentationJobs of the namespaces that are looked after."""

    def list_jobs(self) -> AsyncIterator[Page]:
        """Iterate over all Jobs that this operator made."""

    def list_pods(self) -> AsyncIterator[Page]:
        """Iterate over all pods of those Jobs."""

    async def read_record(self, key: Key) -> Raw | None:
        """Return a SegmentationJob as it is now."""

    async def read_job(self, key: Key) -> Raw | None:
        """Return the Job of a name, whoever made it."""

    async def warnings_about(self, namespace: str, uid: str) -> list[EventFacts]:
        """Return the Events of type Warning about an object."""

    async def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        """Create a Job and return it as the API server made it; raises `ConflictError`."""

    async def delete_job(self, key: Key, uid: str) -> None:
        """Delete this very Job, its pods after it; raises `GoneError`."""

    async def delete_record(self, key: Key, uid: str) -> None:
        """Delete this very SegmentationJob; raises `GoneError`."""

    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> Raw:
        """Merge a patch into the status of a SegmentationJob and return it all.

        Raises `GoneError`, and `ConflictError` where the patch names another resource version than the newest.
        """

    async def apply_secret(self, manifest: Mapping[str, Any]) -> None:
        """Make a Secret be so, or make it; one of the same name and another type is refused and left alone."""

    async def create_event(self, manifest: Mapping[str, Any]) -> None:
        """Write an Event."""

    async def count_gpus(self) -> int:
        """Return how many GPUs the cluster's nodes offer."""

    async def taints(self) -> list[str]:
        """Return the keys of the taints that keep pods from nodes."""

    async def priorities(self) -> dict[str | None, int]:
        """Return the value of every priority class by its name; under None that of jobs that name none."""
