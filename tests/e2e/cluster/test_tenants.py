"""Two owners on one installation: neither sees anything of the other's."""

import pytest

from support.installation import Installation, User
from support.segmentation_jobs import segmentation_job
from support.waiting import until

pytestmark = pytest.mark.timeout(600)


def test_an_owner_sees_nothing_of_anothers(site: Installation, ada: User, bob: User, small_volume: bytes) -> None:
    file_id = ada.upload(small_volume)
    job_id = ada.submit(file_id, step_size=0.9)

    asked = [
        bob.http.get(f"/v1/jobs/{job_id}"),
        bob.http.delete(f"/v1/jobs/{job_id}"),
        bob.http.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}),
    ]

    assert [answer.status_code for answer in asked] == [404] * 3
    assert job_id not in {job["job_id"] for job in bob.http.get("/v1/jobs").json()["jobs"]}
    assert ada.wait_for_end(job_id)["status"] == "completed"


def test_a_resource_with_an_owners_label_is_that_owners(site: Installation, ada: User, bob: User) -> None:
    job = segmentation_job(
        "by-hand", input={"object": "incoming/nothing.mrc"}, resources={"memory": "3Gi", "cpu": "100m"}
    )
    job["metadata"]["labels"] = {"cryomamba.io/owner": "bob"}
    site.kubectl.apply(job)
    until(lambda: bob.http.get("/v1/jobs/by-hand").status_code == 200)

    ended = bob.wait_for_end("by-hand")

    # The volume is not there, and that is what the owner is told.
    assert (ended["status"], ended["error"]["code"]) == ("failed", "NOT_FOUND"), ended
    assert "incoming/nothing.mrc" in ended["error"]["message"]
    assert ada.http.get("/v1/jobs/by-hand").status_code == 404
