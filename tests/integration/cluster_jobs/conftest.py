"""API servers on a real Kubernetes API server and a real MinIO; what operator and pods would write, the test writes."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from cryomamba_apiserver.adapters.s3_store import S3Connection
from support.api_target import Person, Target, volume
from support.cluster_server import cluster_settings, person_target
from support.commands import Server, serving
from support.kube_http import MERGE, client, segmentation_jobs
from support.kubernetes import Kubectl

Serve = Callable[..., Target]
ROOMY = {"requests_per_minute": "100000", "jobs_per_hour": "100000"}
"""Limits that no test meets by chance."""


@pytest.fixture(scope="module")
def token_secret() -> str:
    """All servers of an installation sign with the same."""
    return secrets.token_hex(32)


@pytest.fixture
def settings(control_plane_namespace: Kubectl, bucket: S3Connection, token_secret: str) -> dict[str, str]:
    """Of one installation: a namespace, a bucket, a secret."""
    return cluster_settings(control_plane_namespace, bucket, token_secret) | ROOMY


@pytest.fixture
def serve(settings: dict[str, str], tmp_path: Path) -> Iterator[Serve]:
    """Starts another server of the installation."""
    with ExitStack() as servers:
        started: list[Server] = []

        def begin(**more: object) -> Target:
            given = settings | {name: str(value) for name, value in more.items()}
            server = servers.enter_context(serving(tmp_path / f"unused-{len(started)}", **given))
            started.append(server)
            return servers.enter_context(person_target(server))

        yield begin


@pytest.fixture
def ada(serve: Serve) -> Person:
    target = serve()
    return Person(target, target.ada)


@pytest.fixture
def small_volume(tmp_path: Path) -> bytes:
    return volume(tmp_path, (8, 8, 8))


class Kube:
    """Kubernetes as operator and pods use it."""

    def __init__(self, kubectl: Kubectl, http: httpx.Client) -> None:
        self.kubectl, self.http = kubectl, http
        self._path = segmentation_jobs(kubectl)

    def job(self, name: str) -> dict[str, Any]:
        return self.http.get(f"{self._path}/{name}").raise_for_status().json()

    def jobs(self) -> list[dict[str, Any]]:
        return self.http.get(self._path).raise_for_status().json()["items"]

    def says(self, name: str, **status: Any) -> None:
        """Write the status of a job."""
        patch = {"status": status}
        answer = self.http.patch(f"{self._path}/{name}/status", json=patch, headers={"Content-Type": MERGE})
        assert answer.is_success, answer.text


@pytest.fixture
def kube(control_plane_namespace: Kubectl) -> Iterator[Kube]:
    with client(control_plane_namespace) as http:
        yield Kube(control_plane_namespace, http)
