"""The operator as it runs in a cluster: a process of its own, with the rights of its own service account."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from support.kube_http import client, segmentation_jobs
from support.kubernetes import Kubectl
from support.segmentation_jobs import segmentation_job
from support.waiting import until

MANIFESTS = Path(__file__).parents[2] / "operator" / "manifests"
SHARED_SECRET = "no-bucket"
STORE = {
    "S3_ENDPOINT": "http://store.invalid",
    "S3_BUCKET": "none",
    "S3_CREDENTIALS": "shared",
    "SHARED_SECRET": SHARED_SECRET,
}
"""For pods that have no use for one."""
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CRYOMAMBA_")}


def grant(kubectl: Kubectl, name: str) -> None:
    """Apply `operator/manifests/NAME.yaml` to the namespace; bindings of the whole cluster get a name of their own."""
    for manifest in yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text()):
        if "namespace" in manifest["metadata"]:
            manifest["metadata"]["namespace"] = kubectl.namespace
        if manifest["kind"] == "ClusterRoleBinding":
            manifest["metadata"]["name"] += f"-{kubectl.namespace}"
        for subject in manifest.get("subjects", []):
            subject["namespace"] = kubectl.namespace
        kubectl.apply(manifest)


def as_service_account(kubectl: Kubectl, name: str, path: Path, *words: str) -> Kubectl:
    """Return `kubectl` with a token of a service account; more words bind it to a pod."""
    config: dict[str, Any] = yaml.safe_load(kubectl.kubeconfig.read_text())
    token = kubectl("create", "token", name, "--duration=1h", *words).strip()
    (context,) = config["contexts"]
    (user,) = (user for user in config["users"] if user["name"] == context["context"]["user"])
    user["user"] = {"token": token}
    path.write_text(json.dumps(config))
    return Kubectl(kubectl.binary, path, kubectl.namespace)


@dataclass
class OperatorProcess:
    """One installation of the operator, which may be started and killed any number of times."""

    kubectl: Kubectl
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it has logged."""
        return self.folder / "operator.log"

    def start(self, **settings: object) -> None:
        """Start it, now or once more; settings stay for the next time."""
        own = as_service_account(self.kubectl, "cryomamba-operator", self.folder / "operator.kubeconfig")
        self.settings |= {name: str(value) for name, value in settings.items()}
        values = {
            "IMAGE": "localhost/stub:1",
            **STORE,
            "KUBECONFIG": str(own.kubeconfig),
            "NAMESPACES": str(self.kubectl.namespace),
            "HEALTH_PORT": "0",
            "METRICS_PORT": "0",
            **{name.upper(): value for name, value in self.settings.items()},
        }
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cryomamba_operator"],
                env=ENVIRONMENT | {f"CRYOMAMBA_OPERATOR_{name}": value for name, value in values.items()},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it without a warning."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        assert self.process
        self.process.terminate()
        return self.process.wait(120)


@contextmanager
def installed(kubectl: Kubectl, folder: Path, **settings: str) -> Iterator[OperatorProcess]:
    """An installation in the namespace, ended with the with statement; without settings, jobs have no object store."""
    grant(kubectl, "operator")
    grant(kubectl, "runner")
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SHARED_SECRET}})
    operator = OperatorProcess(kubectl, folder, settings)
    try:
        yield operator
    finally:
        if operator.process and operator.process.poll() is None:
            operator.kill()
        kubectl("delete", "clusterrolebinding", f"cryomamba-operator-{kubectl.namespace}", "--ignore-not-found")


@dataclass(frozen=True)
class Jobs:
    """SegmentationJobs of a namespace, as a user handles them."""

    kubectl: Kubectl
    http: httpx.Client
    """Used for what is asked again and again: `kubectl` takes a tenth of a second each time."""

    def submit(self, name: str, labels: dict[str, str] | None = None, **spec: object) -> None:
        """Create one with little in it."""
        self.kubectl.apply(manifest(name, labels, **spec))

    def status(self, name: str) -> dict[str, Any]:
        """Return its status."""
        status: dict[str, Any] = self._read(f"{segmentation_jobs(self.kubectl)}/{name}").get("status", {})
        return status

    def condition(self, name: str, kind: str) -> tuple[str, str]:
        """Return status and reason of a condition."""
        conditions = self.status(name).get("conditions", [])
        return next(((item["status"], item["reason"]) for item in conditions if item["type"] == kind), ("", ""))

    def wait(self, name: str, kind: str, status: str, reason: str, seconds: float = 60) -> None:
        """Wait until a condition is so."""
        seen: list[tuple[str, str]] = []

        def reached() -> bool:
            seen[:] = [self.condition(name, kind)]
            return seen == [(status, reason)]

        try:
            until(reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{name}: {kind} is {seen}, not {(status, reason)}: {self.status(name)}") from error

    def pod(self, name: str) -> dict[str, Any] | None:
        """Return its newest pod, if there is one."""
        path = f"/api/v1/namespaces/{self.kubectl.namespace}/pods"
        pods = self._read(path, labelSelector=f"cryomamba.io/job={name}")["items"]
        return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], default=None)

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return type and reason of the Events about it, in order."""
        selector = f"involvedObject.kind=SegmentationJob,involvedObject.name={name}"
        events = self._read(f"/api/v1/namespaces/{self.kubectl.namespace}/events", fieldSelector=selector)["items"]
        return [(event["type"], event["reason"]) for event in events]

    def _read(self, path: str, **query: str) -> Any:
        answer = self.http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def jobs_of(kubectl: Kubectl) -> Iterator[Jobs]:
    """The SegmentationJobs of the namespace."""
    with client(kubectl) as http:
        yield Jobs(kubectl, http)


def manifest(name: str, labels: dict[str, str] | None = None, **spec: object) -> dict[str, Any]:
    """Return a SegmentationJob that asks for little."""
    job = segmentation_job(name, **{"resources": {"memory": "64Mi", "cpu": "10m"}, **spec})
    job["metadata"]["labels"] = labels or {}
    return job
