"""Errors of the API: one class a kind, one envelope for all, the framework's own included."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cryomamba_apiserver.ports.job_store import JobsRefusedError, JobsUnavailableError
from cryomamba_apiserver.ports.object_store import StorageFullError, StoreUnavailableError
from cryomamba_crds.failures import Failure, FailureCode, FailureError

_log = logging.getLogger(__name__)
_LONGEST_MESSAGE = 2048
_LONGEST_NAME = 200
"""A client's own words may be part of a field's name."""


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: Failure


class ApiError(FailureError):
    """A failure with the HTTP status that the reference gives its code."""

    code = FailureCode.INTERNAL_ERROR
    status: int | None = None
    retryable: bool | None = None
    """Where it is not what the reference says of the code."""

    def __init__(
        self, message: str, *, hint: str, details: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(self.code, message, hint=hint, retryable=self.retryable, details=details)
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
    retryable = True


class TooLargeError(ApiError):
    """413."""

    code = FailureCode.PAYLOAD_TOO_LARGE


class MediaTypeError(ApiError):
    """415: the body is not said to be what the route takes."""

    code = FailureCode.VALIDATION_ERROR
    status = 415


class RangeError(ApiError):
    """416: none of the bytes that were asked for are there."""

    code = FailureCode.VALIDATION_ERROR
    status = 416


class RateLimitedError(ApiError):
    """429: more than the limits allow."""

    code = FailureCode.RATE_LIMIT_EXCEEDED


class StorageExhaustedError(ApiError):
    """507."""

    code = FailureCode.INSUFFICIENT_STORAGE


class UnavailableError(ApiError):
    """503."""

    code = FailureCode.SERVICE_UNAVAILABLE


_STORE_RETRY_SECONDS = 10
_FRAMEWORK = {
    404: (FailureCode.NOT_FOUND, "There is nothing at this address.", "See /openapi.json for the endpoints."),
    413: (FailureCode.PAYLOAD_TOO_LARGE, "The body of the request is too large.", "Send a smaller one."),
    405: (
        FailureCode.VALIDATION_ERROR,
        "This address does not take that method.",
        "See /openapi.json for the endpoints.",
    ),
}


def install_error_handlers(app: FastAPI) -> None:
    """Let every error leave the app in the envelope."""
    app.add_exception_handler(FailureError, _on_failure)
    app.add_exception_handler(StorageFullError, _on_storage_full)
    app.add_exception_handler(StoreUnavailableError, _on_store_unavailable)
    app.add_exception_handler(JobsUnavailableError, _on_jobs_unavailable)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    # Any other is answered by the middleware `Observation`, which knows the request's id.


def answer_to(error: ApiError) -> JSONResponse:
    """Return what a client gets for an error that is met outside of the routes."""
    return _respond(error.status or error.failure.code.http_status, error.failure, error.headers)


def _respond(status: int, failure: Failure, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(ErrorEnvelope(error=failure).model_dump(mode="json"), status_code=status, headers=headers)


async def _on_failure(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, FailureError):
        raise error
    status = error.failure.code.http_status
    if isinstance(error, ApiError):
        return answer_to(error)
    # The gates of headers and models judge content: what they refuse was sent correctly and is unusable.
    return _respond(422 if error.failure.code is FailureCode.VALIDATION_ERROR else status, error.failure)


async def _on_storage_full(request: Request, error: Exception) -> JSONResponse:
    _log.error("the store is full: %s", error)
    hint = "Free some space in the server's store, then send the request again; what was received is kept."
    return await _on_failure(request, StorageExhaustedError("The server's storage is full.", hint=hint))


async def _on_store_unavailable(request: Request, error: Exception) -> JSONResponse:
    _log.error("the store cannot be used: %s", error)
    unavailable = UnavailableError(
        "The server's object store cannot be used now.",
        hint="Send the request again later; if that does not help, the server's log says what is wrong.",
        headers={"Retry-After": str(_STORE_RETRY_SECONDS)},
    )
    return await _on_failure(request, unavailable)


async def _on_jobs_unavailable(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, JobsUnavailableError):
        raise error
    _log.error("jobs cannot be asked about or changed: %s", error)
    if isinstance(error, JobsRefusedError):
        return await _on_failure(request, ApiError(str(error)[:_LONGEST_MESSAGE], hint=error.hint))
    unavailable = UnavailableError(
        str(error)[:_LONGEST_MESSAGE], hint=error.hint, headers={"Retry-After": str(_STORE_RETRY_SECONDS)}
    )
    return await _on_failure(request, unavailable)


async def _on_invalid_request(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    problems = [
        {"field": ".".join(str(part) for part in problem["loc"])[:_LONGEST_NAME], "problem": problem["msg"]}
        for problem in error.errors()[:20]
    ]
    first = problems[0]
    failure = InvalidRequestError(
        f"The request is not valid: {first['field']}: {first['problem']}.",
        hint="Correct the fields named in details; /openapi.json describes each.",
        details={"field": first["field"], "problems": problems},
    ).failure
    return _respond(400, failure)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    fallback = (FailureCode.VALIDATION_ERROR, str(error.detail), "See /openapi.json for what the endpoint takes.")
    code, message, hint = _FRAMEWORK.get(error.status_code, fallback)
    failure = Failure(code=code, message=message, hint=hint, retryable=code.retryable)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # noqa: PLR2004 - an HTTP status
        headers |= _allow(request)
    return _respond(error.status_code, failure, headers)


def _allow(request: Request) -> dict[str, str]:
    """Return which methods an address takes: each is a route of its own, and FastAPI names those of the first alone."""
    route = request.scope.get("route")
    methods = request.app.openapi()["paths"].get(getattr(route, "path", None), {})
    return {"Allow": ", ".join(sorted(method.upper() for method in methods))} if methods else {}


async def _on_disconnect(request: Request, _: Exception) -> JSONResponse:
    # Nobody reads the answer; it is there so that a broken connection is no unexpected error in the log.
    return await _on_failure(request, InvalidRequestError("The request broke off.", hint="Send it again."))
