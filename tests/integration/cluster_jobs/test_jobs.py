"""Jobs made through the API on a real Kubernetes: created, listed, watched, cancelled; the test plays the operator."""

import json

from support.api_target import ok
from support.segmentation_jobs import condition

NOW = "2026-01-02T03:04:05Z"
RUNNING = [
    condition("Scheduled", "True", "Scheduled"),
    condition("Running", "True", "Running"),
    condition("Succeeded", "Unknown", "Running"),
    condition("Finished", "False", "InProgress"),
]


def name_of(job_id: str) -> str:
    return job_id.replace("_", "-")


def test_a_job_becomes_a_resource_that_asks_for_what_was_asked_for(ada, small_volume, kube):
    file_id = ada.upload(small_volume)["file_id"]
    params = {"step_size": 0.3, "disable_tta": True, "voxel_size": [1.5, 1, 1]}

    created = ok(ada.submit(file_id, params=params, preview_config={"interval_seconds": 2}), 201)

    resource = kube.job(name_of(created["job_id"]))
    assert resource["metadata"]["labels"]["cryomamba.io/owner"] == "ada"
    spec = resource["spec"]
    assert spec["input"] == {"fileId": file_id}
    assert spec["inference"]["tileStepPercent"] == 30
    assert spec["inference"]["voxelSizeNm"] == ["1.5", "1", "1"]
    assert spec["inference"]["mirroring"] is False
    assert spec["preview"]["intervalSeconds"] == 2
    assert spec["modelDigest"].startswith("sha256:")
    assert spec["resources"] == {"gpus": 0, "memory": "64Mi", "cpu": "10m"}
    assert created["queue_position"] == 1
    shown = ada.job(created["job_id"])
    assert shown["status"] == "queued"
    assert params.items() <= shown["params"].items()
    assert [job["job_id"] for job in ok(ada.get("/v1/jobs"))["jobs"]] == [created["job_id"]]


def test_what_operator_and_pod_write_reaches_a_socket(ada, small_volume, kube):
    job_id = ok(ada.submit(ada.upload(small_volume)["file_id"]), 201)["job_id"]
    progress = {"sequence": 1, "currentStep": 3, "percentage": 40, "message": "Processing tile 1/2", "updatedAt": NOW}

    with ada.socket(job_id) as socket:
        kube.says(name_of(job_id), conditions=RUNNING, attempt=1, podUid="p", progress=progress, startedAt=NOW)
        message = json.loads(socket.recv(timeout=2))

    assert message["progress"]["percentage"] == 40
    assert ada.job(job_id)["status"] == "running"


def test_a_cancelled_job_is_cancelled_whatever_the_operator_does(ada, small_volume, kube):
    job_id = ok(ada.submit(ada.upload(small_volume)["file_id"]), 201)["job_id"]

    cancelled = ok(ada.delete(f"/v1/jobs/{job_id}"))

    assert cancelled["status"] == "cancelled"
    assert kube.job(name_of(job_id))["spec"]["desiredState"] == "Cancelled"
    assert ada.job(job_id)["status"] == "cancelled"
    assert ok(ada.delete(f"/v1/jobs/{job_id}"))["status"] == "cancelled"
