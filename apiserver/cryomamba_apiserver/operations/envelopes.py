"""Whole HTTP responses for where there is no app to make one: the protocol, and the outermost middleware."""

import json
from http import HTTPStatus

from cryomamba_crds.failures import Failure

Headers = list[tuple[bytes, bytes]]


def envelope(failure: Failure) -> bytes:
    """Return the body of an error."""
    return json.dumps({"error": failure.model_dump(mode="json")}, separators=(",", ":")).encode()


def envelope_headers(body: bytes) -> Headers:
    """Return the headers that describe an error's body."""
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


def response_bytes(status: int, headers: Headers, body: bytes) -> bytes:
    """Return an HTTP/1.1 response, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()]
    lines += [name + b": " + value + b"\r\n" for name, value in (*envelope_headers(body), *headers)]
    return b"".join([*lines, b"connection: close\r\n\r\n", body])
