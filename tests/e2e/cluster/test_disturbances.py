"""What may happen to a job on its way: it is cancelled, its pod goes, the servers go; there is one result or none."""

from typing import Any

import pytest

from cryomamba_crds import keys
from cryomamba_crds.ids import resource_name
from cryomamba_crds.report import Manifest
from support.installation import Installation, User, wait_for_rollout
from support.waiting import until

pytestmark = pytest.mark.timeout(900)

INFERRING = 3


@pytest.fixture
def inferring(site: Installation, ada: User, busy_volume: bytes) -> str:
    """A job in the middle of its inference."""
    job_id = ada.submit(ada.upload(busy_volume))
    ada.wait_for_step(job_id, INFERRING)
    return job_id


def _status(site: Installation, job_id: str) -> dict[str, Any]:
    status: dict[str, Any] = site.resource(resource_name(job_id))["status"]
    return status


def _pod(site: Installation, job_id: str) -> str:
    uid = _status(site, job_id)["podUid"]
    (name,) = [pod["metadata"]["name"] for pod in site.pods_of(resource_name(job_id)) if pod["metadata"]["uid"] == uid]
    return str(name)


def _result(site: Installation, job_id: str) -> Manifest:
    """Return the one result; all that it names is there, and of the attempt that it says."""
    uid = site.resource(resource_name(job_id))["metadata"]["uid"]
    manifest = Manifest.model_validate_json(site.read(keys.job_manifest(uid)))
    prefix = keys.attempt_prefix(uid, manifest.attempt)
    stored = site.keys(prefix)
    assert all(artifact.key.startswith(prefix) and artifact.key in stored for artifact in manifest.artifacts)
    return manifest


def test_a_cancelled_job_stops_at_once_and_stays_cancelled(site: Installation, ada: User, inferring: str) -> None:
    name = resource_name(inferring)

    answer = ada.http.delete(f"/v1/jobs/{inferring}")

    assert answer.json()["status"] == "cancelled"
    assert ada.job(inferring)["status"] == "cancelled"
    until(lambda: site.pods_of(name) == [])
    until(lambda: site.kubectl("get", "secrets", f"{name}-s3", "--ignore-not-found") == "")
    assert ada.job(inferring)["status"] == "cancelled"
    assert keys.job_manifest(site.resource(name)["metadata"]["uid"]) not in site.keys("jobs/")


def test_a_pod_that_is_killed_has_a_successor_and_the_job_one_result(
    site: Installation, ada: User, inferring: str
) -> None:
    site.kubectl("delete", "pod", _pod(site, inferring), "--grace-period=0", "--force")

    job = ada.wait_for_end(inferring)

    assert job["status"] == "completed", job
    assert _status(site, inferring)["attempt"] == 2
    assert _result(site, inferring).attempt == 2


def test_a_pod_that_is_evicted_is_no_failed_attempt(site: Installation, ada: User, inferring: str) -> None:
    pod = _pod(site, inferring)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{site.kubectl.namespace}/pods/{pod}/eviction"
    site.kubectl("create", "--raw", path, "--filename", "-", manifest=eviction)

    job = ada.wait_for_end(inferring)

    assert job["status"] == "completed", job
    assert _status(site, inferring)["disruptions"] == 1
    assert _result(site, inferring).attempt == 2


def test_operator_and_servers_that_are_killed_lose_nothing(site: Installation, ada: User, inferring: str) -> None:
    site.kill("operator")
    site.kill("apiserver")
    for name in ("operator", "apiserver"):
        wait_for_rollout(site.kubectl, f"deployment/cryomamba-{name}")

    job = ada.wait_for_end(inferring)

    assert job["status"] == "completed", job
    assert _status(site, inferring)["attempt"] == 1
    assert len(site.pods_of(resource_name(inferring))) == 1
    assert _result(site, inferring).attempt == 1
