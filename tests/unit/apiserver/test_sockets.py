"""The WebSocket, on a real server: limits, readers that do not read, dead peers."""

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import psutil
import pytest
import uvicorn
import websockets
from starlette.websockets import WebSocketDisconnect

from cryomamba_apiserver.adapters.websocket_protocol import FrameWritingProtocol
from cryomamba_apiserver.ports.object_store import StoreUnavailableError
from cryomamba_crds import keys
from cryomamba_crds.report import Preview
from support.server_data import job_request
from support.waiting import until

DEADLINE = 60


async def eventually(condition) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(app, **config) -> AsyncIterator[int]:
    """Serve an app in this loop by the protocol of `cryomamba serve`; yields the port."""
    settings = {
        "ws": FrameWritingProtocol,
        "ws_per_message_deflate": False,
        "log_level": "critical",
        "timeout_graceful_shutdown": 5,
        **config,
    }
    server = uvicorn.Server(uvicorn.Config(app, port=0, **settings))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done())
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await app.state.context.live.close()
        server.should_exit = True  # and not by force: the jobs are to be stopped too
        await serving


@pytest.fixture
def app(start, script, tmp_path):
    """An app whose jobs wait until their test is over."""
    script.write_text(f"wait={tmp_path / 'never'}")
    return start().app


