"""The OpenAPI document: what FastAPI reads from the routes, completed with what all of them have in common."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from cryomamba_apiserver.errors import ErrorEnvelope
from cryomamba_apiserver.jobs.schemas import (
    CompletedMessage,
    ErrorMessage,
    PongMessage,
    PreviewMessage,
    ProgressMessage,
)
from cryomamba_apiserver.openapi_examples import EXAMPLES, RATE_LIMITED, STAMP
from cryomamba_apiserver.openapi_fields import FIELDS
from cryomamba_crds.failures import Failure, FailureCode

_SCHEMAS = "#/components/schemas/"
_HEADERS = "#/components/headers/"
_PROBES = frozenset({"livez", "readyz", "healthz"})
_MESSAGES = (ProgressMessage, PreviewMessage, CompletedMessage, ErrorMessage, PongMessage)

_DESCRIPTION = """Segmentation of cryo-EM volumes with nnU-Net.

Upload a volume in parts, create a job, watch it on the WebSocket `/ws/jobs/{job_id}` (under `x-websockets`), download
its results by the signed URLs in the job's details.

Times are UTC to the second, `2025-10-17T10:30:00Z`. Shapes and voxel sizes are in the order [X, Y, Z]. Every answer
that is not a success has one form, `ErrorEnvelope`; `retryable` says whether the same request may succeed later.
"""

_TAGS = [
    {"name": "system", "description": "The server itself: is it well, what can it do."},
    {"name": "uploads", "description": "Volumes, sent in parts that may come in any order and again."},
    {"name": "jobs", "description": "Segmentations: asked for, followed, cancelled."},
    {"name": "artifacts", "description": "Results, downloaded by signed URL."},
    {"name": "gpus", "description": "The GPUs that jobs run on."},
]

_CODES = {
    400: FailureCode.VALIDATION_ERROR,
    401: FailureCode.AUTHENTICATION_REQUIRED,
    403: FailureCode.FORBIDDEN,
    404: FailureCode.NOT_FOUND,
    408: FailureCode.VALIDATION_ERROR,
    409: FailureCode.CONFLICT,
    410: FailureCode.NOT_FOUND,
    413: FailureCode.PAYLOAD_TOO_LARGE,
    415: FailureCode.VALIDATION_ERROR,
    416: FailureCode.VALIDATION_ERROR,
    422: FailureCode.VALIDATION_ERROR,
    429: FailureCode.RATE_LIMIT_EXCEEDED,
    500: FailureCode.INTERNAL_ERROR,
    503: FailureCode.SERVICE_UNAVAILABLE,
    507: FailureCode.INSUFFICIENT_STORAGE,
}

_ALWAYS = {
    400: "The request is not valid; `details.field` says which part of it.",
    500: "The server met an error that it did not expect.",
    503: "The server is at capacity, is stopping, or cannot reach what it needs.",
}
_COUNTED = {429: "More requests than the limits allow."}
_SECURED = {401: "There is no token, or it is not valid here.", 403: "The token lacks the scope that this needs."}
_WITH_BODY = {
    408: "The body came too slowly, or not at all.",
    413: "The body, or the file that it announces, is too large.",
}

_WITH_JSON = {415: "The body is not said to be `application/json`."}

_RESPONSE_HEADERS = {
    "X-RateLimit-Limit": ("Requests that a minute allows.", "integer", 60),
    "X-RateLimit-Remaining": ("Requests that are left of this minute.", "integer", 45),
    "X-RateLimit-Reset": ("When the next minute begins: Unix time in seconds.", "integer", 1697550000),
    "X-Request-ID": ("Names the request in the server's log.", "string", "4f7c1f8e6a0b4d0c9a53e1c2b7d89f10"),
    "Retry-After": ("Seconds to wait before the request is sent again.", "integer", 15),
}
_ON_EVERY_ANSWER = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Request-ID")
_COME_AGAIN = frozenset({429, 503})


def refusals(reasons: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return what a route declares of its own refusals: for each status the reason, with an example.

    The refusals that every route has are added by `describe`.
    """
    return {status: _refusal(status, reason) for status, reason in reasons.items()}


def _refusal(status: int, reason: str) -> dict[str, Any]:
    example = RATE_LIMITED if status == 429 else _envelope(status, reason)  # noqa: PLR2004 - an HTTP status
    return {
        "description": reason,
        "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "ErrorEnvelope"}, "example": example}},
    }


