"""Sends bytes to a server that no HTTP client would send, and reads what comes back."""

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_DEADLINE_SECONDS = 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The envelope's content; fails where the body is none."""
        assert self.headers["content-type"].startswith("application/json"), self.body
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message", "hint", "retryable", "details"}
        assert "Traceback" not in self.body.decode()
        return error


def connect(url: str) -> socket.socket:
    """Open a connection to a server."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=_DEADLINE_SECONDS)


def answer_to(url: str, request: bytes) -> Answer:
    """Send bytes and return the answer to them; the server must answer before it closes the connection."""
    with connect(url) as connection:
        # A server that has heard enough may close while we are still sending.
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> Answer:
    """Return one answer from a connection."""
    head, body = b"", b""
    while not head.endswith(b"\r\n\r\n"):
        head += _more(connection, 1)  # another answer may follow this one
    status, *lines = head.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while (missing := int(headers.get("content-length", 0)) - len(body)) > 0:
        body += _more(connection, missing)
    return Answer(int(status.split()[1]), headers, body)


def is_closed(connection: socket.socket) -> bool:
    """Wait for the server to close a connection, and return whether it did without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def _more(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    assert data, "the server closed the connection without an answer"
    return data
