"""What a person reads under `kubectl describe`: the Events that a change of status is worth. Pure."""

from datetime import UTC, datetime
from typing import Any

from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.diagnose.finding import shortened
from cryomamba_operator.status import Aspect, Situation

REPORTER = "cryomamba-operator"
_LONGEST = 1024
"""Of an Event's message: kubernetes/pkg/apis/core/validation/events.go."""


def announcements(before: Situation, after: Situation) -> list[Aspect]:
    """Return the conditions whose change is worth an Event, in their order.

    The end of a job is told once, by Succeeded; Scheduled and Running speak only of what is still going on.
    """
    if after.succeeded.status != "Unknown":
        return [after.succeeded] if after.succeeded.event and before.succeeded.status == "Unknown" else []
    return [
        aspect
        for name, aspect in after.conditions.items()
        if aspect.event
        and (aspect.status, aspect.reason) != (before.conditions[name].status, before.conditions[name].reason)
    ]


def event_manifest(record: SegmentationJob, aspect: Aspect, now: datetime, suffix: str) -> dict[str, Any]:
    """Return an Event about a record.

    Args:
        record: What it is about.
        aspect: What it says; its `event` is the Event's type.
        now: When.
        suffix: Makes the Event's name unique.
    """
    metadata = record.metadata
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata.name}.{suffix}", "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": record.api_version,
            "kind": record.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": aspect.event,
        "reason": aspect.reason,
        "message": shortened(aspect.message, _LONGEST),
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
