"""HTTP for jobs."""

from typing import Annotated

from fastapi import APIRouter, Query, status

from cryomamba_apiserver.auth import Reader, Writer
from cryomamba_apiserver.context import AppContext, Jobs
from cryomamba_apiserver.jobs import present
from cryomamba_apiserver.jobs.schemas import CreateJob, JobCancelled, JobCreated, JobDetails, JobList
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_apiserver.routes import AuthenticatedRoute

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=AuthenticatedRoute)


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_job(request: CreateJob, principal: Writer, jobs: Jobs) -> JobCreated:
    """Create a new segmentation job."""
    record = await jobs.create(principal, request)
    return JobCreated(
        job_id=record.job_id,
        status=record.status,
        file_id=record.request.file_id,
        model=record.request.model.name,
        created_at=record.created_at,
        queue_position=await jobs.queue_position(record),
        estimated_duration_seconds=await jobs.estimate_seconds(record),
    )


@router.get("", response_model_exclude_none=True)
async def list_jobs(
    principal: Reader,
    jobs: Jobs,
    status: Annotated[JobStatus | None, Query(description="Filter by status")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Max results")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Pagination offset")] = 0,
) -> JobList:
    """List all jobs (with filtering), newest first."""
    page = await jobs.page(principal, status, limit, offset)
    summaries = [present.summary(record) for record in page.records]
    return JobList(jobs=summaries, total=page.total, limit=limit, offset=offset)


@router.get("/{job_id}", response_model_exclude_none=True)
async def get_job(job_id: str, principal: Reader, jobs: Jobs, context: AppContext) -> JobDetails:
    """Get job status and details."""
    return present.details(await jobs.get(principal, job_id), context.signer, context.now())


@router.delete("/{job_id}")
async def cancel_job(job_id: str, principal: Writer, jobs: Jobs) -> JobCancelled:
    """Cancel a running or queued job."""
    record = await jobs.cancel(principal, job_id)
    return JobCancelled(job_id=record.job_id, status=record.status, message="Job cancelled successfully")
