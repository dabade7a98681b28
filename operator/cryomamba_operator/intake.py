"""Takes in what is seen of records, Jobs and Pods: into the mirror, into the order of admission, into the queue."""

from collections.abc import Callable, Mapping
from datetime import datetime

from cryomamba_crds.ids import Key
from cryomamba_crds.order import Candidate, created_at
from cryomamba_crds.owners import OWNER_LABEL
from cryomamba_crds.resource import DesiredState
from cryomamba_operator.admission import Admission
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.observe import Raw, key_of, key_of_pod
from cryomamba_operator.queue import WorkQueue

DELETED = "DELETED"
"""The type of a watch's event; every other type means that the object is there."""


class Intake:
    """The one way in which news about objects reaches the operator, whether a watch, a list or its own write told it.

    Args:
        mirror: Keeps the newest state.
        admission: Is told who wants, has or leaves a place.
        queue: Gets the key of whatever changed.
    """

    def __init__(self, mirror: Mirror, admission: Admission, queue: WorkQueue) -> None:
        self._mirror = mirror
        self._admission = admission
        self._queue = queue
        self._priorities: Mapping[str | None, int] = {}

    def set_priorities(self, priorities: Mapping[str | None, int]) -> None:
        """Set the values of the priority classes; None stands for jobs that name none."""
        self._priorities = priorities

    def saw_record(self, event: str | None, raw: Raw) -> None:
        """Take in a watch's event about a record."""
        self._saw(raw, self._mirror.drop_record if event == DELETED else self._mirror.put_record)

    def saw_job(self, event: str | None, raw: Raw) -> None:
        """Take in a watch's event about a Job."""
        self._saw(raw, self._mirror.drop_job if event == DELETED else self._mirror.put_job)

    def saw_pod(self, event: str | None, raw: Raw) -> None:
        """Take in a watch's event about a Pod."""
        if (self._mirror.drop_pod if event == DELETED else self._mirror.put_pod)(raw):
            self._queue.add(key_of_pod(raw))

    def wrote_record(self, raw: Raw) -> None:
        """Take in what the API server answered to a write of our own; it calls for nothing new."""
        self._mirror.put_record(raw)
        self.place(key_of(raw))

    def wrote_job(self, raw: Raw) -> None:
        """Take in a Job of our own making."""
        self._mirror.put_job(raw)
        self.place(key_of(raw))

    def lost_record(self, raw: Raw) -> None:
        """Take in that a record is not there any more, as a request of our own has found out."""
        self._saw(raw, self._mirror.drop_record)

    def place(self, key: Key) -> None:
        """Let a record have, want or leave its place, as its newest state says."""
        record, job = self._mirror.record(key), self._mirror.job(key)
        owner = record["metadata"]["labels"].get(OWNER_LABEL, "") if record else ""
        if job is not None and not job.ended:
            self._admission.hold(key, owner)
        elif record is None or not _wants_to_run(record):
            self._admission.leave(key)
        else:
            self._admission.want(self.candidate(record))

    def candidate(self, record: Raw) -> Candidate:
        """Return what decides when it is a record's turn."""
        metadata = record["metadata"]
        return Candidate(
            key=key_of(record),
            owner=metadata["labels"].get(OWNER_LABEL, ""),
            priority=self._priorities.get(record["spec"].get("priorityClassName"), 0),
            created=created_at(metadata),
        )

    def grant(self, now: datetime, working_on: Key | None = None) -> None:
        """Give the free places to those whose turn it is, and let them be worked on."""
        for key in self._admission.settle(now):
            if key != working_on:
                self._queue.add(key)

    def stir_all(self) -> None:
        """Let everything be looked at again, for what a lost watch may have missed."""
        for key in self._mirror.known():
            self.place(key)
            self._queue.add(key)

    def _saw(self, raw: Raw, take: Callable[[Raw], bool]) -> None:
        if take(raw):
            key = key_of(raw)
            self.place(key)
            self._queue.add(key)


def _wants_to_run(record: Raw) -> bool:
    conditions = record["status"].get("conditions", [])
    return (
        record["spec"].get("desiredState") != DesiredState.CANCELLED
        and "deletionTimestamp" not in record["metadata"]
        and not any(item["type"] == "Succeeded" and item["status"] != "Unknown" for item in conditions)
    )
