"""What is missing is named by /readyz and in answers, and when it is there again the server goes on."""

import json
import subprocess

import httpx
import pytest
import yaml

from support.api_target import Person, error, ok
from support.cluster_server import cluster_settings
from support.commands import CRYOMAMBA, environment_with, serving
from support.operators import as_service_account
from support.waiting import until

RULES = [
    {
        "apiGroups": ["cryomamba.io"],
        "resources": ["segmentationjobs"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
]
"""What the API server needs in its namespace; beside these, `list` of priorityclasses in the cluster."""


def role(rules: list[dict]) -> dict:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "api"}, "rules": rules}


@pytest.fixture
def account(control_plane_namespace, tmp_path):
    """A service account with the rights of RULES; `kubectl` with its token."""
    kubectl = control_plane_namespace
    kubectl("create", "serviceaccount", "api")
    kubectl.apply(role(RULES))
    kubectl("create", "rolebinding", "api", "--role=api", f"--serviceaccount={kubectl.namespace}:api")
    return as_service_account(kubectl, "api", tmp_path / "api.kubeconfig")


def not_ready(url: str) -> dict[str, str]:
    answer = httpx.get(f"{url}/readyz")
    return {} if answer.status_code == 200 else answer.json()["error"]["details"]["not_ready"]


def test_the_rights_of_its_role_are_enough(account, serve, small_volume):
    target = serve(kubeconfig=account.kubeconfig)
    ada = Person(target, target.ada)

    job_id = ok(ada.submit(ada.upload(small_volume)["file_id"]), 201)["job_id"]

    assert ok(ada.delete(f"/v1/jobs/{job_id}"))["status"] == "cancelled"


def test_a_missing_right_is_named_and_when_it_is_given_the_server_goes_on(account, settings, kube, tmp_path):
    kube.kubectl.apply(role([{**RULES[0], "verbs": ["get", "watch"]}]))
    with serving(tmp_path / "unused", **{**settings, "kubeconfig": str(account.kubeconfig)}) as server:
        until(lambda: "kubernetes" in not_ready(server.url))
        told = not_ready(server.url)["kubernetes"]
        kube.kubectl.apply(role(RULES))
        until(lambda: not not_ready(server.url))

    assert f"list segmentationjobs.cryomamba.io in the namespace {kube.kubectl.namespace}" in told


def test_a_quota_that_is_used_up_is_named(ada, small_volume, kube):
    limits = {"hard": {"count/segmentationjobs.cryomamba.io": "0"}}
    kube.kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "jobs"}, "spec": limits})
    until(lambda: kube.kubectl.get("resourcequota", "jobs").get("status", {}).get("hard"))

    answer = ada.submit(ada.upload(small_volume)["file_id"])

    failure = error(answer, 503, "SERVICE_UNAVAILABLE")
    assert "exceeded quota: jobs" in failure["message"]
    assert int(answer.headers["retry-after"]) > 0


def test_a_namespace_that_is_not_there_is_named(settings, tmp_path):
    with serving(tmp_path / "unused", **{**settings, "kubernetes_namespace": "nowhere"}) as server:
        until(lambda: "kubernetes" in not_ready(server.url))
        told = not_ready(server.url)["kubernetes"]

    assert "The namespace nowhere is not there" in told


def test_an_api_server_that_cannot_be_reached_is_named_and_jobs_are_503(settings, tmp_path, control_plane):
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    kubeconfig = tmp_path / "nobody.kubeconfig"
    kubeconfig.write_text(json.dumps(config))

    with serving(tmp_path / "unused", **{**settings, "kubeconfig": str(kubeconfig)}) as server:
        until(lambda: "cannot be reached" in not_ready(server.url).get("kubernetes", ""))
        answer = httpx.get(f"{server.url}/v1/jobs", headers={"Authorization": f"Bearer {server.token()}"})

    error(answer, 503, "SERVICE_UNAVAILABLE")


def test_a_bucket_that_is_not_there_is_named(settings, tmp_path):
    with serving(tmp_path / "unused", **{**settings, "s3_bucket": "no-such-bucket"}) as server:
        until(lambda: not_ready(server.url))
        told = not_ready(server.url)["object_store"]

    assert "there is no bucket no-such-bucket" in told


@pytest.mark.parametrize("missing", ["token_secret", "s3_endpoint"])
def test_what_a_cluster_needs_to_be_set_is_named_at_start(control_plane_namespace, bucket, missing):
    settings = cluster_settings(control_plane_namespace, bucket, "s" * 32)
    gone = {name: value for name, value in settings.items() if not name.startswith(missing[:3])}

    done = subprocess.run(
        [*CRYOMAMBA, "serve"], env=environment_with(**gone), capture_output=True, text=True, check=False
    )

    assert done.returncode
    assert f"CRYOMAMBA_{missing.upper()}" in done.stderr


def test_without_credentials_the_server_says_so_and_does_not_start(settings, tmp_path):
    kubeconfig = tmp_path / "empty.kubeconfig"
    kubeconfig.write_text("{}")
    environment = environment_with(**settings | {"kubeconfig": str(kubeconfig)})

    done = subprocess.run([*CRYOMAMBA, "serve"], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode
    assert "There are no credentials for Kubernetes" in done.stderr
    assert "CRYOMAMBA_KUBECONFIG" in done.stderr
    assert "Traceback" not in done.stderr
