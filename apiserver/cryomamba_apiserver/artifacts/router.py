"""HTTP for downloads."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.errors import ForbiddenError, NotFoundError
from cryomamba_apiserver.ports.job_store import JobMissingError, JobStatus
from cryomamba_crds import keys

router = APIRouter(prefix="/v1/files", tags=["artifacts"])


@router.get("/{job_id}/{artifact_name}", response_class=StreamingResponse)
async def download(
    job_id: str,
    artifact_name: str,
    context: AppContext,
    token: Annotated[str, Query(max_length=256, description="Signed download token")] = "",
    expires: Annotated[int, Query(ge=0, le=2**40, description="Token expiry timestamp")] = 0,
) -> StreamingResponse:
    """Download job artifact (segmentation mask, statistics, etc.)."""
    refused = ForbiddenError(
        "The link is not valid or has expired.",
        hint="Get a fresh one from GET /v1/jobs/{job_id}.",
    )
    try:
        record = await context.job_store.get(job_id)
    except JobMissingError:
        raise refused from None  # who has no valid link does not learn which jobs there are
    if not context.signer.valid(job_id, artifact_name, record.request.owner, token, expires, context.now()):
        raise refused
    artifacts = record.result.artifacts if record.status is JobStatus.COMPLETED and record.result else []
    artifact = next((artifact for artifact in artifacts if artifact.name == artifact_name), None)
    if artifact is None:
        raise NotFoundError("There is no such artifact.", hint="GET /v1/jobs/{job_id} lists a job's artifacts.")
    key = keys.attempt_prefix(record.uid, record.result.attempt if record.result else 0) + artifact.name
    return StreamingResponse(
        context.objects.stream(key, 0, artifact.size),
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(artifact.size),
            "Content-Disposition": f'attachment; filename="{artifact.name}"',
        },
    )
