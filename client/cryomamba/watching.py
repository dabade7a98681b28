"""What the messages of a job's WebSocket mean, and what a job's record says instead when the socket is gone."""

from collections.abc import Mapping
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

from pydantic import TypeAdapter, ValidationError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cryomamba.calls import error_of_answer
from cryomamba.errors import ApiError, UnexpectedAnswerError
from cryomamba.models import (
    CompletedMessage,
    ErrorDetail,
    ErrorMessage,
    JobRecord,
    Message,
    PreviewMessage,
    ProgressMessage,
)
from cryomamba_crds.failures import FailureCode

LARGEST_MESSAGE = 64 * 2**20
"""Bytes; a preview of a large volume at scale 1 is a few MB of base64."""

AnyMessage = ProgressMessage | PreviewMessage | CompletedMessage | ErrorMessage

_KNOWN_TYPES = frozenset({"progress", "preview", "completed", "error"})
_MESSAGE: TypeAdapter[AnyMessage] = TypeAdapter(Message)
_TYPE: TypeAdapter[dict[str, object]] = TypeAdapter(dict[str, object])
_REFUSALS: Mapping[int, tuple[FailureCode, str, str]] = {
    4401: (
        FailureCode.AUTHENTICATION_REQUIRED,
        "the server does not accept the token for watching the job",
        "Get a fresh token (`cryomamba token create`) and put it in CRYOMAMBA_TOKEN.",
    ),
    4403: (
        FailureCode.FORBIDDEN,
        "the token does not allow watching the job",
        "Ask for a token with the scope `read`.",
    ),
    4404: (FailureCode.NOT_FOUND, "the server knows no such job", "Check the job's id and whose token you use."),
}


def socket_url(base_url: str, job_id: str) -> str:
    """Where a job's messages come from; the token is no part of it."""
    scheme, host, path, _, _ = urlsplit(base_url)
    return urlunsplit(("wss" if scheme == "https" else "ws", host, f"{path}/ws/jobs/{job_id}", "", ""))


def parsed(text: str | bytes) -> AnyMessage | None:
    """Read one message; None for one of a kind that a newer server may send and this client need not know.

    Raises:
        UnexpectedAnswerError: It is no message at all.
    """
    try:
        if _TYPE.validate_json(text).get("type") not in _KNOWN_TYPES:
            return None
        return _MESSAGE.validate_json(text)
    except ValidationError as error:
        raise UnexpectedAnswerError(
            "the server sent a message that this client cannot read",
            hint="Check that client and server have the same version.",
        ) from error


def is_last(message: AnyMessage) -> bool:
    """Whether nothing comes after this message."""
    return isinstance(message, CompletedMessage | ErrorMessage)


def refusal(error: Exception, url: str) -> ApiError | None:
    """The answer of a server that will not let this client watch; None where the connection just broke."""
    if isinstance(error, InvalidStatus):
        answer = error.response
        refused = error_of_answer(answer.status_code, answer.headers, bytes(answer.body or b""), url)
        return None if refused.retryable else refused
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code in _REFUSALS:
        code, message, hint = _REFUSALS[error.rcvd.code]
        return ApiError(code, message, hint=hint)
    return None


def message_of(record: JobRecord, now: datetime) -> AnyMessage | None:
    """What the WebSocket would have said of a job in this state; None for one that waits in the queue."""
    when = record.updated_at or now
    if record.status == "completed":
        return CompletedMessage(job_id=record.job_id, timestamp=when, artifacts=record.artifacts)
    if record.status in ("failed", "cancelled"):
        return ErrorMessage(job_id=record.job_id, timestamp=when, error=record.error or _unexplained(record))
    if record.progress is not None:
        return ProgressMessage(job_id=record.job_id, timestamp=when, progress=record.progress)
    return None


def _unexplained(record: JobRecord) -> ErrorDetail:
    if record.status == "cancelled":
        return ErrorDetail(code=FailureCode.CONFLICT, message=f"job {record.job_id} was cancelled")
    return ErrorDetail(
        code=FailureCode.INTERNAL_ERROR,
        message=f"job {record.job_id} failed and the server does not say why",
        hint="Ask whoever runs the server for its log.",
    )
