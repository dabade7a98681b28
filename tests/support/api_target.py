"""The server that the conformance suite talks to, and people who talk to it: HTTP and WebSocket only."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import mrcfile
import numpy as np
from websockets.sync.client import ClientConnection, connect

CHUNK = 5 << 20
"""The smallest chunk_size that a server takes, in bytes."""
SECONDS = 60
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Target:
    """A server and the tokens of the people in the tests."""

    url: str
    ada: str
    """May read and write."""
    bob: str
    """The same, but somebody else."""
    admin: str
    reader: str
    """Ada with the scope `read` alone."""
    model: str
    """A model that is in the catalogue."""
    http: httpx.Client
    """Without a token; all share its connections."""

    @property
    def websocket_url(self) -> str:
        return "ws" + self.url.removeprefix("http")


class Person:
    """Somebody with a token, or without."""

    def __init__(self, target: Target, token: str | None) -> None:
        self.target, self.token = target, token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method: str, url: str, headers: dict[str, str] | None = None, **arguments: Any) -> httpx.Response:
        return self.target.http.request(method, url, headers=self._headers | (headers or {}), **arguments)

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    delete = partialmethod(request, "DELETE")

    def begin(self, total_size: int, filename: str = "volume.mrc", **fields: Any) -> dict[str, Any]:
        """Begin an upload; return the answer."""
        body = {"filename": filename, "total_size": total_size, "chunk_size": CHUNK, **fields}
        return ok(self.post("/v1/uploads/init", json=body), 201)

    def put_parts(self, begun: dict[str, Any], data: bytes) -> list[dict[str, Any]]:
        """Upload all parts; return what `complete` wants to know of them."""
        chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        answers = [ok(self.put(url, content=chunk)) for url, chunk in zip(begun["chunk_urls"], chunks, strict=True)]
        return [{"part_number": answer["part_number"], "etag": answer["etag"]} for answer in answers]

    def complete(self, begun: dict[str, Any], parts: list[dict[str, Any]]) -> httpx.Response:
        return self.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts})

    def upload(self, data: bytes, filename: str = "volume.mrc") -> dict[str, Any]:
        """Upload a volume from beginning to end; return the file."""
        begun = self.begin(len(data), filename)
        return ok(self.complete(begun, self.put_parts(begun, data)))

    def submit(self, file_id: str, **fields: Any) -> httpx.Response:
        return self.post("/v1/jobs", json={"file_id": file_id, "model": self.target.model, **fields})

    def job(self, job_id: str) -> dict[str, Any]:
        return ok(self.get(f"/v1/jobs/{job_id}"))

    @contextmanager
    def socket(self, job_id: str) -> Iterator[ClientConnection]:
        """Connect to a job's WebSocket as the reference says."""
        url = f"{self.target.websocket_url}/ws/jobs/{job_id}"
        if self.token:
            url += f"?token={self.token}"
        with connect(url, open_timeout=SECONDS, max_size=16 << 20) as connection:
            yield connection

    def watch(self, job_id: str) -> list[dict[str, Any]]:
        """Return all messages of a job's WebSocket, until the server closes it."""
        with self.socket(job_id) as connection:
            return [json.loads(message) for message in connection]

    def watch_until(self, job_id: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first message that is wanted."""
        with self.socket(job_id) as connection:
            return next(message for message in map(json.loads, connection) if wanted(message))


def ok(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    """Return the body of a success."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Return the error of an answer that has this status and this code, in the envelope."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    (key,) = body = answer.json()
    assert key == "error"
    failure: dict[str, Any] = body["error"]
    assert set(failure) == {"code", "message", "hint", "retryable", "details"}
    assert failure["code"] == code, failure
    assert isinstance(failure["message"], str)
    assert failure["message"]
    assert isinstance(failure["hint"], str)
    assert failure["hint"]
    assert isinstance(failure["retryable"], bool)
    assert isinstance(failure["details"], dict)
    return failure


def moment(text: str) -> datetime:
    """Return a timestamp of the API: ISO 8601, UTC with a Z, to the second."""
    assert _UTC.fullmatch(text), text
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def whole(value: object) -> bool:
    """Whether a value of JSON is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: object) -> bool:
    """Whether a value of JSON is a number."""
    return whole(value) or isinstance(value, float)


def volume(
    folder: Path, shape: tuple[int, int, int], angstrom: tuple[float, float, float] = (10.0, 10.0, 15.0)
) -> bytes:
    """Return an MRC file of float32 noise, `shape` [z, y, x], voxels of `angstrom` along X, Y, Z."""
    path = folder / "made.mrc"
    noise = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    with mrcfile.new(path, noise, overwrite=True) as file:
        file.voxel_size = angstrom
    return path.read_bytes()


def with_nan(data: bytes) -> bytes:
    """Return a volume of `volume` whose last voxel is not a number: it can be uploaded, and no job can use it."""
    return data[:-4] + np.float32(np.nan).tobytes()
