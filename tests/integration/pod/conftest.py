"""A job on a real API server and a real S3 store; its pod's container is a process of this machine."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import pytest

import cryomamba_apiserver.models
from cryomamba.phantom import make_phantom
from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_crds import keys
from cryomamba_crds.model_card import ModelCard
from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess, installed, jobs_of
from support.pods import Container
from support.segmentation_jobs import BUSY, FILE
from support.waiting import until

DEMO = Path(cryomamba_apiserver.models.__path__[0]) / "bundled" / "demo"
CARD = ModelCard.model_validate_json((DEMO / "model.json").read_bytes())


@dataclass(frozen=True)
class Bucket:
    """A bucket with a volume and the demo model in it."""

    connection: S3Connection
    client: S3Client

    def put(self, key: str, path: Path) -> None:
        self.client.fput_object(self.connection.bucket, key, str(path))

    def get(self, key: str) -> bytes:
        answer = self.client.get_object(self.connection.bucket, key)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def keys(self, prefix: str) -> list[str]:
        return [item.object_name or "" for item in self.client.list_objects(self.connection.bucket, prefix, True)]


@pytest.fixture(scope="session")
def stock() -> Callable[[S3Connection, Path], Bucket]:
    """Puts what a job needs into a bucket."""
    return _stock


def _stock(connection: S3Connection, folder: Path) -> Bucket:
    bucket = Bucket(connection, S3Client(connection))
    for key, shape in ((keys.file_volume(FILE), (32, 48, 48)), (BUSY, (48, 96, 96))):
        volume = folder / "volume.mrc"
        with mrcfile.new(volume, make_phantom(3, shape).density, overwrite=True) as mrc:
            mrc.voxel_size = 13.48
        bucket.put(key, volume)
    for key in (keys.model_card("demo"), keys.model_archive_card("demo", CARD.digest)):
        bucket.put(key, DEMO / "model.json")
    bucket.put(keys.model_archive("demo", CARD.digest), DEMO / "model.zip")
    return bucket


@pytest.fixture
def stocked(bucket: S3Connection, tmp_path: Path) -> Iterator[Bucket]:
    stocked = _stock(bucket, tmp_path)
    yield stocked
    stocked.client.close()


@pytest.fixture
def operator(control_plane_namespace: Kubectl, stocked: Bucket, tmp_path: Path) -> Iterator[OperatorProcess]:
    """An operator that asks the store's STS for each job's credentials, and pods that no node runs; not yet started."""
    with operator_on(control_plane_namespace, stocked.connection, tmp_path) as operator:
        yield operator


def operator_on(kubectl: Kubectl, store: S3Connection, folder: Path) -> Any:
    template = folder / "pod-template.yaml"
    template.write_text("spec: {schedulerName: nobody}\n")
    (folder / "access_key").write_text(store.access_key + "\n")
    (folder / "secret_key").write_text(store.secret_key)
    settings = {
        "pod_template": str(template),
        "s3_endpoint": store.endpoint,
        "s3_bucket": store.bucket,
        "s3_credentials": "sts",
        "s3_access_key_file": str(folder / "access_key"),
        "s3_secret_key_file": str(folder / "secret_key"),
    }
    return installed(kubectl, folder, **settings)


def names_of_secrets(kubectl: Kubectl) -> list[str]:
    return [secret["metadata"]["name"] for secret in kubectl.get("secrets")["items"]]


@pytest.fixture
def jobs(control_plane_namespace: Kubectl) -> Iterator[Jobs]:
    with jobs_of(control_plane_namespace) as jobs:
        yield jobs


@pytest.fixture
def container_of(control_plane_namespace: Kubectl, jobs: Jobs) -> Iterator[Callable[..., Container]]:
    """Waits for the pod of a job and returns its container, not yet started."""
    started: list[Container] = []
    with tempfile.TemporaryDirectory() as folder:

        def make(name: str, **environment: str) -> Container:
            until(lambda: jobs.pod(name) is not None)
            pod = jobs.pod(name)
            assert pod
            until(lambda: f"{name}-s3" in names_of_secrets(control_plane_namespace))
            container = Container(control_plane_namespace, pod, Path(folder) / pod["metadata"]["uid"], environment)
            started.append(container)
            return container

        yield make
        for container in started:
            container.kill()
