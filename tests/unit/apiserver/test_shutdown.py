"""How the real server process ends."""

import contextlib
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_socket

from support.commands import Server, serving
from support.raw_http import answer_to, connect, read_answer
from support.waiting import until

PART = 5 << 20


def begin_part(server: Server, token: str) -> bytes:
    """Begin an upload; return the head of the request that sends its only part."""
    begun = httpx.post(
        f"{server.url}/v1/uploads/init",
        json={"filename": "a.mrc", "total_size": PART, "chunk_size": PART},
        headers={"Authorization": f"Bearer {token}"},
    ).json()
    head = f"PUT {begun['chunk_urls'][0]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Length: {PART}\r\nExpect: 100-continue\r\n\r\n".encode()


def send_head(connection: socket.socket, head: bytes) -> None:
    """Begin a request, and wait until the server reads its body."""
    connection.sendall(head)
    assert read_answer(connection).status == 100


def stopping(server: Server) -> Callable[[], bool]:
    return lambda: '"event": "stopping"' in server.errors.read_text()


def refuses(server: Server) -> bool:
    try:
        answer_to(server.url, b"GET /livez HTTP/1.1\r\n\r\n")
    except (ConnectionError, AssertionError):
        return True
    return False


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_exit_code_0(tmp_path: Path, ending: signal.Signals) -> None:
    with serving(tmp_path / "data", ("env", "--default-signal=INT")) as server:
        server.process.send_signal(ending)

        assert server.process.wait(20) == 0
    assert "Traceback" not in server.errors.read_text()


def test_an_upload_in_flight_is_taken_to_its_end_and_nothing_new_is_taken(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        head = begin_part(server, server.token())
        with connect(server.url) as uploading:
            send_head(uploading, head)
            uploading.sendall(bytes(PART - 1000))
            server.process.send_signal(signal.SIGTERM)
            until(stopping(server), 20)
            until(lambda: refuses(server), 20)
            uploading.sendall(bytes(1000))
            answer = read_answer(uploading)

            assert answer.status == 200
            assert json.loads(answer.body)["received_bytes"] == PART
            assert server.process.wait(20) == 0


def test_a_request_that_takes_longer_than_the_server_waits_is_told_to_come_again(tmp_path: Path) -> None:
    with serving(tmp_path / "data", shutdown_seconds="1") as server:
        head = begin_part(server, server.token())
        with connect(server.url) as uploading:
            send_head(uploading, head)
            server.process.send_signal(signal.SIGTERM)
            answer = read_answer(uploading)

            assert answer.status == 503
            assert answer.error["code"] == "SERVICE_UNAVAILABLE"
            assert answer.headers["retry-after"] == "5"
            assert server.process.wait(20) == 0
    assert "Traceback" not in server.errors.read_text()


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "data", shutdown_seconds="600") as server:
        head = begin_part(server, server.token())
        with connect(server.url) as uploading:
            send_head(uploading, head)
            server.process.send_signal(signal.SIGTERM)
            until(stopping(server), 20)
            server.process.send_signal(signal.SIGTERM)

            assert server.process.wait(20) == -signal.SIGTERM


def test_idle_connections_do_not_keep_the_server(tmp_path: Path) -> None:
    with serving(tmp_path / "data", shutdown_seconds="600") as server, connect(server.url) as idle:
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        read_answer(idle)
        server.process.send_signal(signal.SIGTERM)

        assert server.process.wait(20) == 0


def test_websockets_are_told_that_the_server_goes_and_come_back_to_a_server_that_still_has_their_job(
    tmp_path: Path, emd_3197: bytes
) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir) as server:
        token = server.token()
        job_id = begin_job(server, token, emd_3197)
        with connect_socket(f"{server.url.replace('http', 'ws')}/ws/jobs/{job_id}?token={token}") as watching:
            watching.recv(timeout=20)
            server.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionClosed):
                while True:  # what was on its way
                    watching.recv(timeout=20)

            assert watching.close_code == 1012
            assert server.process.wait(20) == 0
    with serving(data_dir) as again:
        job = httpx.get(f"{again.url}/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {token}"})

        assert job.status_code == 200
        assert job.json()["status"] in {"queued", "running"}


def begin_job(server: Server, token: str, volume: bytes) -> str:
    """Upload a volume and have the bundled model's job begun; loading the model takes it a while."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}) as client:
        begun = client.post(
            "/v1/uploads/init", json={"filename": "a.mrc", "total_size": len(volume), "chunk_size": PART}
        ).json()
        etag = client.put(begun["chunk_urls"][0], content=volume).json()["etag"]
        parts = {"parts": [{"part_number": 0, "etag": etag}]}
        file = client.post(f"/v1/uploads/{begun['upload_id']}/complete", json=parts).json()
        job = client.post("/v1/jobs", json={"file_id": file["file_id"], "model": "demo"})
        return str(job.json()["job_id"])
