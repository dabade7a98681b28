"""A server in this process, and a clock that the test sets."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from cryomamba_apiserver.app import create_app
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.settings import Settings

EMD_3197 = Path(__file__).parents[2] / "data" / "EMD-3197.map"


NO_GPUS = GpuInventory(None, ())
# The clock stands still, and with it the windows of the rate limits.
PLENTY = {"requests_per_minute": 1_000_000, "jobs_per_hour": 1_000_000}


class Clock:
    def __init__(self) -> None:
        self.time = datetime.now(UTC).replace(microsecond=0)

    def wire(self, later: timedelta = timedelta()) -> str:
        """Return the time as the API writes it."""
        return (self.time + later).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __call__(self) -> datetime:
        return self.time

    def forward(self, by: timedelta) -> None:
        self.time += by


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """What the stub runner does; see stub_runner.py."""
    path = tmp_path / "script"
    path.write_text("progress=50 result")
    return path


@pytest.fixture
def start(tmp_path: Path, clock: Clock, script: Path):
    """Starts a server on the test's data directory; to be used in a with statement."""

    def begin(gpus: GpuInventory = NO_GPUS, **settings: Any) -> TestClient:
        app = create_app(
            Settings(data_dir=tmp_path / "data", **{**PLENTY, **settings}),
            now=clock,
            gpus_of_this_machine=lambda: gpus,
            runner=(sys.executable, str(Path(__file__).with_name("stub_runner.py")), str(script)),
        )
        return TestClient(app, raise_server_exceptions=False)

    return begin


@pytest.fixture
def server(start) -> Iterator[TestClient]:
    """A client without a token."""
    with start() as client:
        yield client


@pytest.fixture
def context(server: TestClient) -> Context:
    return server.app.state.context  # type: ignore[attr-defined]


@pytest.fixture
def token(context: Context):
    """Makes tokens."""

    def issue(subject: str = "ada", *scopes: str, ttl: timedelta = timedelta(days=30)) -> str:
        return context.authority.issue(subject, frozenset(Scope(scope) for scope in scopes or ("read", "write")), ttl)

    return issue


class Caller:
    """Somebody with a token; all share the one client, since the server lives in its event loop."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client, self.token = client, token

    def _send(self, method: str, url: str, **kwargs: Any) -> httpx.Response:
        return self.client.request(method, url, headers={"Authorization": f"Bearer {self.token}"}, **kwargs)

    get = partialmethod(_send, "GET")
    post = partialmethod(_send, "POST")
    put = partialmethod(_send, "PUT")
    delete = partialmethod(_send, "DELETE")


@pytest.fixture
def ada(server: TestClient, token) -> Caller:
    return Caller(server, token("ada"))


@pytest.fixture
def bob(server: TestClient, token) -> Caller:
    return Caller(server, token("bob"))


@pytest.fixture
def emd_3197() -> bytes:
    return EMD_3197.read_bytes()


@pytest.fixture
def upload(ada: Caller):
    """Uploads bytes as one part and completes; returns the answer."""

    def send(data: bytes, filename: str = "volume.mrc", client: Caller = ada):
        begun = client.post(
            "/v1/uploads/init", json={"filename": filename, "total_size": len(data), "chunk_size": 5 * 1024**2}
        ).json()
        part = client.put(begun["chunk_urls"][0], content=data).json()
        parts = [{"part_number": 0, "etag": part["etag"]}]
        return client.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts})

    return send
