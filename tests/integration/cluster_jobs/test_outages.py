"""Kubernetes is away or silent for a while, and afterwards nothing is missing."""

import json
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from support.api_target import Person, error, ok
from support.segmentation_jobs import condition
from support.tcp_proxy import tcp_proxy
from support.waiting import until

NOW = "2026-01-02T03:04:05Z"
RUNNING = [condition("Running", "True", "Running"), condition("Succeeded", "Unknown", "Running")]


def name_of(job_id: str) -> str:
    return job_id.replace("_", "-")


@pytest.fixture
def proxy(control_plane):
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    with tcp_proxy(server.hostname, server.port) as proxy:
        yield proxy


@pytest.fixture
def target(serve, proxy, control_plane, tmp_path):
    """A server that reaches Kubernetes through the proxy."""
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    cluster["tls-server-name"] = urlsplit(cluster["server"]).hostname
    cluster["server"] = f"https://127.0.0.1:{proxy.listens_on}"
    kubeconfig = tmp_path / "through-the-proxy.kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    return serve(kubeconfig=kubeconfig)


@pytest.fixture
def ada(target):
    return Person(target, target.ada)


def readiness(target) -> int:
    return httpx.get(f"{target.url}/readyz").status_code


def test_what_happened_while_kubernetes_was_away_is_told_when_it_is_back(ada, target, proxy, kube, small_volume):
    file_id = ada.upload(small_volume)["file_id"]
    job_id = ok(ada.submit(file_id), 201)["job_id"]
    with ada.socket(job_id) as socket:
        proxy.cut()
        until(lambda: readiness(target) == 503)
        assert ada.job(job_id)["status"] == "queued"
        error(ada.submit(file_id, params={"step_size": 0.7}), 503, "SERVICE_UNAVAILABLE")
        progress = {"sequence": 1, "currentStep": 3, "percentage": 40, "message": "m", "updatedAt": NOW}
        kube.says(name_of(job_id), conditions=RUNNING, attempt=1, progress=progress)
        proxy.mend()
        message = json.loads(socket.recv(timeout=20))

    assert message["progress"]["percentage"] == 40
    until(lambda: readiness(target) == 200)
    ok(ada.submit(file_id, params={"step_size": 0.7}), 201)


def test_a_connection_that_falls_silent_is_noticed(ada, proxy, kube, small_volume):
    job_id = ok(ada.submit(ada.upload(small_volume)["file_id"]), 201)["job_id"]
    with ada.socket(job_id) as socket:
        proxy.stall()
        kube.says(name_of(job_id), conditions=RUNNING, attempt=1)
        until(lambda: kube.job(name_of(job_id))["status"]["attempt"] == 1)
        progress = {"sequence": 1, "currentStep": 3, "percentage": 40, "message": "m", "updatedAt": NOW}
        kube.says(name_of(job_id), progress=progress)
        proxy.mend()
        message = json.loads(socket.recv(timeout=60))

    assert message["progress"]["percentage"] == 40
