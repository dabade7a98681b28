"""Clients that take their time, against the real server process with short deadlines."""

import contextlib
import json
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from support.commands import Server, serving
from support.raw_http import answer_to, connect, is_closed, read_answer
from support.waiting import until

_SHORT = {
    "header_seconds": "1",
    "body_seconds": "1",
    "body_rate": "1000",
    "send_seconds": "1",
    "keep_alive_seconds": "1",
    "requests_per_minute": "100000",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("slow") / "data", **_SHORT) as started:
        yield started


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()


def drip(connection: socket.socket, piece: bytes) -> None:
    """Send a piece again and again until the server says something or hangs up."""
    with selectors.DefaultSelector() as selector, contextlib.suppress(ConnectionError):
        selector.register(connection, selectors.EVENT_READ)
        for _ in range(1000):
            if selector.select(timeout=0.05):
                return
            connection.sendall(piece)
    raise AssertionError("the server put up with it")


def get_alive(url: str) -> int:
    return answer_to(url, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").status


def put_head(upload_path: str, token: str, length: int) -> bytes:
    head = f"PUT {upload_path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


@pytest.fixture
def part_path(server: Server, token: str) -> str:
    """Where the one part of a new upload goes."""
    body = json.dumps({"filename": "a.mrc", "total_size": 5 << 20, "chunk_size": 5 << 20})
    head = f"POST /v1/uploads/init HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = answer_to(server.url, f"{head}{body}".encode())
    return json.loads(answer.body)["chunk_urls"][0]


def test_a_client_that_drips_headers_is_cut_while_others_are_served(server: Server) -> None:
    with connect(server.url) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        assert get_alive(server.url) == 200
        drip(slow, b"a")
        answer = read_answer(slow)

        assert answer.status == 408
        assert answer.error["retryable"]
        assert "headers took longer than 1 s" in answer.error["message"]
        assert is_closed(slow)


def test_the_second_request_of_a_connection_has_the_same_deadline(server: Server) -> None:
    with connect(server.url) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        read_answer(slow)
        slow.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        drip(slow, b"a")

        assert read_answer(slow).status == 408


def test_a_client_that_drips_a_body_is_cut_while_others_are_served(server: Server, token: str, part_path: str) -> None:
    with connect(server.url) as slow:
        slow.sendall(put_head(part_path, token, 5 << 20))
        assert get_alive(server.url) == 200
        drip(slow, b"a")
        answer = read_answer(slow)

        assert answer.status == 408
        assert answer.error["message"] == "The body came slower than 1000 bytes/s for 1 s."
        assert is_closed(slow)


def test_a_client_that_sends_no_body_is_cut(server: Server, token: str, part_path: str) -> None:
    with connect(server.url) as slow:
        slow.sendall(put_head(part_path, token, 5 << 20))

        assert read_answer(slow).status == 408


def test_a_body_that_keeps_coming_may_take_longer_than_the_deadline(server: Server, token: str, part_path: str) -> None:
    data = bytes(5 << 20)
    with connect(server.url) as steady, selectors.DefaultSelector() as selector:
        selector.register(steady, selectors.EVENT_READ)
        steady.sendall(put_head(part_path, token, len(data)) + data[:-40_000])
        for start in range(0, 40_000, 1000):  # 20 times the rate for two deadlines
            assert not selector.select(timeout=0.05)
            steady.sendall(data[-40_000 + start : -39_000 + start or None])

        assert read_answer(steady).status == 200


def test_a_connection_on_which_nothing_comes_is_closed(server: Server) -> None:
    with connect(server.url) as idle:
        assert is_closed(idle)


def test_empty_lines_do_not_keep_a_connection_open(server: Server) -> None:
    with connect(server.url) as idle:
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        read_answer(idle)
        drip(idle, b"\r\n")

        assert is_closed(idle)


def test_the_rest_of_a_body_that_nobody_wants_is_not_read_for_ever(server: Server) -> None:
    with connect(server.url) as endless:
        endless.sendall(put_head("/v1/uploads/upl_x/part/0", "no token", 1 << 40))
        answer = read_answer(endless)
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000_000):
                endless.sendall(bytes(65536))

        assert answer.status == 401
        assert is_closed(endless)


def test_a_client_that_does_not_read_what_it_asked_for_is_cut(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        own = deaf.getsockname()

        def held() -> bool:
            return any(link.raddr == own for link in psutil.Process(server.process.pid).net_connections())

        until(held, 20)
        deaf.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)

        until(lambda: not held(), 60)


def test_a_client_that_reads_slowly_and_steadily_is_sent_all_it_takes(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as steady, selectors.DefaultSelector() as pace:
        steady.settimeout(20)
        steady.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        steady.connect((host, int(port)))
        steady.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        for _ in range(100):  # 80 times the rate, for more than four deadlines
            assert steady.recv(4096)
            pace.select(timeout=0.05)


def test_what_cuts_a_request_is_in_the_log(server: Server, token: str, part_path: str) -> None:
    with connect(server.url) as slow:
        slow.sendall(put_head(part_path, token, 5 << 20).replace(b"Host: x", b"Host: x\r\nX-Request-Id: sleepy"))
        answer = read_answer(slow)

    def lines() -> list[dict[str, Any]]:
        logged = [json.loads(line) for line in server.errors.read_text().splitlines()]
        return [line for line in logged if line.get("request_id") == "sleepy" and line["event"] == "request"]

    until(lines, 20)
    line = lines()[0]
    assert answer.headers["x-request-id"] == "sleepy"
    assert (line["status"], line["subject"]) == (408, "ada")
    assert line["path"] == "/v1/uploads/{upload_id}/part/{part_number}"
    assert "slower than" in line["reason"]
