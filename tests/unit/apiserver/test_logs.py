"""What the real server logs, and what it never does."""

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect as connect_socket

from cryomamba_apiserver.operations.logs import configure_logs
from cryomamba_apiserver.operations.redaction import redact
from support.commands import Server, serving
from support.raw_http import answer_to
from support.waiting import until

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"


@pytest.fixture(params=["json", "console"])
def log_format(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(tmp_path: Path, log_format: str) -> Iterator[Server]:
    with serving(tmp_path / "data", log_format=log_format, log_level="debug") as started:
        yield started


def logged(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.errors.read_text().splitlines()]


def test_no_secret_of_a_whole_session_is_in_the_logs(server: Server, emd_3197: bytes) -> None:
    token = server.token()
    forged = token[:-20] + "A" * 20
    address = server.url.replace("http", "ws")
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}) as client:
        begun = client.post(
            "/v1/uploads/init", json={"filename": "a.mrc", "total_size": len(emd_3197), "chunk_size": 5 << 20}
        ).json()
        part = client.put(begun["chunk_urls"][0], content=emd_3197).json()
        parts = [{"part_number": 0, "etag": part["etag"]}]
        client.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts}).raise_for_status()
        client.get("/v1/jobs", params={"token": token, "X-Amz-Signature": "f00dcafe" * 8})
        client.get(f"/nothing/{token}")
        client.get("/v1/jobs", headers={"Authorization": f"Bearer {forged}"})
        client.get("/v1/jobs/job_a/artifacts/segmentation.mrc", params={"token": "deadbeef" * 8, "expires": "1"})
    for target in (f"/ws/jobs/job_a?token={token}", f"/ws/jobs/job_a?token={forged}", f"/ws/none?token={token}"):
        with suppress(WebSocketException), connect_socket(f"{address}{target}") as socket:
            socket.recv(timeout=10)
    with (
        suppress(ConnectionClosed),
        connect_socket(f"{address}/ws/jobs/job_a", subprotocols=[f"bearer.{token}"]) as socket,  # type: ignore[list-item]
    ):
        socket.recv(timeout=10)
    for request in (
        f"GET /livez?token={token} HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        f"GET /ws/jobs/a?token={token} HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        f"GET /livez HTTP/1.1\r\nAuthorization: Bearer {token}\r\nBroken {token}\r\n\r\n",
    ):
        answer_to(server.url, request.encode())

    until(lambda: server.errors.read_text().count("/ws/jobs/{job_id}") >= 3, 20)
    text = server.errors.read_text()
    for secret in (token, forged, *token.split("."), "f00dcafe", "deadbeef"):
        assert secret not in text
    # The one in a path; any other would mean that somebody did log a secret, and only the last line of defence held.
    assert text.count("[redacted]") == text.count("/nothing/[redacted]") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("log_format", ["json"], indirect=True)
def test_a_request_has_one_line_with_what_is_worth_knowing(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token()}", "X-Request-Id": "mine.1"}

    answer = httpx.get(f"{server.url}/v1/jobs/job_aaaaaaaaaaaa?verbose=1", headers=headers)

    until(lambda: "mine.1" in server.errors.read_text(), 20)
    (line,) = [line for line in logged(server) if line.get("request_id") == "mine.1"]
    assert answer.headers["x-request-id"] == "mine.1"
    assert line.pop("milliseconds") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", line.pop("timestamp"))
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "cryomamba_apiserver.access",
        "request_id": "mine.1",
        "method": "GET",
        "path": "/v1/jobs/{job_id}",
        "status": 404,
        "received": 0,
        "sent": len(answer.content),
        "subject": "ada",
        "client": "127.0.0.1",
    }


@pytest.mark.parametrize("log_format", ["json"], indirect=True)
def test_a_websocket_has_a_line_when_it_ends(server: Server) -> None:
    with connect_socket(server.url.replace("http", "ws") + f"/ws/jobs/job_a?token={server.token()}") as socket:
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
        assert socket.response
        identity = socket.response.headers["x-request-id"]

    until(lambda: identity in server.errors.read_text(), 20)
    (line,) = [line for line in logged(server) if line.get("request_id") == identity]
    assert (line["event"], line["path"], line["status"]) == ("websocket", "/ws/jobs/{job_id}", 4404)
    assert line["subject"] == "ada"


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer [redacted]"),
        ("bearer.abc123, other", "bearer.[redacted], other"),
        ("GET /ws/jobs/a?token=abc&x=1", "GET /ws/jobs/a?token=[redacted]&x=1"),
        ("https://s3/b/k?X-Amz-Signature=ff00&X-Amz-Date=1", "https://s3/b/k?X-Amz-Signature=[redacted]&X-Amz-Date=1"),
        ("X-Amz-Credential=AKIA/2026/s3&a", "X-Amz-Credential=[redacted]&a"),
        (f"'{JWT}' is no job", "'[redacted]' is no job"),
        ("redis://user:hunter2@host:6379/0", "redis://[redacted]@host:6379/0"),
        ("the token has expired", "the token has expired"),
        ("a bearer of news", "a bearer [redacted] news"),  # rather too much than too little
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_every_line(line: str, safe: str) -> None:
    assert redact(line) == safe


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    named = {name: logging.getLogger(name).level for name in ("cryomamba_apiserver", "cryomamba_crds", "uvicorn")}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, before in named.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_are_logged_without_values_and_without_secrets(restored_logging: None, form: Any) -> None:
    stream = io.StringIO()
    configure_logs(form, "info", stream)
    hidden = "value of a variable"

    def fail() -> None:
        raise ValueError(f"no job for Bearer {JWT} {len(hidden)}")

    try:
        fail()
    except ValueError:
        logging.getLogger("cryomamba_apiserver.test").exception("failed")

    text = stream.getvalue()
    assert "ValueError: no job for Bearer [redacted]" in text
    assert hidden not in text
    assert JWT not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_that_cannot_be_written_does_not_show_its_arguments(restored_logging: None, form: Any) -> None:
    stream = io.StringIO()
    configure_logs(form, "info", stream)

    logging.getLogger("cryomamba_apiserver.test").info("%d", "some argument")

    assert "could not be logged" in stream.getvalue()
    assert "some argument" not in stream.getvalue()


def test_what_shows_queries_at_a_low_level_is_silent_there(restored_logging: None) -> None:
    stream = io.StringIO()
    configure_logs("json", "debug", stream)

    for name in ("uvicorn.error", "websockets.server", "urllib3.connectionpool", "httpx"):
        logging.getLogger(name).info("GET /?secret")
    logging.getLogger("cryomamba_apiserver.test").debug("ours")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours"]
