"""A job's record in the words of the reference: details, summaries, WebSocket messages."""

import base64
from datetime import datetime

from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.jobs.schemas import (
    ArtifactLink,
    CompletedMessage,
    ErrorMessage,
    JobCreated,
    JobDetails,
    JobParams,
    JobSummary,
    PreviewMessage,
    PreviewPicture,
    ProgressMessage,
)
from cryomamba_apiserver.ports.job_store import JobReceipt, JobRecord, JobStatus, ListedJob
from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_crds.report import Preview, Progress


def created(receipt: JobReceipt) -> JobCreated:
    """Return what `POST /v1/jobs` answers."""
    return JobCreated(
        job_id=receipt.job_id,
        status=JobStatus.QUEUED,
        file_id=receipt.file_id,
        model=receipt.model,
        created_at=receipt.created_at,
        queue_position=receipt.queue_position,
        estimated_duration_seconds=receipt.estimated_duration_seconds,
    )


def details(record: JobRecord, signer: LinkSigner, now: datetime) -> JobDetails:
    """Return what `GET /v1/jobs/{job_id}` answers."""
    return JobDetails(
        job_id=record.job_id,
        status=record.status,
        file_id=record.request.file_id,
        model=record.request.model,
        params=JobParams.from_inference(record.request.params).model_dump(mode="json", exclude_none=True),
        created_at=record.created_at,
        started_at=record.started_at,
        completed_at=record.completed_at,
        updated_at=record.updated_at,
        progress=record.progress,
        artifacts=artifact_links(record, signer, now),
        gpu_stats=record.gpu,
        error=record.failure,
    )


def summary(job: ListedJob) -> JobSummary:
    """Return a job as it stands in a list."""
    return JobSummary(job_id=job.job_id, status=job.status, created_at=job.created_at, completed_at=job.completed_at)


def artifact_links(record: JobRecord, signer: LinkSigner, now: datetime) -> list[ArtifactLink]:
    """Return the results of a completed job, each with a fresh signed URL."""
    if record.status is not JobStatus.COMPLETED or record.result is None:
        return []
    return [
        ArtifactLink(
            name=artifact.name,
            size=artifact.size,
            content_type=artifact.content_type,
            url=signer.link(record.job_id, artifact.name, record.request.owner or "", now),
            created_at=artifact.created_at,
        )
        for artifact in record.result.artifacts
    ]


def progress_message(record: JobRecord, progress: Progress) -> str:
    """Encode a progress message."""
    message = ProgressMessage(job_id=record.job_id, timestamp=record.updated_at, progress=progress)
    return message.model_dump_json(exclude_none=True)


def preview_message(record: JobRecord, preview: Preview, png: bytes) -> str:
    """Encode a preview message."""
    picture = PreviewPicture(
        scale=preview.scale,
        shape=preview.shape,
        slice_idx=preview.slice_idx,
        data=base64.b64encode(png).decode(),
    )
    return PreviewMessage(job_id=record.job_id, timestamp=record.updated_at, preview=picture).model_dump_json()


def final_message(record: JobRecord, signer: LinkSigner, now: datetime) -> str:
    """Encode a finished job's last message; a cancelled job is told as an error that is nobody's fault."""
    if record.status is JobStatus.COMPLETED and record.result is not None:
        return CompletedMessage(
            job_id=record.job_id,
            timestamp=record.updated_at,
            artifacts=artifact_links(record, signer, now),
            statistics=record.result.statistics,
        ).model_dump_json()
    failure = record.failure or Failure(
        code=FailureCode.CONFLICT,
        message="The job was cancelled.",
        hint="Start it again if that was not meant.",
        retryable=False,
        details={"status": record.status.value},
    )
    return ErrorMessage(job_id=record.job_id, timestamp=record.updated_at, error=failure).model_dump_json()
