"""A server in memory for the SDK's tests: enough of the API to take a volume and give results back."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mrcfile
import numpy as np
import pytest

from cryomamba import Client

WHEN = "2025-10-17T10:40:00Z"
TOKEN = "test-token"


class MemoryServer:
    """What a test looks at afterwards, and what it may make go wrong beforehand."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.troubles: list[tuple[str, httpx.Response | Exception]] = []
        self.parts: dict[int, bytes] = {}
        self.job: dict[str, object] = {"job_id": "job_abc", "status": "queued", "created_at": WHEN}
        self.files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._init: dict[str, int] = {}

    def fail(self, path: str, *troubles: httpx.Response | Exception) -> None:
        """The next requests whose path starts like this go wrong."""
        self.troubles += [(path, trouble) for trouble in troubles]

    def paths(self, method: str) -> list[str]:
        return [request.url.path for request in self.requests if request.method == method]

    def body(self, path: str) -> dict[str, object]:
        found = next(request for request in self.requests if request.url.path == path)
        return dict(json.loads(found.content))

    def artifacts(self) -> list[dict[str, object]]:
        return [
            {"name": name, "size": len(data), "url": f"/v1/files/job_abc/{name}?token=signed&expires=9"}
            for name, data in self.files.items()
        ]

    def handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            for position, (path, trouble) in enumerate(self.troubles):
                if request.url.path.startswith(path):
                    del self.troubles[position]
                    if isinstance(trouble, Exception):
                        raise trouble
                    return trouble
            return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/server/info":
            return httpx.Response(200, json={"version": "1.0.0", "available_models": ["demo"], "news": "ignored"})
        if path == "/v1/uploads/init":
            self._init = json.loads(request.content)
            count = -(-self._init["total_size"] // self._init["chunk_size"])
            urls = [f"/v1/uploads/upl_1/part/{number}" for number in range(count)]
            return httpx.Response(201, json={"upload_id": "upl_1", "chunk_urls": urls, "expires_at": WHEN})
        if "/part/" in path:
            number = int(path.rpartition("/")[2])
            self.parts[number] = request.content
            return httpx.Response(200, json={"upload_id": "upl_1", "part_number": number, "etag": f"etag{number}"})
        if path.endswith("/complete"):
            metadata = {"shape": [4, 5, 6], "voxel_size": None, "dtype": "float32"}
            data = b"".join(self.parts[number] for number in sorted(self.parts))
            answer = {"file_id": "file_1", "filename": "v.mrc", "size": len(data), "checksum": "sha256:0"}
            return httpx.Response(200, json=answer | {"metadata": metadata, "created_at": WHEN})
        if path.startswith("/v1/jobs"):
            if request.method == "DELETE":
                self.job["status"] = "cancelled"
            return httpx.Response(201 if request.method == "POST" else 200, json=self.job)
        return httpx.Response(200, content=self.files[path.rpartition("/")[2]])


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def pauses() -> list[float]:
    """The seconds that the client would have waited."""
    return []


@pytest.fixture
def make_client(server: MemoryServer, pauses: list[float]) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(url: str = "http://127.0.0.1:8000") -> Client:
        client = Client(
            url,
            TOKEN,
            transport=httpx.MockTransport(server.handle),
            wait=lambda _event, seconds: pauses.append(seconds),
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., Client]) -> Client:
    return make_client()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A small MRC file, 6 x 5 x 4 voxels along Z, Y, X, 1.348 nm each."""
    path = tmp_path / "tomogram.mrc"
    with mrcfile.new(path, np.arange(120, dtype=np.float32).reshape(6, 5, 4)) as file:
        file.voxel_size = 13.48
    return path


@pytest.fixture
def results(tmp_path: Path) -> dict[str, bytes]:
    """The artifacts of a job on `volume`: label 1 in one corner."""
    labels = np.zeros((6, 5, 4), np.int8)
    labels[:, :2, :2] = 1
    path = tmp_path / "server-side.mrc"
    with mrcfile.new(path, labels) as file:
        file.voxel_size = 13.48
    statistics = {
        "label_counts": {"1": 24},
        "physical_volume_nm3": {"1": 58.8},
        "surface_area_nm2": {"1": 101.25},
        "labels": {"1": {"name": "membrane", "colour": "#56b4e9"}},
        "voxel_size_nm": [1.348, 1.348, 1.348],
        "voxel_size_source": "header",
        "added_by_a_newer_server": True,
    }
    return {
        "segmentation.mrc": path.read_bytes(),
        "statistics.json": json.dumps(statistics).encode(),
        "preview.png": b"final picture",
    }


@pytest.fixture
def messages() -> dict[str, dict[str, object]]:
    """One WebSocket message of each kind, by its type."""
    head = {"job_id": "job_abc", "timestamp": WHEN}
    progress = {"current_step": 3, "total_steps": 5, "percentage": 60, "message": "Tile 45/75", "eta_seconds": 450}
    preview = {"scale": 4, "shape": [1, 1, 1], "slice_idx": 0, "data": base64.b64encode(b"picture").decode()}
    error = {"code": "INFERENCE_ERROR", "message": "NaN in the volume", "hint": "Mask it.", "retryable": False}
    return {
        "progress": {"type": "progress", **head, "progress": progress},
        "preview": {"type": "preview", **head, "preview": preview},
        "completed": {"type": "completed", **head, "artifacts": [], "statistics": {"label_counts": {"1": 7}}},
        "error": {"type": "error", **head, "error": error},
    }
