"""The local profile with its files in an S3 store: upload, job, download."""

import json
import os
from datetime import UTC, datetime, timedelta

import mrcfile
import numpy as np
import pytest
from fastapi.testclient import TestClient

from cryomamba_apiserver.app import create_app
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.settings import Settings
from support.waiting import until

pytestmark = pytest.mark.timeout(400)
CHUNK = 5 << 20


@pytest.fixture
def volume(tmp_path) -> bytes:
    """An MRC of two parts."""
    path = tmp_path / "tomogram.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(np.random.default_rng(1).normal(size=(16, 300, 300)).astype(np.float32))
        mrc.voxel_size = 13.48
    return path.read_bytes()


def test_an_upload_and_a_job_whose_files_are_in_a_bucket(tmp_path, bucket, volume, monkeypatch):
    for name in [name for name in os.environ if name.startswith("CRYOMAMBA_")]:
        monkeypatch.delenv(name)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    secret = tmp_path / "secret-key"
    secret.write_text(bucket.secret_key + "\n")
    settings = Settings(
        data_dir=data_dir,
        s3_endpoint=bucket.endpoint,
        s3_bucket=bucket.bucket,
        s3_access_key=bucket.access_key,
        s3_secret_key_file=secret,
        requests_per_minute=10_000,
    )
    app = create_app(settings, now=lambda: datetime.now(UTC), gpus_of_this_machine=lambda: GpuInventory(None, ()))
    with TestClient(app) as client:
        client.headers["Authorization"] = f"Bearer {_token(app)}"

        file_id = _upload(client, volume)
        job = client.post(
            "/v1/jobs", json={"file_id": file_id, "model": "demo", "params": {"disable_tta": True, "step_size": 1.0}}
        ).json()
        url = f"/v1/jobs/{job['job_id']}"
        until(lambda: client.get(url).json()["status"] not in {"queued", "running"}, 300)
        done = client.get(url).json()

        assert done["status"] == "completed", done
        links = {artifact["name"]: artifact["url"] for artifact in done["artifacts"]}
        labels = _download(client, links["segmentation.mrc"])
        statistics = json.loads(_download(client, links["statistics.json"]))
    (tmp_path / "labels.mrc").write_bytes(labels)
    with mrcfile.open(tmp_path / "labels.mrc") as mrc:
        assert mrc.data.shape == (16, 300, 300)
    assert statistics["voxel_size_nm"] == pytest.approx([1.348] * 3)
    assert not (data_dir / "store").exists()
    kept = [path for path in data_dir.rglob("*") if path.is_file()]
    assert any(path.name == "task.json" for path in kept)
    assert [path for path in kept if bucket.secret_key.encode() in path.read_bytes()] == []


def _token(app) -> str:
    return app.state.context.authority.issue("ada", frozenset({Scope.READ, Scope.WRITE}), timedelta(hours=1))


def _upload(client: TestClient, volume: bytes) -> str:
    pieces = [volume[start : start + CHUNK] for start in range(0, len(volume), CHUNK)]
    assert len(pieces) == 2
    named = {"filename": "tomogram.mrc", "total_size": len(volume), "chunk_size": CHUNK}
    begun = client.post("/v1/uploads/init", json=named).json()
    parts = []
    for number in (1, 0, 0):
        put = client.put(begun["chunk_urls"][number], content=pieces[number])
        assert put.status_code == 200, put.text
        parts.append({"part_number": number, "etag": put.json()["etag"]})
    other = client.put(begun["chunk_urls"][1], content=bytes(len(pieces[1])))
    assert other.status_code == 409
    finished = client.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts[:2]})
    assert finished.status_code == 200, finished.text
    return finished.json()["file_id"]


def _download(client: TestClient, url: str) -> bytes:
    answer = client.get(url)
    assert answer.status_code == 200, answer.text
    return answer.content
