"""Errors of the API: one class a kind, one envelope for all, the framework's own included."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cryomamba_apiserver.ports.object_store import StorageFullError
from cryomamba_crds.failures import Failure, FailureCode, FailureError

_log = logging.getLogger(__name__)


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: Failure


class ApiError(FailureError):
    """A failure with the HTTP status that the reference gives its code."""

    code = FailureCode.INTERNAL_ERROR
    status: int | None = None

    def __init__(
        self, message: str, *, hint: str, details: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(self.code, message, hint=hint, details=details)
        self.headers = headers


class InvalidRequestError(ApiError):
    """400: the request itself is wrong."""

    code = FailureCode.VALIDATION_ERROR


class InvalidContentError(ApiError):
    """422: the request is well formed, what it refers to is not usable."""

    code = FailureCode.VALIDATION_ERROR
    status = 422


class AuthenticationError(ApiError):
    """401."""

    code = FailureCode.AUTHENTICATION_REQUIRED


class ForbiddenError(ApiError):
    """403."""

    code = FailureCode.FORBIDDEN


class NotFoundError(ApiError):
    """404; also for what belongs to somebody else."""

    code = FailureCode.NOT_FOUND


class GoneError(ApiError):
    """410: it was there."""

    code = FailureCode.NOT_FOUND
    status = 410


class ConflictError(ApiError):
    """409."""

    code = FailureCode.CONFLICT


class TimedOutError(ApiError):
    """408: the client fell silent in the middle of a request."""

    code = FailureCode.VALIDATION_ERROR
    status = 408


class TooLargeError(ApiError):
    """413."""

    code = FailureCode.PAYLOAD_TOO_LARGE


class StorageExhaustedError(ApiError):
    """507."""

    code = FailureCode.INSUFFICIENT_STORAGE


class UnavailableError(ApiError):
    """503."""

    code = FailureCode.SERVICE_UNAVAILABLE


_FRAMEWORK = {
    404: (FailureCode.NOT_FOUND, "There is nothing at this address.", "See /docs for the endpoints."),
    413: (FailureCode.PAYLOAD_TOO_LARGE, "The body of the request is too large.", "Send a smaller one."),
    405: (FailureCode.VALIDATION_ERROR, "This address does not take that method.", "See /docs for the endpoints."),
}


def install_error_handlers(app: FastAPI) -> None:
    """Let every error leave the app in the envelope."""
    app.add_exception_handler(FailureError, _on_failure)
    app.add_exception_handler(StorageFullError, _on_storage_full)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unexpected)


def _respond(status: int, failure: Failure, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorEnvelope(error=failure).model_dump(mode="json"), status_code=status, headers=headers)


async def _on_failure(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, FailureError):
        raise error
    status = error.failure.code.http_status
    if isinstance(error, ApiError):
        return _respond(error.status or status, error.failure, error.headers)
    # The gates of headers and models judge content: what they refuse was sent correctly and is unusable.
    return _respond(422 if error.failure.code is FailureCode.VALIDATION_ERROR else status, error.failure)


async def _on_storage_full(request: Request, error: Exception) -> JSONResponse:
    _log.error("the store is full: %s", error)
    hint = "Free some space in the server's data directory, then send the request again; what was received is kept."
    return await _on_failure(request, StorageExhaustedError("The server's storage is full.", hint=hint))


async def _on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [
        {"field": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]}
        for problem in error.errors()[:20]
    ]
    first = problems[0]
    failure = InvalidRequestError(
        f"The request is not valid: {first['field']}: {first['problem']}.",
        hint="Correct the fields named in details; /docs describes each.",
        details={"field": first["field"], "problems": problems},
    ).failure
    return _respond(400, failure)


async def _on_http_exception(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    fallback = (FailureCode.VALIDATION_ERROR, str(error.detail), "See /docs for what the endpoint takes.")
    code, message, hint = _FRAMEWORK.get(error.status_code, fallback)
    failure = Failure(code=code, message=message, hint=hint, retryable=code.retryable)
    return _respond(error.status_code, failure, dict(error.headers or {}))


async def _on_disconnect(request: Request, _: Exception) -> JSONResponse:
    # Nobody reads the answer; it is there so that a broken connection is no unexpected error in the log.
    return await _on_failure(request, InvalidRequestError("The request broke off.", hint="Send it again."))


async def _on_unexpected(_: Request, error: Exception) -> JSONResponse:
    _log.error("unexpected error", exc_info=error)
    failure = Failure(
        code=FailureCode.INTERNAL_ERROR,
        message="The server met an error that it did not expect.",
        hint="Try again; if it happens again, the server's log has the details.",
        retryable=True,
    )
    return _respond(500, failure)
