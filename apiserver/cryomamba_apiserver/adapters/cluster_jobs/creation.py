"""From what somebody asked for to a SegmentationJob, and back to what the creation was answered with. Pure."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry, Raw
from cryomamba_apiserver.adapters.cluster_jobs.names import (
    FINGERPRINT_LABEL,
    RECEIPT_ANNOTATION,
    REQUEST_ANNOTATION,
    RETRY_KEY_LABEL,
    ROUND_ANNOTATION,
)
from cryomamba_apiserver.ports.job_store import RETRY_KEY_LIFETIME, JobReceipt, JobRequest, RetryKey
from cryomamba_crds import ids
from cryomamba_crds.order import SUBMITTED_ANNOTATION, created_at
from cryomamba_crds.owners import owner_marks
from cryomamba_crds.resource import (
    GROUP,
    KIND,
    VERSION,
    InputSource,
    ObjectMeta,
    Resources,
    SegmentationJob,
    SegmentationJobSpec,
)
from cryomamba_crds.wishes import inference_wish, preview_wish

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12
_DIGEST_LENGTH = 40
"""Hexadecimal digits; a label has room for 63."""


@dataclass(frozen=True)
class JobDefaults:
    """What the installation says about every job that is created through the API."""

    resources: Resources = field(default_factory=Resources)
    max_attempts: int = 3
    ttl_seconds: int | None = None
    deadline_seconds: int = 86400
    priority_class: str | None = None
    queue: str | None = None


@dataclass(frozen=True)
class Estimates:
    """What is guessed when a job is created."""

    queue_position: int
    duration_seconds: int | None


def fingerprint(request: JobRequest) -> str:
    """Return what is equal for two requests of one owner whose results would be equal."""
    same = [request.owner, request.file_id, request.model_digest, request.params.model_dump(mode="json")]
    return _digest(json.dumps(same, sort_keys=True))


def retry_digest(owner: str, retry: RetryKey) -> str:
    """Return what stands for a key, which means something for its owner only."""
    return _digest(json.dumps([owner, retry.key]))


def retry_name(digest: str, round_: int) -> str:
    """Return the name that every server gives to the job that is created under a key.

    It is looked up rather than guessed: 62 bits, as those of other jobs.
    """
    number = int.from_bytes(hashlib.sha256(f"{digest} {round_}".encode()).digest())
    characters = []
    for _ in range(_ID_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[index])
    return "job-" + "".join(characters)


def manifest(
    name: str, request: JobRequest, defaults: JobDefaults, estimates: Estimates, now: datetime
) -> dict[str, Any]:
    """Return the resource that asks for a job; raise ValueError where it cannot be asked for."""
    labels, annotations = owner_marks(request.owner) if request.owner is not None else ({}, {})
    receipt = {
        "queue_position": estimates.queue_position,
        "estimated_duration_seconds": estimates.duration_seconds,
        "tiles": request.tiles,
    }
    job = SegmentationJob(
        metadata=ObjectMeta(
            name=name,
            labels=labels | {FINGERPRINT_LABEL: fingerprint(request)},
            annotations=annotations
            | {SUBMITTED_ANNOTATION: now.isoformat(timespec="microseconds"), RECEIPT_ANNOTATION: json.dumps(receipt)},
        ),
        spec=SegmentationJobSpec(
            input=InputSource(file_id=request.file_id),
            model=request.model,
            model_digest=request.model_digest,
            inference=inference_wish(request.params),
            preview=preview_wish(request.preview),
            resources=defaults.resources,
            max_attempts=defaults.max_attempts,
            active_deadline_seconds=defaults.deadline_seconds,
            ttl_seconds_after_finished=defaults.ttl_seconds,
            priority_class_name=defaults.priority_class,
            queue_name=defaults.queue,
        ),
    )
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "labels": job.metadata.labels, "annotations": job.metadata.annotations},
        "spec": job.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def under_key(resource: dict[str, Any], digest: str, round_: int, retry: RetryKey) -> dict[str, Any]:
    """Return a resource with the marks of the key that it is created under."""
    metadata = resource["metadata"]
    labels = metadata["labels"] | {RETRY_KEY_LABEL: digest}
    annotations = metadata["annotations"] | {ROUND_ANNOTATION: str(round_), REQUEST_ANNOTATION: retry.request_digest}
    return {**resource, "metadata": {**metadata, "labels": labels, "annotations": annotations}}


def receipt_of(raw: Raw, *, replayed: bool = False) -> JobReceipt:
    """Return what the creation of a resource was, or is now, answered with."""
    metadata, spec = raw["metadata"], raw["spec"]
    told = json.loads(metadata["annotations"][RECEIPT_ANNOTATION])
    return JobReceipt(
        job_id=ids.job_id(metadata["name"]),
        file_id=spec["input"]["fileId"],
        model=spec["model"],
        created_at=created_at(metadata),
        queue_position=told["queue_position"],
        estimated_duration_seconds=told["estimated_duration_seconds"],
        replayed=replayed,
    )


def asked_the_same(raw: Raw, retry: RetryKey) -> bool:
    """Return whether a resource was created by the same request as this one."""
    return bool(raw["metadata"].get("annotations", {}).get(REQUEST_ANNOTATION) == retry.request_digest)


def key_is_good(entry: Entry, now: datetime) -> bool:
    """Return whether a retry is still answered with the first answer."""
    return entry.created + RETRY_KEY_LIFETIME > now


def is_older(other: Entry, mine: Entry) -> bool:
    """Return whether another job was created before mine, whose state is the one it was created with.

    What has not been touched since my creation was there before it; what is untouched and newer came after it. Only
    what was changed in between leaves it to the times of creation.
    """
    if other.version < mine.version:
        return True
    untouched = "status" not in other.raw and other.raw["metadata"].get("generation") == 1
    return not untouched and (other.created, other.name) < (mine.created, mine.name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]
