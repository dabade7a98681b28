"""Reads Jobs, Pods and Events as the API server gives them into the few facts that are decided by."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryomamba_crds.ids import Key
from cryomamba_crds.resource import GROUP, KIND
from cryomamba_operator.names import JOB_LABEL, RUNNER_CONTAINER

Raw = dict[str, Any]
"""An object as JSON."""

_STARTING = {None, "ContainerCreating", "PodInitializing"}
_UNEXPLAINED = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class Owner:
    """An object's controller owner."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A Job, as far as it is decided by."""

    key: Key
    uid: str
    resource_version: int
    created: datetime
    owner: Owner | None
    deleting: bool
    suspended: bool
    succeeded: bool
    """It has reached its success; set before the condition Complete where SuccessCriteriaMet comes first."""
    failure: str | None
    """Reason and message of its failure; set before the condition Failed, by FailureTarget."""
    ended: bool
    """Complete or Failed: its pods are gone or finished, and it starts no more."""
    completed: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container has not started, other than that it is being made."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended; `message` is its termination message, or the end of its log where it wrote none."""

    exit_code: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Disruption:
    """The cluster's own reason for ending a pod (the condition DisruptionTarget)."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A Pod, as far as it is decided by."""

    key: Key
    name: str
    uid: str
    resource_version: int
    created: datetime
    owner_uid: str | None
    phase: str
    reason: str
    message: str
    node: str | None
    scheduled: datetime | None
    unschedulable: str | None
    """The scheduler's words."""
    deleting: datetime | None
    """When its grace period is over; set as soon as somebody has asked for its deletion."""
    disruption: Disruption | None
    waiting: Waiting | None
    started: datetime | None
    """When the runner's container started."""
    ended: Ended | None

    @property
    def over(self) -> bool:
        """Whether it runs no more and never will."""
        return self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class EventFacts:
    """A Warning that Kubernetes wrote about an object."""

    reason: str
    message: str
    last_seen: datetime | None


def key_of(raw: Raw) -> Key:
    """Return the key of a SegmentationJob, or of the one that a Job belongs to: they share a name."""
    return Key(raw["metadata"]["namespace"], raw["metadata"]["name"])


def key_of_pod(raw: Raw) -> Key:
    """Return the key of the SegmentationJob that a Pod belongs to by its label."""
    metadata = raw["metadata"]
    return Key(metadata["namespace"], metadata.get("labels", {}).get(JOB_LABEL, metadata["name"]))


def job_facts(raw: Raw) -> JobFacts:
    """Read a Job."""
    metadata, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
    conditions = _true_conditions(status)
    failed = conditions.get("Failed") or conditions.get("FailureTarget")
    return JobFacts(
        key=key_of(raw),
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        created=_time(metadata["creationTimestamp"]),
        owner=_owner(metadata),
        deleting="deletionTimestamp" in metadata,
        suspended=bool(spec.get("suspend")),
        succeeded="Complete" in conditions or "SuccessCriteriaMet" in conditions,
        failure=f"{failed.get('reason', '')}: {failed.get('message', '')}" if failed else None,
        ended="Complete" in conditions or "Failed" in conditions,
        completed=_optional_time(status.get("completionTime")),
    )


