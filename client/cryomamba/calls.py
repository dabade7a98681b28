"""The REST calls as plain values and what their answers mean, shared by everything that sends them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from cryomamba.errors import ApiError, UnexpectedAnswerError
from cryomamba.models import (
    Cancellation,
    ErrorDetail,
    GpuStatus,
    JobPage,
    JobParams,
    JobRecord,
    JobStatus,
    PreviewConfig,
    ServerInfo,
    UploadedFile,
    UploadedPart,
    UploadSession,
    UploadState,
)
from cryomamba_crds.failures import FailureCode

Answer = TypeVar("Answer", bound=BaseModel)
Metadata = Mapping[str, Any] | None

READ_SECONDS = 60.0
_COMPLETION_BYTES_PER_SECOND = 10 * 2**20
"""`complete` reads the whole volume on the server; this slow at worst."""

_CODE_OF_STATUS = {code.http_status: code for code in reversed(FailureCode)}
_PASSING_TROUBLE = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request and the type of its answer. All of them may be sent twice without harm."""

    method: str
    path: str
    answer: type[Answer]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    read_seconds: float = READ_SECONDS


def server_info() -> Call[ServerInfo]:
    """What the server is and which models it has."""
    return Call("GET", "/v1/server/info", ServerInfo)


def gpu_status() -> Call[GpuStatus]:
    """What the GPUs are doing."""
    return Call("GET", "/v1/gpu/status", GpuStatus)


def start_upload(filename: str, total_size: int, chunk_size: int, metadata: Metadata) -> Call[UploadSession]:
    """Open an upload; sizes in bytes."""
    body: dict[str, Any] = {
        "filename": filename,
        "total_size": total_size,
        "chunk_size": chunk_size,
        "content_type": "application/octet-stream",
    }
    if metadata:
        body["metadata"] = dict(metadata)
    return Call("POST", "/v1/uploads/init", UploadSession, body=body)


def upload_state(upload_id: str) -> Call[UploadState]:
    """How far an upload is and which parts the server holds."""
    return Call("GET", f"/v1/uploads/{quote(upload_id, safe='')}", UploadState)


def complete_upload(upload_id: str, parts: list[UploadedPart], total_size: int) -> Call[UploadedFile]:
    """Have the parts put together and checked; the server reads every byte, so a large file takes patience."""
    body = {"parts": [part.model_dump() for part in sorted(parts, key=lambda part: part.part_number)]}
    return Call(
        "POST",
        f"/v1/uploads/{upload_id}/complete",
        UploadedFile,
        body=body,
        read_seconds=READ_SECONDS + total_size / _COMPLETION_BYTES_PER_SECOND,
    )


def create_job(
    file_id: str, model: str, params: JobParams, preview: PreviewConfig | None, idempotency_key: str
) -> Call[JobRecord]:
    """Ask for a segmentation; parameters at their defaults are left to the server."""
    body: dict[str, Any] = {"file_id": file_id, "model": model}
    if changed := params.model_dump(mode="json", exclude_defaults=True):
        body["params"] = changed
    if preview is not None:
        body["preview_config"] = preview.model_dump(mode="json")
    return Call("POST", "/v1/jobs", JobRecord, body=body, headers={"Idempotency-Key": idempotency_key})


def job(job_id: str) -> Call[JobRecord]:
    """One job."""
    return Call("GET", f"/v1/jobs/{job_id}", JobRecord)


def jobs(status: JobStatus | None, limit: int, offset: int) -> Call[JobPage]:
    """A page of the list of jobs."""
    query: dict[str, str | int] = {"limit": limit, "offset": offset}
    if status is not None:
        query["status"] = status
    return Call("GET", "/v1/jobs", JobPage, query=query)


def cancel(job_id: str) -> Call[Cancellation]:
    """Stop a job."""
    return Call("DELETE", f"/v1/jobs/{job_id}", Cancellation)


def answer_of(response: httpx.Response, answer: type[Answer]) -> Answer:
    """Read an answer whose body has been loaded.

    Raises:
        ApiError: The server refused.
        UnexpectedAnswerError: It is no CryoMamba server, or one of another version.
    """
    if not response.is_success:
        raise error_of(response)
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, problem["loc"])) or "the body" for problem in error.errors()[:3])
        raise UnexpectedAnswerError(
            f"{response.request.method} {_shown(response.request.url)} answered something unexpected ({where})",
            hint="Check that the URL is that of a CryoMamba server, of the same version as this client.",
        ) from error


def error_of(response: httpx.Response) -> ApiError:
    """The error that a refused response tells of: its envelope, or what the bare status says where there is none."""
    return error_of_answer(response.status_code, response.headers, response.content, str(_shown(response.request.url)))


def error_of_answer(status: int, headers: Mapping[str, str], content: bytes, url: str) -> ApiError:
    """As `error_of`, for an answer that did not come through httpx (a refused WebSocket handshake)."""
    try:
        detail = ErrorDetail.model_validate(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        detail = ErrorDetail(
            code=_CODE_OF_STATUS.get(status, FailureCode.INTERNAL_ERROR),
            message=f"{url} answered HTTP {status} without saying why",
            hint="Something between this client and the server, such as a proxy, may have answered."
            " Check the URL and the server's log.",
            retryable=status in _PASSING_TROUBLE,
        )
    return ApiError(
        detail.code,
        detail.message,
        hint=detail.hint,
        retryable=detail.retryable,
        details=detail.details,
        status=status,
        retry_after=_seconds(headers.get("Retry-After")) or _seconds(detail.details.get("retry_after_seconds")),
    )


def _seconds(value: object) -> float | None:
    """Seconds of a Retry-After; the form with a date is not used by our server and counts as absent."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 < seconds < float("inf") else None


def _shown(url: httpx.URL) -> httpx.URL:
    """A URL fit for a message: signatures of downloads stay out of it."""
    return url.copy_with(query=None)