def _envelope(status: int, reason: str) -> dict[str, Any]:
    code = _CODES[status]
    retryable = code.retryable or status == HTTPStatus.REQUEST_TIMEOUT
    failure = Failure(code=code, message=reason, hint="What to do about it.", retryable=retryable)
    return ErrorEnvelope(error=failure).model_dump(mode="json")


def header(name: str, meaning: str) -> dict[str, Any]:
    """Return what a route declares of a header that some of its successes carry."""
    return {"headers": {name: {"description": meaning, "schema": {"type": "string"}}}}


BINARY = {"schema": {"type": "string", "format": "binary"}}
"""Content that is bytes and nothing else."""


def operation_id(route: APIRoute) -> str:
    """Return a route's name as the id of its operation: names are given once."""
    return route.name


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the app's document, once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, description=_DESCRIPTION, routes=app.routes, tags=_TAGS
            )
            app.openapi_schema = complete(made)
        return app.openapi_schema

    return document


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's document with summaries, shared refusals and headers, examples, and the WebSocket."""
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    components = document.setdefault("components", {})
    components["headers"] = {
        name: {"description": text, "required": True, "schema": {"type": kind}, "example": example}
        for name, (text, kind, example) in _RESPONSE_HEADERS.items()
    }
    schemas = components.setdefault("schemas", {})
    _add_models(schemas)
    for method, operation in _operations(document):
        _summarise(operation)
        _add_refusals(operation)
        _add_headers(operation)
        for parameter in operation.get("parameters", []):
            if parameter["name"] in FIELDS:
                parameter.setdefault("description", FIELDS[parameter["name"]])
        if method == "head":  # HTTP allows no body in the answer to it
            for response in operation["responses"].values():
                response.pop("content", None)
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's form of 422, which no answer of ours has
        schemas.pop(name, None)
    for name, example in EXAMPLES.items():
        schemas[name]["examples"] = [example]
    for name, schema in schemas.items():
        _describe_fields(name, schema)
    document["x-websockets"] = _websockets()
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in document["paths"].values():
        yield from path.items()


def _summarise(operation: dict[str, Any]) -> None:
    """Take the first line of a route's docstring for its summary, and the rest for its description."""
    summary, _, description = operation["description"].partition("\n")
    operation["summary"] = summary.strip().rstrip(".")
    operation["description"] = description.strip()


def _add_refusals(operation: dict[str, Any]) -> None:
    shared = dict(_ALWAYS)
    if operation["operationId"] not in _PROBES:
        shared |= _COUNTED
    if operation.get("security"):
        shared |= _SECURED
    if "requestBody" in operation:
        shared |= _WITH_BODY
        if "application/json" in operation["requestBody"]["content"]:
            shared |= _WITH_JSON
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status, reason in shared.items():
        responses.setdefault(str(status), _refusal(status, reason))
    operation["responses"] = dict(sorted(responses.items()))


def _add_headers(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        names = [*_ON_EVERY_ANSWER, *(["Retry-After"] if int(status) in _COME_AGAIN else [])]
        response.setdefault("headers", {}).update({name: {"$ref": _HEADERS + name} for name in names})


def _add_models(schemas: dict[str, Any]) -> None:
    """Add what no route names: the messages of the WebSocket, and the envelope of errors."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in (*_MESSAGES, ErrorEnvelope)], ref_template=_SCHEMAS + "{model}"
    )
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)


def _describe_fields(model: str, schema: dict[str, Any]) -> None:
    for field, described in schema.get("properties", {}).items():
        if text := FIELDS.get(f"{model}.{field}") or FIELDS.get(field):
            described.setdefault("description", text)


def _websockets() -> dict[str, Any]:
    return {
        "/ws/jobs/{job_id}": {
            "summary": "Watch a job",
            "description": (
                "The token goes into the query, `?token=…`, or, to keep it out of addresses, into the subprotocol "
                "`bearer.<token>`. The latest state comes at once, then each change; a slow reader misses states in "
                "between, never the newest. After `completed` or `error` the server closes with 1000. Refusals: 4401 "
                "no valid token, 4403 no scope `read`, 4404 no such job, 4429 too many connections. 1012: the server "
                "stops; 1013: it cannot reach what it needs."
            ),
            "serverMessages": [{"$ref": _SCHEMAS + model.__name__} for model in _MESSAGES],
            "clientMessages": [{"type": "object", "properties": {"type": {"const": "ping"}}, "required": ["type"]}],
            "examples": [{"type": "ping"}, {"type": "pong", "timestamp": STAMP}],
        }
    }