def pod_facts(raw: Raw) -> PodFacts:
    """Read a Pod."""
    metadata, spec, status = raw["metadata"], raw.get("spec", {}), raw.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    placed = conditions.get("PodScheduled", {})
    disrupted = conditions.get("DisruptionTarget", {})
    owner = _owner(metadata)
    running = _runner(status).get("state", {}).get("running") or {}
    ended = _ended(status)
    return PodFacts(
        key=key_of_pod(raw),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=int(metadata["resourceVersion"]),
        created=_time(metadata["creationTimestamp"]),
        owner_uid=owner.uid if owner and owner.kind == "Job" else None,
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        node=spec.get("nodeName"),
        scheduled=_optional_time(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None,
        unschedulable=placed.get("message", "") if placed.get("reason") == "Unschedulable" else None,
        deleting=_optional_time(metadata.get("deletionTimestamp")),
        disruption=Disruption(disrupted.get("reason", ""), disrupted.get("message", ""))
        if disrupted.get("status") == "True"
        else None,
        waiting=_waiting(status),
        started=_optional_time(running.get("startedAt")) or _started_before_end(status),
        ended=ended,
    )


def event_facts(raw: Raw) -> EventFacts:
    """Read an Event."""
    last_seen = raw.get("lastTimestamp") or raw.get("eventTime") or raw["metadata"].get("creationTimestamp")
    return EventFacts(raw.get("reason", ""), raw.get("message") or raw.get("note") or "", _optional_time(last_seen))


def current_pod(job: JobFacts, pods: Iterable[PodFacts]) -> PodFacts | None:
    """Return the newest pod whose controller owner is this very Job; a pod that only looks like ours is none."""
    own = [pod for pod in pods if pod.owner_uid == job.uid]
    return max(own, key=lambda pod: (not pod.over, pod.created, pod.name), default=None)


def is_ours(job: JobFacts, record_uid: str) -> bool:
    """Return whether a Job was made for this very record."""
    return job.owner is not None and job.owner.uid == record_uid


def is_left_over(job: JobFacts, record_uid: str) -> bool:
    """Return whether a Job belongs to an earlier record of the same name and is being collected."""
    owner = job.owner
    return owner is not None and owner.kind == KIND and owner.name == job.key.name and owner.uid != record_uid


def unexplained(job: JobFacts, pod: PodFacts | None, now: datetime) -> str | None:
    """Return the uid of the object whose Events may say why nothing happens, or None where the rest says enough.

    A Job whose pods are refused (quota, service account, priority class) and a pod whose volumes cannot be mounted
    carry no condition about it.
    """
    if job.suspended or job.succeeded or job.failure or job.deleting:
        return None
    if pod is None:
        return job.uid if now - job.created >= _UNEXPLAINED else None
    silent = pod.phase == "Pending" and pod.scheduled is not None and pod.waiting is None and pod.started is None
    return pod.uid if silent and pod.scheduled is not None and now - pod.scheduled >= _UNEXPLAINED else None


def look_again(job: JobFacts, pod: PodFacts | None) -> timedelta | None:
    """Return how soon `unexplained` should be asked again, where no event of a watch would tell."""
    if job.suspended or job.succeeded or job.failure or job.deleting:
        return None
    if pod is None or (pod.phase == "Pending" and pod.scheduled is not None and pod.waiting is None):
        return _UNEXPLAINED
    return None


def _true_conditions(status: Raw) -> dict[str, Raw]:
    return {item["type"]: item for item in status.get("conditions", []) if item.get("status") == "True"}


def _owner(metadata: Raw) -> Owner | None:
    for reference in metadata.get("ownerReferences", []):
        if reference.get("controller"):
            ours = reference["kind"] != KIND or reference["apiVersion"].startswith(f"{GROUP}/")
            return Owner(reference["kind"] if ours else "", reference["name"], reference["uid"])
    return None


def _containers(status: Raw) -> list[Raw]:
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _runner(status: Raw) -> Raw:
    return next((item for item in status.get("containerStatuses", []) if item["name"] == RUNNER_CONTAINER), {})


def _waiting(status: Raw) -> Waiting | None:
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason") not in _STARTING:
            return Waiting(waiting["reason"], waiting.get("message", ""))
    return None


def _ended(status: Raw) -> Ended | None:
    """Return the runner's end, or that of the first other container that failed (an init container of a template)."""
    terminated = _runner(status).get("state", {}).get("terminated")
    if terminated is None:
        states = (container.get("state", {}).get("terminated") for container in _containers(status))
        terminated = next((state for state in states if state and state["exitCode"] != 0), None)
    if terminated is None:
        return None
    return Ended(terminated["exitCode"], terminated.get("reason", ""), terminated.get("message", ""))


def _started_before_end(status: Raw) -> datetime | None:
    terminated = _runner(status).get("state", {}).get("terminated") or {}
    started = _optional_time(terminated.get("startedAt"))
    # A container that could not be started is said to have started in 1970.
    return started if started is not None and started.timestamp() > 0 else None


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _optional_time(text: str | None) -> datetime | None:
    return _time(text) if text else None
