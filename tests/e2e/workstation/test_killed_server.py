"""A server killed with -9 at every stage of an upload and of a job: what it acknowledged is there afterwards."""

import hashlib
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from cryomamba import Client
from support.commands import Server, serving
from support.volume_files import mrc, nifti
from support.waiting import until

pytestmark = pytest.mark.timeout(400)

EMD_3197 = Path(__file__).parents[2] / "data" / "EMD-3197.map"
MIB = 1024**2


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    """For a request that is under way when the server is killed."""
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """12 MiB and 1,024 bytes: three parts of 5 MiB at most."""
    path = tmp_path / "volume.mrc"
    path.write_bytes(mrc(nx=1024, ny=1024, nz=12, mode=0, data=bytes(range(256)) * (12 * MIB // 256)))
    return path


@pytest.fixture
def slow_volume(tmp_path: Path) -> Path:
    """1 MiB that inflates to 1 GiB: checking it takes seconds."""
    path = tmp_path / "volume.nii.gz"
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(deflate.compress(nifti(dim=(3, 1024, 1024, 256, 1, 1, 1, 1), data=b"")))
        for _ in range(1024):
            file.write(deflate.compress(bytes(MIB)))
        file.write(deflate.flush())
    return path


class Caller:
    """Talks to one life of the server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.token = server.token()
        self.headers = {"Authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=server.url, headers=self.headers, timeout=120, trust_env=False)

    def begin(self, path: Path) -> dict[str, object]:
        request = {"filename": path.name, "total_size": path.stat().st_size, "chunk_size": 5 * MIB}
        return self.http.post("/v1/uploads/init", json=request).raise_for_status().json()

    def put(self, begun: dict[str, object], path: Path, number: int) -> dict[str, object]:
        data = path.read_bytes()[number * 5 * MIB : (number + 1) * 5 * MIB]
        return self.http.put(begun["chunk_urls"][number], content=data).raise_for_status().json()

    def put_all(self, begun: dict[str, object], path: Path) -> list[dict[str, object]]:
        return [self.put(begun, path, number) for number in range(len(begun["chunk_urls"]))]

    def complete(self, begun: dict[str, object], parts: list[dict[str, object]]) -> dict[str, object]:
        named = [{"part_number": part["part_number"], "etag": part["etag"]} for part in parts]
        answer = self.http.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": named})
        return answer.raise_for_status().json()

    def session(self, begun: dict[str, object]) -> dict[str, object]:
        return self.http.get(f"/v1/uploads/{begun['upload_id']}").raise_for_status().json()

    def kill(self) -> None:
        self.server.process.kill()
        self.server.process.wait()

    def sdk(self) -> Client:
        return Client(self.server.url, self.token)


@pytest.fixture
def life(data_dir: Path) -> Iterator[Callable[[], Caller]]:
    """Starts the server, again and again on one data directory; ends what still lives."""
    lives = []

    def begin() -> Caller:
        life = serving(data_dir)
        caller = Caller(life.__enter__())
        lives.append((life, caller))
        return caller

    yield begin
    for life, caller in lives:
        caller.http.close()
        life.__exit__(None, None, None)


def finish(caller: Caller, begun: dict[str, object], path: Path) -> None:
    """What a client does: goes on with its upload, and has a file whose bytes are those that it sent."""
    with caller.sdk() as client:
        file = client.upload(path, resume=str(begun["upload_id"]))
    assert file.checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_killed_after_init(life, volume):
    first = life()
    begun = first.begin(volume)
    first.kill()

    second = life()

    assert second.session(begun)["status"] == "active"
    finish(second, begun, volume)


def test_killed_in_the_middle_of_a_part(life, volume, data_dir, background):
    first = life()
    begun = first.begin(volume)
    acknowledged = first.put(begun, volume, 1)
    killed = threading.Event()

    def half() -> Iterator[bytes]:
        yield volume.read_bytes()[: 3 * MIB]
        killed.wait(120)
        yield volume.read_bytes()[3 * MIB : 5 * MIB]

    headers = {"Content-Length": str(5 * MIB)}
    sending = background.submit(first.http.put, begun["chunk_urls"][0], content=half(), headers=headers)
    [stored] = (data_dir / "store" / "uploads").glob("*/volume")
    # Two blocks of a MiB are on their way to the disk; the part is far from complete.
    until(lambda: stored.read_bytes()[MIB : 2 * MIB] == volume.read_bytes()[MIB : 2 * MIB])
    first.kill()
    killed.set()
    assert isinstance(sending.exception(60), httpx.TransportError)

    second = life()

    assert [(part["part_number"], part["etag"]) for part in second.session(begun)["parts"]] == [
        (1, acknowledged["etag"])
    ]
    finish(second, begun, volume)


def test_killed_after_a_part(life, volume):
    first = life()
    begun = first.begin(volume)
    acknowledged = [first.put(begun, volume, number) for number in (2, 0)]
    first.kill()

    second = life()

    held = {part["part_number"]: part["etag"] for part in second.session(begun)["parts"]}
    assert held == {part["part_number"]: part["etag"] for part in acknowledged}
    finish(second, begun, volume)


def test_killed_in_the_middle_of_complete(life, slow_volume, data_dir, background):
    first = life()
    begun = first.begin(slow_volume)
    parts = first.put_all(begun, slow_volume)
    record = data_dir / "store" / "objects" / "uploads" / str(begun["upload_id"]) / "session.json"

    completing = background.submit(first.complete, begun, parts)
    until(lambda: json.loads(record.read_bytes())["stage"] == "checking")
    first.kill()
    assert isinstance(completing.exception(60), httpx.TransportError)

    second = life()

    reached = second.session(begun)
    assert (reached["status"], reached["stage"], reached["file_id"]) == ("active", "checking", None)
    assert [part["etag"] for part in reached["parts"]] == [part["etag"] for part in parts]
    finish(second, begun, slow_volume)
    assert second.session(begun)["status"] == "completed"


def test_killed_after_complete(life, volume):
    first = life()
    begun = first.begin(volume)
    parts = first.put_all(begun, volume)
    file = first.complete(begun, parts)
    first.kill()

    second = life()

    assert second.session(begun)["file_id"] == file["file_id"]
    assert second.complete(begun, parts) == file
    finish(second, begun, volume)


def test_killed_after_an_upload_was_given_up(life, volume, data_dir):
    first = life()
    begun = first.begin(volume)
    first.put(begun, volume, 0)
    assert first.http.delete(f"/v1/uploads/{begun['upload_id']}").status_code == 204
    first.kill()

    second = life()

    assert second.http.get(f"/v1/uploads/{begun['upload_id']}").status_code == 410
    assert list((data_dir / "store").rglob("volume")) == []


def job_request(caller: Caller) -> dict[str, str]:
    with caller.sdk() as client:
        return {"file_id": client.upload(EMD_3197).file_id, "model": "demo"}


def test_killed_in_the_middle_of_the_submission_of_a_job(life):
    first = life()
    request = job_request(first)
    body = json.dumps(request).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: server\r\nAuthorization: Bearer {first.token}\r\nIdempotency-Key: once\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    address = urlsplit(first.server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head + body[:20])
        first.kill()

    second = life()
    retried = second.http.post("/v1/jobs", json=request, headers={"Idempotency-Key": "once"})

    assert retried.status_code == 201
    jobs = second.http.get("/v1/jobs").json()
    assert [job["job_id"] for job in jobs["jobs"]] == [retried.json()["job_id"]]
    second.http.delete(f"/v1/jobs/{retried.json()['job_id']}")


def test_killed_after_the_submission_of_a_job_and_again_while_it_runs(life):
    first = life()
    request = job_request(first)
    key = {"Idempotency-Key": "once"}
    job_id = first.http.post("/v1/jobs", json=request, headers=key).raise_for_status().json()["job_id"]
    first.kill()

    second = life()
    retried = second.http.post("/v1/jobs", json=request, headers=key)
    assert retried.json()["job_id"] == job_id
    with second.sdk() as client:
        until(lambda: client.job(job_id).status == "running")
    second.kill()

    third = life()
    with third.sdk() as client:
        *_, last = client.watch(job_id)
        assert last.type == "completed"
        assert client.job(job_id).status == "completed"
    assert third.http.get("/v1/jobs").json()["total"] == 1


def test_killed_after_a_job_was_cancelled(life):
    first = life()
    job_id = first.http.post("/v1/jobs", json=job_request(first)).raise_for_status().json()["job_id"]
    assert first.http.delete(f"/v1/jobs/{job_id}").status_code == 200
    first.kill()

    second = life()

    assert second.http.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"
