"""What the status of a record says, and the smallest patch that makes it say so.

The operator's keys are `observedGeneration`, `conditions`, `jobName`, `podUid`, `attempt`, `disruptions`, `startedAt`,
`completedAt` and `failure`; the others belong to the pod and are never written here.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cryomamba_crds.failures import Failure
from cryomamba_crds.resource import Condition, SegmentationJob, SegmentationJobStatus

Truth = Literal["True", "False", "Unknown"]
EventType = Literal["Normal", "Warning"]
Patch = dict[str, Any]

CONDITIONS = ("Scheduled", "Running", "Succeeded", "Finished")


@dataclass(frozen=True, slots=True)
class Aspect:
    """One condition; `event` is the type of the Event that a change to it is worth, if any."""

    status: Truth
    reason: str
    message: str = ""
    event: EventType | None = field(default=None, compare=False)


_NEW = Aspect("Unknown", "New")


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the operator says about a record."""

    scheduled: Aspect = _NEW
    running: Aspect = _NEW
    succeeded: Aspect = _NEW
    finished: Aspect = _NEW
    job_name: str | None = None
    pod_uid: str | None = None
    attempt: int | None = None
    disruptions: int | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    failure: Failure | None = None

    @property
    def conditions(self) -> dict[str, Aspect]:
        """By type, in the order in which they are shown."""
        return dict(zip(CONDITIONS, (self.scheduled, self.running, self.succeeded, self.finished), strict=True))


def situation_of(record: SegmentationJob) -> Situation:
    """Return what the status of a record says now."""
    status = record.status or SegmentationJobStatus()
    aspects = {item.type: Aspect(item.status, item.reason, item.message) for item in status.conditions}
    failure = status.failure
    return Situation(
        scheduled=aspects.get("Scheduled", _NEW),
        running=aspects.get("Running", _NEW),
        succeeded=aspects.get("Succeeded", _NEW),
        finished=aspects.get("Finished", _NEW),
        job_name=status.job_name,
        pod_uid=status.pod_uid,
        attempt=status.attempt,
        disruptions=status.disruptions,
        started_at=status.started_at,
        completed_at=status.completed_at,
        failure=Failure(**failure.model_dump()) if failure else None,
    )


def is_finished(record: SegmentationJob) -> bool:
    """Return whether a record has come to its end, which nothing changes any more."""
    condition = condition_of(record, "Succeeded")
    return condition is not None and condition.status != "Unknown"


def condition_of(record: SegmentationJob, name: str) -> Condition | None:
    """Return one condition of a record."""
    conditions = record.status.conditions if record.status else []
    return next((condition for condition in conditions if condition.type == name), None)


def since(record: SegmentationJob, name: str, reason: str, now: datetime) -> datetime:
    """Return since when a condition has had this reason; `now` where it has not."""
    condition = condition_of(record, name)
    return condition.last_transition_time if condition is not None and condition.reason == reason else now


def status_patch(record: SegmentationJob, situation: Situation, now: datetime) -> Patch:
    """Return the merge-patch that makes the status of a record say `situation`; empty where it does already.

    A condition counts as changed when its status or reason changes, and `lastTransitionTime` follows: an attempt that
    first waits for an image and is then retried has been `Running=False` throughout, and what a person and the
    operator's graces ask is since when it is so *for this reason*. A message alone (the scheduler's counts of nodes)
    changes nothing.

    The patch names the resource version that it was decided from: the status of a custom resource is written by name,
    whatever uid a patch gives, and so the last word about a deleted record would end its successor.
    """
    before = situation_of(record)
    status: Patch = {
        key: _plain(new)
        for key, old, new in (
            ("observedGeneration", record.status and record.status.observed_generation, record.metadata.generation),
            ("jobName", before.job_name, situation.job_name),
            ("podUid", before.pod_uid, situation.pod_uid),
            ("attempt", before.attempt, situation.attempt),
            ("disruptions", before.disruptions, situation.disruptions),
            ("startedAt", before.started_at, situation.started_at),
            ("completedAt", before.completed_at, situation.completed_at),
            ("failure", before.failure, situation.failure),
        )
        if new != old
    }
    if "observedGeneration" in status or _changed(before, situation):
        status["conditions"] = [_condition(record, name, aspect, now) for name, aspect in situation.conditions.items()]
    return {"metadata": {"resourceVersion": record.metadata.resource_version}, "status": status} if status else {}


def _changed(before: Situation, after: Situation) -> bool:
    return any(
        (old.status, old.reason) != (new.status, new.reason)
        for old, new in zip(before.conditions.values(), after.conditions.values(), strict=True)
    )


def _condition(record: SegmentationJob, name: str, aspect: Aspect, now: datetime) -> Patch:
    before = condition_of(record, name)
    same = before is not None and (before.status, before.reason) == (aspect.status, aspect.reason)
    return {
        "type": name,
        "status": aspect.status,
        "reason": aspect.reason,
        "message": before.message if before is not None and same else aspect.message,
        "lastTransitionTime": _plain(before.last_transition_time if before is not None and same else now),
        "observedGeneration": record.metadata.generation,
    }


def _plain(value: object) -> object:
    """Return a value as JSON has it; times in UTC to the second, as Kubernetes writes them."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Failure):
        return value.model_dump(mode="json", exclude={"details"})
    return value
