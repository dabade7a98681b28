"""What a pod leaves in the store: results are found by the manifest, and the sweep knows what to keep."""

import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from importlib.resources import files

import pytest

from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_crds import keys
from cryomamba_crds.report import Artifact, Manifest, Statistics
from support.api_target import Person, ok
from support.commands import environment_with
from support.segmentation_jobs import condition
from support.waiting import until

CONTENT = b"labels"
DONE = [
    condition("Scheduled", "True", "Scheduled"),
    condition("Running", "False", "Succeeded"),
    condition("Succeeded", "True", "Succeeded"),
    condition("Finished", "True", "Succeeded"),
]
THEN = "2026-01-02T03:04:05Z"


class Bucket:
    def __init__(self, connection) -> None:
        self.name, self._client = connection.bucket, S3Client(connection)

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(self.name, key, io.BytesIO(data), len(data))

    def keys(self, prefix: str) -> set[str]:
        return {item.object_name or "" for item in self._client.list_objects(self.name, prefix, recursive=True)}

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def stored(bucket):
    opened = Bucket(bucket)
    yield opened
    opened.close()


def finish(kube, stored: Bucket, job_id: str, attempt: int = 1, winner: int = 1) -> str:
    """Let a job's pod succeed; return the job's uid."""
    name = job_id.replace("_", "-")
    uid: str = kube.job(name)["metadata"]["uid"]
    key = keys.attempt_prefix(uid, winner) + "segmentation.mrc"
    stored.put(key, CONTENT)
    artifact = Artifact(
        name="segmentation.mrc",
        key=key,
        size=len(CONTENT),
        content_type="application/octet-stream",
        created_at=datetime.now(UTC),
    )
    manifest = Manifest(
        attempt=winner,
        artifacts=[artifact],
        statistics=Statistics(label_counts={"1": 6}, physical_volume_nm3={}, surface_area_nm2={}),
        seconds_per_tile=2.0,
    )
    stored.put(keys.job_manifest(uid), manifest.model_dump_json().encode())
    kube.says(name, conditions=DONE, attempt=attempt, podUid="p", startedAt=THEN, completedAt=THEN, jobName=name)
    return uid


def test_a_result_is_downloaded_and_told_to_who_watches(ada, small_volume, kube, stored):
    job_id = ok(ada.submit(ada.upload(small_volume)["file_id"]), 201)["job_id"]

    with ada.socket(job_id) as socket:
        finish(kube, stored, job_id, attempt=2, winner=1)
        last = [json.loads(message) for message in socket][-1]

    assert last["type"] == "completed"
    assert last["statistics"]["label_counts"] == {"1": 6}
    details = ada.job(job_id)
    assert details["status"] == "completed"
    assert details["progress"]["percentage"] == 100
    (artifact,) = details["artifacts"]
    answer = ada.target.http.get(artifact["url"])
    assert answer.content == CONTENT


def test_an_estimate_is_by_the_latest_completed_job_of_the_model(ada, small_volume, kube, stored):
    file_id = ada.upload(small_volume)["file_id"]
    first = ok(ada.submit(file_id), 201)
    finish(kube, stored, first["job_id"])
    until(lambda: ada.job(first["job_id"])["status"] == "completed")

    second = ok(ada.submit(file_id, params={"step_size": 1.0}), 201)

    assert first["estimated_duration_seconds"] is None
    assert second["estimated_duration_seconds"] >= 2
    assert second["estimated_duration_seconds"] % 2 == 0


def sweep(settings: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cryomamba_apiserver", "sweep", *words],
        env=environment_with(**settings),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_sweep_keeps_what_jobs_name_and_forgets_the_jobs_that_are_kept_no_longer(
    serve, small_volume, kube, stored, settings
):
    target = serve(sweep_interval_seconds=0)
    ada = Person(target, target.ada)
    file_id = ada.upload(small_volume)["file_id"]
    old = ok(ada.submit(file_id), 201)["job_id"]
    uid = finish(kube, stored, old)
    waiting = ok(ada.submit(file_id, params={"step_size": 0.7}), 201)["job_id"]
    before = stored.keys("")

    kept = sweep(settings)
    swept = sweep(settings | {"keep_jobs_days": "1"})

    assert kept.returncode == swept.returncode == 0, kept.stderr + swept.stderr
    assert stored.keys("") == before
    assert "1 jobs" in swept.stdout
    until(lambda: [job["metadata"]["name"] for job in kube.jobs()] == [waiting.replace("_", "-")])
    until(lambda: ada.get(f"/v1/jobs/{old}").status_code == 404)
    assert any(key.startswith(keys.job_prefix(uid)) for key in stored.keys(""))  # until it is older than the grace


@pytest.mark.parametrize("wrong", [{"kubernetes_namespace": "nowhere"}, {"kubeconfig": "empty"}])
def test_a_sweep_that_cannot_ask_for_the_jobs_says_so_and_removes_nothing(
    settings, stored, wrong, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("{}")
    stored.put("jobs/some-uid/1/segmentation.mrc", CONTENT)

    done = sweep(settings | wrong)

    assert done.returncode == 1
    assert "Hint:" in done.stderr
    assert "jobs/some-uid/1/segmentation.mrc" in stored.keys("jobs/")


def test_a_model_is_pushed_into_the_store_of_a_cluster(settings, tmp_path, stored):
    bundled = files("cryomamba_apiserver") / "models" / "bundled" / "demo" / "model.zip"
    with bundled.open("rb") as source, zipfile.ZipFile(source) as archive:
        archive.extractall(tmp_path / "model")
    environment = environment_with(**settings)
    folder = next(path.parent for path in (tmp_path / "model").rglob("plans.json"))

    done = subprocess.run(
        [sys.executable, "-m", "cryomamba", "models", "push", str(folder), "--name", "mine"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    pushed = stored.keys("models/mine/")
    assert len(pushed) == 3
    assert "models/mine/model.json" in pushed