class Job:
    """A job of ada's whose previews the test makes."""

    def __init__(self, app) -> None:
        self.context = app.state.context
        self.count = 0

    async def create(self) -> "Job":
        self.job_id = (await self.context.job_store.create(job_request())).job_id
        self.record = await self.context.job_store.get(self.job_id)
        return self

    async def show(self, png: bytes) -> None:
        self.count += 1
        key = keys.attempt_prefix(self.record.uid, 1) + "preview-live.png"
        await self.context.objects.write(key, png)
        preview = Preview(sequence=self.count, key=key, scale=4, shape=(5, 5, 5), slice_idx=2)
        await self.context.job_store._change(self.job_id, preview=preview)

    def address(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/ws/jobs/{self.job_id}?token={self.token()}"

    def token(self) -> str:
        return self.context.authority.issue("ada", frozenset({"read"}), timedelta(hours=1))


def number_of(message: str) -> int:
    return int(base64.b64decode(json.loads(message)["preview"]["data"])[:8])


async def preview_of(connection) -> int:
    while True:
        message = await asyncio.wait_for(connection.recv(), DEADLINE)
        if json.loads(message)["type"] == "preview":
            return number_of(message)


def picture(number: int, size: int = 8) -> bytes:
    return b"%08d" % number + os.urandom(size - 8)


def test_a_client_that_comes_again_is_told_the_newest_at_once_and_then_what_changes(app):
    async def story() -> list[int]:
        async with serving(app) as port:
            job = await Job(app).create()
            seen = []
            for number in (1, 2):
                await job.show(picture(number))
                async with websockets.connect(job.address(port), compression=None) as connection:
                    seen.append(await preview_of(connection))
                    await job.show(picture(number + 10))
                    seen.append(await preview_of(connection))
            return seen

    assert asyncio.run(story()) == [1, 11, 2, 12]


def test_a_reader_that_does_not_read_costs_the_server_no_more_than_what_is_newest(app):
    """A hundred previews of 1 MB, and a client that reads none: kept are what is being sent and the newest."""

    async def story() -> tuple[int, list[int]]:
        async with serving(app) as port:
            job = await Job(app).create()
            async with (
                websockets.connect(
                    job.address(port), compression=None, max_queue=1, max_size=None, ping_interval=None
                ) as lazy,
                websockets.connect(job.address(port), compression=None, max_size=None) as eager,
            ):
                for number in range(1, 6):
                    await job.show(picture(number, 1_000_000))
                    await preview_of(eager)
                before = psutil.Process().memory_info().rss
                for number in range(6, 106):
                    await job.show(picture(number, 1_000_000))
                    await preview_of(eager)
                grown = psutil.Process().memory_info().rss - before
                read = [await preview_of(lazy)]
                while read[-1] != 105:
                    read.append(await preview_of(lazy))
            return grown, read

    grown, read = asyncio.run(story())

    assert grown < 40e6  # bytes; all of the previews, as base64, are 133 MB
    assert read == sorted(read)
    assert len(read) < 20


def test_a_peer_that_is_dead_is_let_go_though_it_has_not_read_all(app):
    async def story() -> None:
        async with serving(app, ws_ping_interval=0.2, ws_ping_timeout=0.2) as port:
            job = await Job(app).create()
            await job.show(picture(1, 8_000_000))  # more than the kernel takes
            with shaken_hands(port, job):
                await eventually(lambda: job.context.live._feeds)
                await eventually(lambda: not job.context.live._feeds)

    asyncio.run(story())


@contextlib.contextmanager
def shaken_hands(port: int, job: Job) -> Iterator[socket.socket]:
    """A connection that has become a WebSocket and says no more."""
    path = job.address(port).partition(str(port))[2]
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        yield client


@pytest.fixture
def job_id(server, context, script, tmp_path) -> str:
    script.write_text(f"progress=1 wait={tmp_path / 'never'}")

    async def create() -> str:
        return (await context.job_store.create(job_request())).job_id

    job_id = server.portal.call(create)
    until(lambda: server.portal.call(context.job_store.get, job_id).progress)
    return job_id


def test_one_socket_more_than_allowed_is_closed_with_its_code_until_one_ends(server, job_id, token):
    address = f"/ws/jobs/{job_id}?token={token()}"
    with contextlib.ExitStack() as open_sockets:
        for _ in range(5):
            one = open_sockets.enter_context(server.websocket_connect(address))
            one.receive_json()
        with server.websocket_connect(address) as socket, pytest.raises(WebSocketDisconnect) as refused:
            socket.receive_json()
        with server.websocket_connect(f"/ws/jobs/{job_id}?token={token('root', 'admin')}") as another:
            assert another.receive_json()["type"] == "progress"
    with server.websocket_connect(address) as socket:
        assert socket.receive_json()["type"] == "progress"

    assert refused.value.code == 4429
    assert "5" in refused.value.reason


def test_a_socket_is_closed_once_its_token_has_expired(server, job_id, token, clock, monkeypatch):
    monkeypatch.setattr("cryomamba_apiserver.jobs.socket._TOKEN_CHECK_SECONDS", 0.05)
    with server.websocket_connect(f"/ws/jobs/{job_id}?token={token(ttl=timedelta(hours=1))}") as socket:
        socket.receive_json()
        clock.forward(timedelta(hours=2))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()

    assert closed.value.code == 4401
    assert "expired" in closed.value.reason


def test_a_token_among_subprotocols_is_not_sent_back_where_there_is_another(server, job_id, token):
    bearer = f"bearer.{token()}"

    with server.websocket_connect(f"/ws/jobs/{job_id}", subprotocols=[bearer, "cryomamba"]) as socket:
        assert socket.receive_json()["type"] == "progress"
        assert socket.accepted_subprotocol == "cryomamba"
    with server.websocket_connect(f"/ws/jobs/{job_id}", subprotocols=[bearer]) as socket:
        assert socket.accepted_subprotocol == bearer  # a browser gives up otherwise


@pytest.mark.parametrize("text", ["x", "[]", '{"type": "pong"}', "[" * 1000, '{"type":"ping"' + " " * 2000 + "}"])
def test_what_is_no_ping_is_passed_over(server, job_id, token, text):
    with server.websocket_connect(f"/ws/jobs/{job_id}?token={token()}") as socket:
        socket.receive_json()
        socket.send_text(text)
        socket.send_text('{"type": "ping"}')

        assert socket.receive_json()["type"] == "pong"


async def away(*_: object) -> bytes:
    raise StoreUnavailableError("away")


def test_a_preview_that_the_store_does_not_give_is_left_out_and_the_rest_is_told(app, monkeypatch):
    async def story() -> list[str]:
        async with serving(app) as port:
            job = await Job(app).create()
            monkeypatch.setattr(job.context.objects, "read", away)
            async with websockets.connect(job.address(port)) as connection:
                await job.show(picture(1))
                await job.context.job_store.cancel(job.job_id)
                messages = [json.loads(message)["type"] async for message in connection]
            return [*messages, str(connection.close_code)]

    assert asyncio.run(story()) == ["error", "1000"]


def test_a_socket_that_needs_a_store_that_is_away_is_told_to_come_again(server, job_id, token, context, monkeypatch):
    monkeypatch.setattr(context.jobs, "get", away)

    with (
        server.websocket_connect(f"/ws/jobs/{job_id}?token={token()}") as socket,
        pytest.raises(WebSocketDisconnect) as refused,
    ):
        socket.receive_json()

    assert refused.value.code == 1013
    assert "store" in refused.value.reason
