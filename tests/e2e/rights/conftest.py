"""Pods that hold tokens of the runners' service account, and what the API server answers them."""

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from devcluster.images import busybox_archive
from support.kube_http import client
from support.kubernetes import Kubectl, RefusedError, tool
from support.operators import grant
from support.segmentation_jobs import segmentation_job
from support.waiting import until

ACCOUNT = "cryomamba-runner"
IMAGE = "localhost/cryomamba-test-sleeper:1"
MOUNTED_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
CONTENT_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True)
class Caller:
    """Whoever sends a token to the API server."""

    http: httpx.Client
    namespace: str
    token: str = field(repr=False)

    def request(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> httpx.Response:
        """Send a request; `path` is below /apis/cryomamba.io/v1alpha1 unless it starts with a slash."""
        where = path if path.startswith("/") else f"/apis/cryomamba.io/v1alpha1/namespaces/{self.namespace}/{path}"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        return self.http.request(verb, where, headers=headers, content=None if body is None else json.dumps(body))

    def patch(self, job: str, body: Any, way: str = "merge", query: str = "") -> httpx.Response:
        """Patch the status of a job."""
        return self.request("PATCH", f"segmentationjobs/{job}/status{query}", body, CONTENT_TYPES[way])


@dataclass(frozen=True)
class Pod(Caller):
    """A pod with the runners' service account."""

    name: str
    uid: str


@dataclass(frozen=True)
class Place:
    """A namespace in which runners have their rights, as an administrator sees it."""

    kubectl: Kubectl
    http: httpx.Client

    @property
    def namespace(self) -> str:
        assert self.kubectl.namespace
        return self.kubectl.namespace

    def create_job(self, name: str, pod: Pod | None = None, **status: Any) -> None:
        """Create a job whose current attempt is run by a pod, as the operator would record it."""
        self.kubectl("create", "--filename", "-", manifest=segmentation_job(name))
        if pod is not None:
            self.record(name, podUid=pod.uid, jobName=name, attempt=1, observedGeneration=1, **status)

    def record(self, name: str, **status: Any) -> None:
        """Write to a job's status as the operator does."""
        patch = json.dumps({"status": status})
        self.kubectl("patch", "segjob", name, "--subresource=status", "--type=merge", f"--patch={patch}")

    def status(self, name: str) -> Any:
        """Return the status of a job."""
        return self.kubectl.get("segjob", name).get("status")

    def create_pod(self, name: str = "tomogram-x7k2p", **metadata: Any) -> Pod:
        """Create a pod that is never placed, and a token bound to it such as kubelet would ask for."""
        manifest = _pod(name, metadata)
        manifest["spec"]["schedulingGates"] = [{"name": "cryomamba.io/never"}]
        uid = self._create(manifest)
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
        return self._as_pod(name, uid, self.kubectl("create", "token", ACCOUNT, *bound))

    def start_pod(self, name: str = "tomogram-x7k2p", **metadata: Any) -> Pod:
        """Run a pod and return it with the token that kubelet has mounted into it."""
        uid = self._create(_pod(name, metadata))
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout=70)
        return self._as_pod(name, uid, self.kubectl("exec", name, "--", "cat", MOUNTED_TOKEN))

    def without_pod(self) -> Caller:
        """Return somebody with a token of the service account that is bound to no pod."""
        return Caller(self.http, self.namespace, self.kubectl("create", "token", ACCOUNT).strip())

    def _create(self, manifest: dict[str, Any]) -> str:
        created = json.loads(self.kubectl("create", "--output=json", "--filename", "-", manifest=manifest))
        uid: str = created["metadata"]["uid"]
        return uid

    def _as_pod(self, name: str, uid: str, token: str) -> Pod:
        return Pod(self.http, self.namespace, token.strip(), name, uid)


def _pod(name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "automountServiceAccountToken": True,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "inference", "image": IMAGE, "imagePullPolicy": "Never"}],
        },
    }


@contextmanager
def _place(kubectl: Kubectl) -> Iterator[Place]:
    """Give runners their rights in a namespace."""
    grant(kubectl, "runner")
    until(lambda: _may_patch(kubectl), seconds=20)
    with client(kubectl, anonymous=True) as http:
        yield Place(kubectl, http)


def _may_patch(kubectl: Kubectl) -> bool:
    """Whether the API server has seen the role and its binding."""
    account = f"system:serviceaccount:{kubectl.namespace}:{ACCOUNT}"
    with suppress(RefusedError):
        kubectl("auth", "can-i", "patch", "segmentationjobs.cryomamba.io", "--subresource=status", f"--as={account}")
        return True
    return False


@contextmanager
def _namespace(cluster: Kubectl) -> Iterator[Kubectl]:
    name = f"test-{secrets.token_hex(4)}"
    cluster("create", "namespace", name)
    yield replace(cluster, namespace=name)
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def _policy(cluster: Kubectl) -> None:
    """Wait for the API server to hold the policy; as it is for all namespaces, it stays, like the CRD."""
    with _namespace(cluster) as kubectl, _place(kubectl) as place:
        place.create_job("probe")
        anybody = place.without_pod()
        until(lambda: "belongs to no pod" in anybody.patch("probe", {}).text, seconds=30)


@pytest.fixture(scope="session")
def _image(cluster: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = tmp_path_factory.mktemp("image") / "sleeper.tar"
    busybox_archive(archive, IMAGE, ["/bin/sleep", "3600"])
    tool("load-image", archive)


@pytest.fixture
def place(namespace: Kubectl, _policy: None, _image: None) -> Iterator[Place]:
    with _place(namespace) as place:
        yield place


@pytest.fixture
def other_place(cluster: Kubectl, place: Place) -> Iterator[Place]:
    """A second namespace with runners of its own."""
    with _namespace(cluster) as kubectl, _place(kubectl) as other:
        yield other


@pytest.fixture
def pod(place: Place) -> Pod:
    """The pod that runs the job `tomogram`, which goes on."""
    pod = place.create_pod()
    place.create_job("tomogram", pod, conditions=[])
    return pod


@pytest.fixture
def refuses() -> Callable[[httpx.Response, int, str], None]:
    """Checks that an answer is a refusal that tells why."""

    def check(answer: httpx.Response, code: int, why: str) -> None:
        assert (answer.status_code, answer.json()["kind"]) == (code, "Status"), answer.text
        assert why in answer.json()["message"]

    return check
