"""HTTP for jobs."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import BaseModel

from cryomamba_apiserver.auth import Reader, Writer
from cryomamba_apiserver.context import AppContext, Context, Jobs
from cryomamba_apiserver.jobs import present
from cryomamba_apiserver.jobs.listing import next_page
from cryomamba_apiserver.jobs.schemas import CreateJob, JobCancelled, JobCreated, JobDetails, JobList
from cryomamba_apiserver.openapi import header, refusals
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_apiserver.routes import AuthenticatedRoute, PolledRoute

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=AuthenticatedRoute)
polled = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=PolledRoute)

_RetryKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        pattern=r"^[\x21-\x7e]+$",
        description="A name for this creation, e.g. a UUID: the same request with the same key within 24 hours gets "
        "the first answer again, and no second job. Printable ASCII without spaces.",
    ),
]


_NO_JOB = {404: "There is no such job."}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={
        201: header("Idempotency-Replayed", "`true` where this is the answer to an earlier request with the same key."),
        **refusals(
            {
                404: "There is no such file.",
                409: "The same job is queued or running; `details.job_id` names it. Or the key was used for another.",
                422: "The model cannot be run.",
                429: "There are too many requests, or too many jobs have been created this hour.",
                503: "The queue is full, or the server cannot reach what it needs.",
                507: "There is no room to keep the job.",
            }
        ),
    },
)
async def create_job(
    request: CreateJob,
    principal: Writer,
    jobs: Jobs,
    context: AppContext,
    response: Response,
    idempotency_key: _RetryKey = None,
) -> JobCreated:
    """Create a new segmentation job.

    The file must have been uploaded, and the model be one of `available_models`. With an `Idempotency-Key` a request
    that was interrupted can be sent again without making a second job.
    """
    receipt = await jobs.receipt(principal, request, idempotency_key)
    if receipt is None:
        async with context.limits.job(principal.subject) as count:
            receipt = await jobs.create(principal, request, idempotency_key)
            count.made = not receipt.replayed  # the same request may have been answered in between
    if receipt.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return present.created(receipt)


@router.get(
    "",
    response_model=JobList,
    responses={200: header("Link", 'The address of the next page, as `</v1/jobs?…>; rel="next"`; absent on the last.')},
)
async def list_jobs(
    principal: Reader,
    jobs: Jobs,
    status: Annotated[JobStatus | None, Query(description="Filter by status")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Max results")] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31, description="Pagination offset")] = 0,
    before: Annotated[
        str | None,
        Query(max_length=64, description="A job's id: only older jobs are listed. See the header Link of the answer."),
    ] = None,
) -> Response:
    """List all jobs (with filtering), newest first.

    Where there are more, the header `Link` (`rel="next"`) has the address of the next page; following it shows every
    job once though jobs are added meanwhile. With `offset` alone, jobs move to later pages as newer ones come.
    """
    page = await jobs.page(principal, status, limit, offset, before)
    summaries = [present.summary(job) for job in page.jobs]
    answer = JobList(jobs=summaries, total=page.total, limit=limit, offset=offset)
    return _json(answer, next_page(router.prefix, page, status, limit))


@polled.get("/{job_id}", response_model=JobDetails, responses=refusals(_NO_JOB))
async def get_job(job_id: str, principal: Reader, request: Request) -> Response:
    """Get job status and details.

    Fields that do not apply yet are absent. The artifacts' URLs are signed anew each time.
    """
    context: Context = request.app.state.context
    return _json(present.details(await context.jobs.get(principal, job_id), context.signer, context.now()))


@router.delete(
    "/{job_id}",
    responses=refusals({**_NO_JOB, 409: "The job has completed or failed.", 507: "There is no room to write it down."}),
)
async def cancel_job(job_id: str, principal: Writer, jobs: Jobs) -> JobCancelled:
    """Cancel a running or queued job.

    A job that is cancelled already is answered likewise.
    """
    record = await jobs.cancel(principal, job_id)
    return JobCancelled(job_id=record.job_id, status=record.status, message="Job cancelled successfully")


def _json(answer: BaseModel, headers: dict[str, str] | None = None) -> Response:
    """Return an answer without the fields that do not apply; FastAPI would first take it apart and check it again."""
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json", headers=headers)
