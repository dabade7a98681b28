"""From a SegmentationJob, as Kubernetes gives it, to a job as the API shows it. Pure.

Written for resources of other versions too: what is not known is passed over, so that a job never disappears from the
API while server and CustomResourceDefinition are upgraded one after the other.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from cryomamba_apiserver.adapters.cluster_jobs.names import FINGERPRINT_LABEL, RETRY_KEY_LABEL, ROUND_ANNOTATION
from cryomamba_apiserver.ports.job_store import JobRecord, JobRequest, JobStatus
from cryomamba_crds import ids, keys
from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_crds.order import created_at
from cryomamba_crds.owners import OWNER_LABEL, owner_of
from cryomamba_crds.report import TOTAL_STEPS, GpuStats, Manifest, Preview, Progress
from cryomamba_crds.resource import DesiredState, Inference, StatusFailure
from cryomamba_crds.resource import Preview as PreviewWish
from cryomamba_crds.wishes import inference_params, preview_params

Raw = Mapping[str, Any]

_CLOCKS_DIFFER = timedelta(seconds=2)
"""A pod's report may seem this much older than the operator's note that the pod runs."""
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is asked of a job again and again, and the rest of it as text: ten thousand fit in a few dozen MB."""

    name: str
    uid: str
    version: int
    """resourceVersion: it grows with every change (a number in every Kubernetes, KEP-5504)."""
    created: datetime
    owner: str | None
    owner_label: str
    status: JobStatus
    completed_at: datetime | None
    digest: str | None
    fingerprint: str | None
    retry_key: str | None
    retry_round: int
    priority_class: str | None
    placed: bool
    """Whether it has a Kubernetes Job, and so one of the operator's places."""
    deleting: bool
    text: bytes
    """The whole resource as JSON."""

    @property
    def waits(self) -> bool:
        """Whether it waits for the operator to give it a place."""
        return self.status is JobStatus.QUEUED and not self.placed and not self.deleting

    @property
    def raw(self) -> dict[str, Any]:
        """The whole resource."""
        resource: dict[str, Any] = json.loads(self.text)
        return resource


