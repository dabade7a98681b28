"""Requests that no client sends in good faith, to the real server process."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Server, serving
from support.raw_http import Answer, answer_to, connect, is_closed, read_answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("hostile") / "data"
    with serving(data_dir, requests_per_minute="100000") as started:
        yield started


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return server.token()


@pytest.fixture
def post(server: Server, token: str):
    """Sends a body to an address that reads JSON."""

    def send(body: bytes, path: str = "/v1/uploads/init") -> Answer:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        return answer_to(server.url, f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    return send


@pytest.fixture(autouse=True)
def no_traceback(server: Server) -> Iterator[None]:
    yield
    assert "Traceback" not in server.errors.read_text()


def get(target: bytes, *headers: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /livez HTTP/9.9\r\n\r\n", 400),
        (b"NOTHING /livez HTTP/1.1\r\n\r\n", 400),
        (get(b"/livez\x00"), 400),
        (get(b"/\xff\xfe"), 400),
        (get(b"/livez", b"X: a\x00b"), 400),
        (get(b"/livez", b"no colon"), 400),
        (get(b"/livez", b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        (get(b"/livez", b"Content-Length: 5", b"Content-Length: 6"), 400),
        (get(b"/livez", b"Content-Length: -1"), 400),
        (get(b"/livez", b"Content-Length: " + b"9" * 40), 400),
        (get(b"/livez", b"Transfer-Encoding: chunked") + b"zz\r\n", 400),
        (get(b"/" + b"a" * 9000), 414),
        (get(b"/v1/jobs?" + b"a&" * 100_000), 414),
        (get(b"/livez", b"X: " + b"a" * 40_000), 431),
        (get(b"/livez", *[b"X-%d: a" % number for number in range(5000)]), 431),
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 1_000_000, 431),
    ],
)
def test_what_is_no_request_is_answered_in_the_envelope(server: Server, request_bytes: bytes, status: int) -> None:
    answer = answer_to(server.url, request_bytes)

    # Of a request that was handed over before its body turned out to be nonsense, the answer may be there already.
    assert answer.status == status or (status == 400 and b"chunked\r\n\r\nzz" in request_bytes and answer.status == 200)
    if answer.status != 200:
        assert answer.error["code"] == "VALIDATION_ERROR"
        assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_query_of_many_parameters_is_refused_before_it_is_parsed(server: Server) -> None:
    answer = answer_to(server.url, get(b"/v1/jobs?" + b"a&" * 100))

    assert answer.status == 400
    assert answer.error["message"] == "The query has more than 64 parameters."


@pytest.mark.parametrize("target", [b"/v1/jobs/%00", b"/v1/jobs/%ff", b"/v1/jobs/a%0d%0ab", b"/v1/jobs/..%2f..%2f"])
def test_odd_paths_are_not_found(server: Server, token: str, target: bytes) -> None:
    answer = answer_to(server.url, get(target, b"Authorization: Bearer " + token.encode()))

    assert answer.status == 404
    assert answer.error["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"filename": "\xff\xfe"}',
        b'{"filename": "\\ud800", "total_size": 1, "chunk_size": 5242880}',
        b'{"\\ud800": 1}',
        b'{"filename": "a", "total_size": 1e400, "chunk_size": 5242880}',
        b'{"filename": "a", "total_size": NaN, "chunk_size": 5242880}',
        b'{"filename": "a", "total_size": ' + b"9" * 5000 + b', "chunk_size": 5242880}',
        b"null",
        b'"text"',
    ],
)
def test_bodies_that_are_no_valid_json_are_400(post, body: bytes) -> None:
    answer = post(body)

    assert answer.status == 400
    assert answer.error["code"] == "VALIDATION_ERROR"


def test_nul_in_a_name_is_data_or_refused(post) -> None:
    answer = post(json.dumps({"filename": "a\0b.mrc", "total_size": 1, "chunk_size": 5 << 20}).encode())

    assert answer.status in (201, 400)


def test_ten_megabytes_of_json_are_413(post) -> None:
    answer = post(b'{"filename": "' + b"a" * 10_000_000 + b'"}')

    assert answer.status == 413
    assert answer.error["code"] == "PAYLOAD_TOO_LARGE"


def test_a_body_that_is_announced_as_too_long_is_refused_before_it_is_sent(server: Server, token: str) -> None:
    head = f"POST /v1/uploads/init HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"

    answer = answer_to(server.url, head.encode() + b"Content-Length: 1000000000000\r\n\r\n")

    assert answer.status == 413
    assert answer.error["code"] == "PAYLOAD_TOO_LARGE"


def test_a_wrong_method_is_405_and_says_which_are_right(server: Server) -> None:
    answer = answer_to(server.url, b"DELETE /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.status == 405
    assert answer.error["code"] == "VALIDATION_ERROR"
    assert "GET" in answer.headers["allow"]


def test_a_preflight_is_refused_while_no_origin_is_allowed(server: Server) -> None:
    asking = b"Host: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n"

    answer = answer_to(server.url, b"OPTIONS /v1/jobs HTTP/1.1\r\n" + asking)

    assert answer.status == 405
    assert answer.error
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 400),
        ((b"Sec-WebSocket-Version: 13",), 400),
        ((b"Sec-WebSocket-Version: 99", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        ((b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: short"), 400),
        ((b"X: " + b"a" * 9000,), 431),
    ],
)
def test_a_handshake_that_is_none_is_answered_in_the_envelope(
    server: Server, headers: tuple[bytes, ...], status: int
) -> None:
    answer = answer_to(server.url, get(b"/ws/jobs/a", b"Connection: Upgrade", b"Upgrade: websocket", *headers))

    assert answer.status == status
    assert answer.error["code"] == "VALIDATION_ERROR"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_handshake_at_an_address_without_a_websocket_is_refused(server: Server) -> None:
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    handshake = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", key)

    answer = answer_to(server.url, get(b"/ws/nothing", *handshake, b"X-Request-Id: astray"))

    assert answer.status == 403
    assert answer.error["code"] == "FORBIDDEN"
    assert answer.headers["x-request-id"] == "astray"


def test_a_connection_is_used_again(server: Server) -> None:
    with connect(server.url) as connection:
        statuses = []
        for _ in range(3):
            connection.sendall(get(b"/livez"))
            statuses.append(read_answer(connection).status)

    assert statuses == [200, 200, 200]


def test_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    with connect(server.url) as connection:
        connection.sendall(get(b"/livez", b"X-Request-Id: one") + get(b"/nothing", b"X-Request-Id: two"))
        first = read_answer(connection)
        second = read_answer(connection)

    assert (first.status, first.headers["x-request-id"]) == (200, "one")
    assert (second.status, second.headers["x-request-id"]) == (404, "two")


def test_more_connections_than_there_may_be_are_told_so(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", max_connections="2") as full,
        connect(full.url) as one,
        connect(full.url) as other,
    ):
        for connection in (one, other):
            connection.sendall(b"GET /livez HTTP/1.1\r\n")
        with connect(full.url) as third:
            answer = read_answer(third)
        one.close()
        other.sendall(b"Host: x\r\n\r\n")

        assert answer.status == 503
        assert answer.error["code"] == "SERVICE_UNAVAILABLE"
        assert answer.headers["retry-after"] == "5"
        assert read_answer(other).status == 200


def test_the_connection_that_is_idle_for_the_longest_makes_room(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "data", max_connections="2") as full,
        connect(full.url) as first,
        connect(full.url) as second,
    ):
        for connection in (first, second):
            connection.sendall(get(b"/livez"))
            read_answer(connection)
        third = answer_to(full.url, get(b"/livez"))
        second.sendall(get(b"/livez"))

        assert third.status == 200
        assert is_closed(first)
        assert read_answer(second).status == 200


def test_one_address_with_slow_connections_leaves_room_for_others_and_for_probes(tmp_path: Path) -> None:
    bounds = {"max_connections": "4", "max_connections_per_address": "3", "metrics_port": "0"}
    with serving(tmp_path / "data", **bounds) as server, contextlib.ExitStack() as held:
        assert server.process.stdout
        metrics_url = server.process.stdout.readline().split()[-1].removesuffix("/metrics")
        for _ in range(3):
            held.enter_context(connect(server.url)).sendall(b"GET /livez HTTP/1.1\r\nX: ")
        refused = [answer_to(server.url, get(b"/livez")) for _ in range(3)]
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20, source_address=("127.0.0.2", 0)) as other:
            other.sendall(get(b"/livez"))
            answer = read_answer(other)
        probes = [answer_to(metrics_url, get(path)) for path in (b"/livez", b"/readyz")]

    assert [each.status for each in refused] == [503, 503, 503]
    assert "from this address" in refused[0].error["message"]
    assert answer.status == 200
    assert [probe.status for probe in probes] == [200, 200]
    assert json.loads(probes[1].body)["status"] == "ready"


def test_the_bound_on_an_address_is_not_one_on_a_trusted_proxy(tmp_path: Path) -> None:
    bounds = {"max_connections_per_address": "1", "trusted_proxies": "127.0.0.0/8"}
    with serving(tmp_path / "data", **bounds) as server, connect(server.url) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\nX: ")

        assert answer_to(server.url, get(b"/livez")).status == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_said_to_be_json_is_415_and_names_the_header(
    server: Server, token: str, content_type: str | None
) -> None:
    said = f"Content-Type: {content_type}\r\n" if content_type else ""
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{said}Content-Length: 2\r\n\r\n"

    answer = answer_to(server.url, f"{head}{{}}".encode())

    assert answer.status == 415
    assert answer.error["details"]["field"] == "header.Content-Type"
