"""CryoMamba on the test cluster: the chart with the product's own images, an S3 store, and nginx in front."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_crds.ids import resource_name
from support.api_target import Person, Target, ok
from support.helm import Manifest, release
from support.kubernetes import Kubectl, RefusedError
from support.product_images import ProductImages
from support.reverse_proxy import Proxy, ingress_annotations, proxying
from support.waiting import until

SECONDS = 180
"""How long a job of the tests may take on a busy machine."""
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
RELEASE = "cryomamba"
_SELECTOR = "app.kubernetes.io/component"


def values(images: ProductImages, store: S3Connection) -> Manifest:
    """Return what the tests' installation differs in from the defaults; the node's GPUs are made up."""

    def image(name: str) -> Manifest:
        repository, _, tag = name.rpartition(":")
        return {"repository": repository, "tag": tag}

    small = {"requests": {"cpu": "10m", "memory": "128Mi"}}
    return {
        "image": {"server": image(images.server), "inference": image(images.inference)},
        # Other tests use the definition at the same time.
        "crds": {"enabled": False},
        "s3": {"endpoint": store.endpoint, "bucket": store.bucket, "existingSecret": {"name": "store"}},
        "jobs": {"memory": "3Gi", "cpu": "100m"},
        "apiServer": {
            "replicas": 2,
            "resources": small,
            "settings": {"requests_per_minute": 100_000, "jobs_per_hour": 1000},
        },
        "operator": {"resources": small},
        "runner": {"device": "cpu", "scratchSize": "1Gi", "stopSeconds": 10},
        "gpuAgent": {"nodeSelector": {"nvidia.com/gpu.present": None}, "resources": small},
        "networkPolicy": {"kubernetesApiPorts": [443, 6443]},
    }


@dataclass(frozen=True)
class Installation:
    """A release that serves."""

    kubectl: Kubectl
    store: S3Connection
    proxy: Proxy

    def token(self, subject: str, scope: str = "read,write") -> str:
        """Return a token, made as the chart's notes say."""
        create = ("cryomamba", "token", "create", "--subject", subject, "--scope", scope, "--ttl", "2h")
        return self.kubectl("exec", "deployment/cryomamba-apiserver", "--", *create).strip()

    @contextmanager
    def user(self, subject: str, scope: str = "read,write") -> Iterator["User"]:
        """Somebody who uses the API through the proxy."""
        token = self.token(subject, scope)
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.proxy.url, verify=self.proxy.trust, headers=headers, timeout=60) as http:
            yield User(self, http, token)

    @cached_property
    def objects(self) -> S3Client:
        """The store, with all rights."""
        return S3Client(self.store)

    def read(self, key: str) -> bytes:
        """Return an object of the store."""
        answer = self.objects.get_object(self.store.bucket, key)
        try:
            return bytes(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def put(self, key: str, data: bytes) -> None:
        """Put an object into the store."""
        self.objects.put_object(self.store.bucket, key, io.BytesIO(data), len(data))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys below a prefix."""
        listed = self.objects.list_objects(self.store.bucket, prefix, recursive=True)
        return [str(item.object_name) for item in listed]

    def resource(self, name: str) -> Manifest:
        """Return a SegmentationJob."""
        found: Manifest = self.kubectl.get("segmentationjob", name)
        return found

    def wait_until_finished(self, name: str) -> Manifest:
        """Wait for a SegmentationJob's end as a user of kubectl does, and return it; fail with what it says instead."""
        try:
            within = f"--timeout={SECONDS}s"
            self.kubectl("wait", "--for=condition=Finished", f"segjob/{name}", within, timeout=SECONDS + 10)
        except RefusedError as error:
            raise AssertionError(str(error), self.resource(name), self.kubectl("get", "pods")) from error
        return self.resource(name)

    def pods_of(self, name: str) -> list[Manifest]:
        """Return the pods of a job."""
        found: list[Manifest] = self.kubectl.get("pods", "--selector", f"cryomamba.io/job={name}")["items"]
        return found

    def pods(self, component: str) -> list[Manifest]:
        """Return the pods of a part of the release."""
        found: list[Manifest] = self.kubectl.get("pods", "--selector", f"{_SELECTOR}={component}")["items"]
        return found

    def kill(self, component: str) -> None:
        """End all pods of a part of the release without a warning."""
        self.kubectl("delete", "pods", "--selector", f"{_SELECTOR}={component}", "--grace-period=0", "--force")


@dataclass(frozen=True)
class User:
    """Somebody with a token."""

    site: Installation
    http: httpx.Client
    token: str

    @cached_property
    def _person(self) -> Person:
        """The same one, as the conformance suite knows people."""
        token = self.token
        return Person(Target(self.site.proxy.url, token, token, token, token, "demo", self.http), token)

    def upload(self, data: bytes) -> str:
        """Upload a volume and return its file's id."""
        file_id: str = self._person.upload(data, "v.mrc")["file_id"]
        return file_id

    def submit(self, file_id: str, **params: Any) -> str:
        """Create a job with the demo model and return its id."""
        answer = self._person.submit(file_id, params=params, preview_config={"interval_seconds": 1})
        job_id: str = ok(answer, 201)["job_id"]
        return job_id

    def job(self, job_id: str) -> Manifest:
        """Return a job."""
        return self._person.job(job_id)

    def wait_for_step(self, job_id: str, step: int) -> None:
        """Wait until a job has come to one of its five steps."""
        self._wait(job_id, lambda job: job.get("progress", {}).get("current_step", 0) >= step)

    def wait_for_end(self, job_id: str) -> Manifest:
        """Wait until a job has ended and return it."""
        self._wait(job_id, lambda job: job["status"] not in {"queued", "running"})
        return self.job(job_id)

    def _wait(self, job_id: str, condition: Callable[[Manifest], bool]) -> None:
        try:
            until(lambda: condition(self.job(job_id)), SECONDS)
        except AssertionError as error:
            raise AssertionError(str(error), self.site.resource(resource_name(job_id))["status"]) from error

    def download(self, job: Manifest, name: str) -> bytes:
        """Follow the signed link to a result, without a token."""
        (url,) = [artifact["url"] for artifact in job["artifacts"] if artifact["name"] == name]
        answer = httpx.get(httpx.URL(self.site.proxy.url).join(url), verify=self.site.proxy.trust, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def socket(self, job_id: str) -> ClientConnection:
        """Connect to a job's WebSocket through the proxy."""
        url = f"wss{self.site.proxy.url.removeprefix('https')}/ws/jobs/{job_id}"
        return connect(url, ssl=self.site.proxy.trust, subprotocols=[f"bearer.{self.token}"], open_timeout=60)


def wait_for_rollout(kubectl: Kubectl, part: str) -> None:
    """Wait until all pods of a part of the release serve; where they do not, fail with what they say."""
    try:
        kubectl("rollout", "status", part, "--timeout=150s", timeout=160)
    except RefusedError as error:
        words = ("--all-containers", "--prefix", "--tail=20", f"--selector=app.kubernetes.io/instance={RELEASE}")
        told = kubectl("describe", "pods"), kubectl("logs", *words)
        raise AssertionError(f"{part}: {error}", *told) from error


@contextmanager
def installed(kubectl: Kubectl, folder: Path, images: ProductImages, store: S3Connection) -> Iterator[Installation]:
    """Install the chart in a namespace that lets in only restricted pods, and put nginx in front of it."""
    kubectl("label", "namespace", str(kubectl.namespace), RESTRICTED)
    keys = {"access_key": store.access_key, "secret_key": store.secret_key}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store"}, "stringData": keys})
    release(kubectl, "install", RELEASE, values=values(images, store))
    try:
        for part in (
            "deployment/cryomamba-apiserver",
            "deployment/cryomamba-operator",
            "daemonset/cryomamba-gpu-agent",
        ):
            kubectl("rollout", "status", part, "--timeout=150s", timeout=160)
        address = kubectl.get("service", "cryomamba-apiserver")["spec"]["clusterIP"]
        with proxying(folder, f"http://{address}:80", ingress_annotations()) as proxy:
            yield Installation(kubectl, store, proxy)
    finally:
        release(kubectl, "uninstall", RELEASE, "--wait")