def entry_of(raw: Raw) -> Entry:
    """Return a resource as the mirror keeps it; raise KeyError where it is none."""
    metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    kept = {**raw, "metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}
    state = status_of(raw)
    return Entry(
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        created=created_at(metadata),
        owner=owner_of(labels, annotations),
        owner_label=labels.get(OWNER_LABEL, ""),
        status=state,
        completed_at=_moment(status.get("completedAt")),
        digest=spec.get("modelDigest"),
        fingerprint=labels.get(FINGERPRINT_LABEL),
        retry_key=labels.get(RETRY_KEY_LABEL),
        retry_round=int(round_) if (round_ := annotations.get(ROUND_ANNOTATION, "0")).isdecimal() else 0,
        priority_class=spec.get("priorityClassName"),
        placed=status.get("jobName") is not None and not _has_ended(status),
        deleting="deletionTimestamp" in metadata,
        text=json.dumps(kept, separators=(",", ":")).encode(),
    )


def status_of(raw: Raw) -> JobStatus:
    """Return the state of a job in the words of the API."""
    conditions = _conditions(raw)
    succeeded = conditions.get("Succeeded", {}).get("status")
    if succeeded == "True":
        return JobStatus.COMPLETED
    if raw["spec"].get("desiredState") == DesiredState.CANCELLED:
        return JobStatus.CANCELLED
    if succeeded == "False":
        return JobStatus.FAILED
    return JobStatus.RUNNING if conditions.get("Running", {}).get("status") == "True" else JobStatus.QUEUED


def ended_at(raw: Raw) -> datetime | None:
    """Return when a job has ended for good; None while its pod may still be there, cancelled or not."""
    status = raw.get("status") or {}
    if not _has_ended(status):
        return None
    succeeded = _conditions(raw)["Succeeded"]
    return _moment(status.get("completedAt")) or _moment(succeeded.get("lastTransitionTime"))


def file_of(raw: Raw) -> str | None:
    """Return the id of the uploaded file that a job reads, however its resource names it."""
    source = raw["spec"]["input"]
    match str(source.get("object", "")).split("/"):
        case ["files", file_id, *_]:
            return file_id
    file_id = source.get("fileId")
    return None if file_id is None else str(file_id)


def request_of(raw: Raw) -> JobRequest:
    """Return what a job was asked for."""
    metadata, spec = raw["metadata"], raw["spec"]
    return JobRequest(
        owner=owner_of(metadata.get("labels") or {}, metadata.get("annotations") or {}),
        file_id=spec["input"].get("fileId"),
        model=spec["model"],
        model_digest=spec.get("modelDigest"),
        params=inference_params(_known(Inference, spec.get("inference"))),
        preview=preview_params(_known(PreviewWish, spec.get("preview"))),
    )


def record_of(raw: Raw, result: Manifest | None = None) -> JobRecord:
    """Return a job as it stands.

    Args:
        raw: The resource.
        result: Of a completed job; None where it is not there.
    """
    metadata, status, state = raw["metadata"], raw.get("status") or {}, status_of(raw)
    attempt = int(status.get("attempt") or 0)
    told = status if _tells_of_this_attempt(raw, state) else {}
    return JobRecord(
        job_id=ids.job_id(metadata["name"]),
        uid=metadata["uid"],
        request=request_of(raw),
        status=state,
        attempt=attempt,
        created_at=created_at(metadata),
        updated_at=max(_moments(raw)),
        started_at=_moment(status.get("startedAt")),
        completed_at=_moment(status.get("completedAt")),
        progress=_progress(told, state),
        preview=_preview(told, metadata["uid"], attempt),
        gpu=_gpu(told),
        result=result,
        failure=_failure(raw, state, result),
    )


def _conditions(raw: Raw) -> dict[str, Raw]:
    return {item["type"]: item for item in (raw.get("status") or {}).get("conditions") or ()}


def _has_ended(status: Raw) -> bool:
    conditions = status.get("conditions") or ()
    return any(item["type"] == "Succeeded" and item["status"] in {"True", "False"} for item in conditions)


def _tells_of_this_attempt(raw: Raw, state: JobStatus) -> bool:
    """Whether progress and preview are the current attempt's: what the one before told stays until the next tells."""
    if state is JobStatus.QUEUED:
        return False
    if state is not JobStatus.RUNNING:
        return True
    told = _moment((raw["status"].get("progress") or {}).get("updatedAt"))
    begun = _moment(_conditions(raw)["Running"].get("lastTransitionTime"))
    return told is not None and begun is not None and told + _CLOCKS_DIFFER >= begun


def _progress(status: Raw, state: JobStatus) -> Progress | None:
    told = status.get("progress")
    if state is JobStatus.COMPLETED and (not told or told["percentage"] < 100):  # noqa: PLR2004 - percent
        # The pod's last report may have been lost; the result was not.
        return Progress(current_step=TOTAL_STEPS, percentage=100, message="Done", eta_seconds=0)
    if not told:
        return None
    return Progress(
        current_step=told["currentStep"],
        total_steps=told.get("totalSteps", TOTAL_STEPS),
        percentage=told["percentage"],
        message=told["message"],
        eta_seconds=told.get("etaSeconds"),
    )


def _preview(status: Raw, uid: str, attempt: int) -> Preview | None:
    told = status.get("preview")
    if not told or not attempt:
        return None
    return Preview(
        sequence=told["sequence"],
        key=keys.live_preview(keys.attempt_prefix(uid, attempt)),
        scale=told["scale"],
        shape=tuple(told["shape"]),
        slice_idx=told["sliceIdx"],
    )


def _gpu(status: Raw) -> GpuStats | None:
    told = status.get("gpu")
    if not told:
        return None
    return GpuStats(
        gpu_id=told["gpuId"],
        memory_used=told["memoryUsed"],
        memory_total=told["memoryTotal"],
        utilization=told["utilization"],
    )


def _failure(raw: Raw, state: JobStatus, result: Manifest | None) -> Failure | None:
    if state is JobStatus.COMPLETED and result is None:
        return Failure(
            code=FailureCode.NOT_FOUND,
            message="The job has completed, but its result is not in the object store any more.",
            hint="Start the job again.",
            retryable=False,
        )
    if state is not JobStatus.FAILED:
        return None
    told = (raw.get("status") or {}).get("failure")
    if told:
        known = _known(StatusFailure, told)
        return Failure(code=known.code, message=known.message, hint=known.hint, retryable=known.retryable)
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=_conditions(raw)["Succeeded"].get("message") or "The job failed, and nothing says why.",
        hint="kubectl describe shows its Events.",
        retryable=True,
    )


def _moments(raw: Raw) -> Iterator[datetime]:
    """All times at which a job has changed."""
    yield created_at(raw["metadata"])
    status = raw.get("status") or {}
    told = [(status.get("progress") or {}).get("updatedAt"), status.get("completedAt")]
    told += [item.get("lastTransitionTime") for item in _conditions(raw).values()]
    for text in told:
        if moment := _moment(text):
            yield moment


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _known(model: type[_Model], told: Raw | None) -> _Model:
    """Return a part of a resource without the fields that this version does not know."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    return model.model_validate({name: value for name, value in (told or {}).items() if name in names})
