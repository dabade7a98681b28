"""What every response tells a browser, and which pages of other origins may call."""

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from cryomamba_apiserver.operations.envelopes import Headers as RawHeaders
from cryomamba_apiserver.operations.envelopes import envelope
from cryomamba_crds.failures import Failure, FailureCode

_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_TAKEN = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "Range",
    "X-Request-Id",
)
_EXPOSED = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
)


def security_headers(hsts_seconds: int) -> RawHeaders:
    """Return the headers of every response; nothing that the API sends is a page, so a page of it may do nothing."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    ]
    if hsts_seconds:
        headers.append((b"strict-transport-security", f"max-age={hsts_seconds}; includeSubDomains".encode()))
    return headers


def allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Let pages of these origins call the app, with a token and never with cookies; of none where there is none."""
    if origins:
        app.add_middleware(
            _Cors,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_TAKEN,
            expose_headers=_EXPOSED,
            allow_credentials=False,
        )


class _Cors(CORSMiddleware):
    """Refuses in the envelope."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a browser that asks whether a page may call."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:  # noqa: PLR2004 - where errors begin
            return response
        failure = Failure(
            code=FailureCode.VALIDATION_ERROR,
            message=f"A page may not send this request: {bytes(response.body).decode()}.",
            hint="The server's setting CRYOMAMBA_CORS_ORIGINS names the origins whose pages may.",
            retryable=False,
        )
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return Response(envelope(failure), response.status_code, headers, "application/json")
