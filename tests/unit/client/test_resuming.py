"""An upload that breaks off goes on with what is missing."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import cryomamba.client
from cryomamba import ApiError, Client, ConnectionFailedError, CryoMambaError
from cryomamba.commands import build_app
from cryomamba.retry import RetryPolicy

MEBIBYTE = 2**20
WHEN = "2025-10-17T10:40:00Z"
PARTS = 5


class PartsServer:
    """Keeps parts as the API does; `trouble(method, path)` may return an answer or an exception instead."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.trouble: Callable[[str, str], httpx.Response | Exception | None] = lambda _method, _path: None
        self.puts: list[int] = []
        self.status, self.size, self.chunk = "active", 0, 8 * MEBIBYTE
        self.lock = threading.Lock()

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self.lock:
            path = request.url.path
            trouble = self.trouble(request.method, path)
            if isinstance(trouble, Exception):
                raise trouble
            return trouble or self.answer(request, path)

    def answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if path == "/v1/server/info":
            return httpx.Response(200, json={"version": "1.0.0", "available_models": ["demo"]})
        if path.endswith("/init"):
            self.size = json.loads(request.content)["total_size"]
            urls = [f"/v1/uploads/upl_1/part/{number}" for number in range(-(-self.size // self.chunk))]
            return httpx.Response(201, json={"upload_id": "upl_1", "chunk_urls": urls, "expires_at": WHEN})
        if "/part/" in path:
            number = int(path.rpartition("/")[2])
            self.puts.append(number)
            self.parts[number] = request.content
            return httpx.Response(200, json={"part_number": number, "etag": self.etag(number)})
        if path.endswith("/complete"):
            named = {part["part_number"]: part["etag"] for part in json.loads(request.content)["parts"]}
            assert named == {number: self.etag(number) for number in self.parts}
            metadata = {"shape": [1, 1, 1], "dtype": "int8"}
            answer = {"file_id": "file_1", "filename": "t", "size": self.size, "checksum": "c", "metadata": metadata}
            return httpx.Response(200, json=answer | {"created_at": WHEN})
        parts = [{"part_number": n, "size": len(data), "etag": self.etag(n)} for n, data in sorted(self.parts.items())]
        return httpx.Response(
            200,
            json={
                "upload_id": "upl_1",
                "total_size": self.size,
                "chunk_size": self.chunk,
                "status": self.status,
                "parts": parts,
                "file_id": None,
                "stage": "receiving",
            },
        )

    def etag(self, number: int) -> str:
        return hashlib.md5(self.parts[number]).hexdigest()


@pytest.fixture
def server() -> PartsServer:
    return PartsServer()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def client(server: PartsServer, pauses: list[float]) -> Iterator[Client]:
    with Client(
        "http://127.0.0.1:1",
        "t",
        transport=httpx.MockTransport(server.handle),
        retry=RetryPolicy(attempts=2),
        wait=lambda _event, seconds: pauses.append(seconds),
    ) as made:
        made.server_info()  # a server that has answered before may be restarting
        yield made


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "tomogram.mrc"
    path.write_bytes(b"".join(bytes([number]) * (8 * MEBIBYTE) for number in range(PARTS - 1)) + b"end")
    return path


def failing(times: int, trouble: httpx.Response | Exception, method: str, path: str) -> Callable[[str, str], Any]:
    """The first requests to a path fail like this."""
    left = [trouble] * times

    def choose(asked: str, where: str) -> httpx.Response | Exception | None:
        return left.pop() if left and asked == method and path in where else None

    return choose


BUSY = httpx.Response(
    503,
    json={"error": {"code": "SERVICE_UNAVAILABLE", "message": "No.", "hint": "", "retryable": True, "details": {}}},
    headers={"Retry-After": "7"},
)


@pytest.mark.parametrize(
    "trouble",
    [httpx.ReadError("reset"), httpx.ConnectError("refused"), BUSY, httpx.Response(502, html="<h1>Bad gateway</h1>")],
    ids=["connection lost", "server away", "server busy", "proxy alone"],
)
def test_after_a_part_that_failed_for_long_only_what_is_missing_is_sent(
    client: Client, server: PartsServer, volume: Path, trouble: httpx.Response | Exception
) -> None:
    server.trouble = failing(4, trouble, "PUT", "/part/3")

    client.upload(volume)

    assert b"".join(server.parts[number] for number in range(PARTS)) == volume.read_bytes()
    assert sorted(server.puts) == list(range(PARTS))


def test_the_server_says_how_long_to_wait(
    client: Client, server: PartsServer, volume: Path, pauses: list[float]
) -> None:
    server.trouble = failing(3, BUSY, "PUT", "/part/0")

    client.upload(volume)

    assert pauses == [7, 7, 7]


def test_what_is_told_names_the_reason_and_how_much_is_there(client: Client, server: PartsServer, volume: Path) -> None:
    news: list[str] = []
    sessions: list[str] = []
    server.trouble = failing(2, httpx.ReadError("reset"), "POST", "/complete")

    client.upload(volume, on_news=news.append, on_session=sessions.append)

    assert sessions == ["upl_1"]
    assert "broke off" in news[0]
    assert "reset" in news[0]
    assert news[1] == "Going on with upload upl_1: 5 of 5 parts are there."


def test_progress_counts_what_is_held_already(client: Client, server: PartsServer, volume: Path) -> None:
    seen: list[int] = []
    server.trouble = failing(2, httpx.ReadError("reset"), "PUT", "/part/4")

    client.upload(volume, on_progress=lambda sent, _total: seen.append(sent))

    assert seen[-1] == max(seen) == volume.stat().st_size


def test_an_answer_that_was_lost_costs_no_second_sending(client: Client, server: PartsServer, volume: Path) -> None:
    """The parts arrive, their answers don't."""
    lost = {"left": 4}
    answer = server.answer

    def losing(request: httpx.Request, path: str) -> httpx.Response:
        response = answer(request, path)
        if path.endswith("/part/2") and lost["left"]:
            lost["left"] -= 1
            raise httpx.ReadError("reset")
        return response

    server.answer = losing  # type: ignore[method-assign]

    client.upload(volume)

    assert server.puts.count(2) == 2  # as often as the part itself is tried; then the server says that it is there


def test_an_upload_that_never_gets_on_is_given_up(client: Client, server: PartsServer, volume: Path) -> None:
    server.trouble = lambda method, _path: httpx.ReadError("reset") if method == "PUT" else None

    with pytest.raises(ConnectionFailedError):
        client.upload(volume)

    assert len(server.puts) == 0


def test_what_is_refused_for_good_is_not_gone_on_with(client: Client, server: PartsServer, volume: Path) -> None:
    gone = {"code": "NOT_FOUND", "message": "Expired.", "hint": "Again.", "retryable": False, "details": {}}
    server.trouble = failing(9, httpx.Response(410, json={"error": gone}), "PUT", "/part/")
    news: list[str] = []

    with pytest.raises(ApiError, match="Expired"):
        client.upload(volume, on_news=news.append)

    assert news == []


def interrupted(client: Client, server: PartsServer, volume: Path) -> None:
    """An upload of which two parts got through."""
    server.size = volume.stat().st_size
    data = volume.read_bytes()
    server.parts = {number: data[number * server.chunk : (number + 1) * server.chunk] for number in (0, 3)}


def test_an_upload_of_an_earlier_run_is_gone_on_with(client: Client, server: PartsServer, volume: Path) -> None:
    interrupted(client, server, volume)

    client.upload(volume, resume="upl_1")

    assert sorted(server.puts) == [1, 2, 4]
    assert b"".join(server.parts[number] for number in range(PARTS)) == volume.read_bytes()


def test_a_part_that_differs_from_the_file_is_sent_again_for_the_server_to_judge(
    client: Client, server: PartsServer, volume: Path
) -> None:
    interrupted(client, server, volume)
    server.parts[3] = bytes(8 * MEBIBYTE)
    conflict = {"code": "CONFLICT", "message": "Other bytes.", "hint": "New.", "retryable": False, "details": {}}
    server.trouble = failing(1, httpx.Response(409, json={"error": conflict}), "PUT", "/part/3")

    with pytest.raises(ApiError, match="Other bytes"):
        client.upload(volume, resume="upl_1")


def test_the_upload_of_another_file_is_not_gone_on_with(
    client: Client, server: PartsServer, volume: Path, tmp_path: Path
) -> None:
    interrupted(client, server, volume)
    other = tmp_path / "other.mrc"
    other.write_bytes(b"another")

    with pytest.raises(CryoMambaError, match="is one of 33,554,435 bytes"):
        client.upload(other, resume="upl_1")

    assert server.puts == []


def test_an_expired_upload_is_not_gone_on_with(client: Client, server: PartsServer, volume: Path) -> None:
    interrupted(client, server, volume)
    server.status = "expired"

    with pytest.raises(CryoMambaError, match="has expired"):
        client.upload(volume, resume="upl_1")


def test_the_command_line_says_how_to_go_on_with_an_upload_that_broke_off(
    monkeypatch: pytest.MonkeyPatch, client: Client, server: PartsServer, tmp_path: Path
) -> None:
    example = Path(__file__).parents[2] / "data" / "EMD-3197.map"
    full = {"code": "INSUFFICIENT_STORAGE", "message": "Full.", "hint": "Ask.", "retryable": False, "details": {}}
    server.trouble = failing(1, httpx.Response(507, json={"error": full}), "PUT", "/part/")
    monkeypatch.setattr(cryomamba.client, "Client", lambda *_: client)

    result = CliRunner().invoke(
        build_app([]), ["segment", str(example), "-m", "demo", "-o", str(tmp_path / "out"), "--token", "t"]
    )

    assert result.exit_code == 1
    assert "--resume upl_1" in result.stderr
