"""What becomes of a job while the object store and the API server are away."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cryomamba_crds import keys
from cryomamba_crds.report import Manifest
from support.cut_line import line_to
from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess
from support.pods import Container
from support.s3 import OwnMinio, new_bucket, own_minio
from support.segmentation_jobs import BUSY
from support.waiting import until

Make = Callable[..., Container]
pytestmark = pytest.mark.timeout(900)

AWAY_SECONDS = 6
"""After the inference's end. A minute makes no difference but the time that this takes."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnMinio]:
    folder = tmp_path / "minio"
    folder.mkdir()
    with own_minio(folder) as server:
        yield server


@pytest.fixture
def stocked(server: OwnMinio, tmp_path: Path, stock: Callable[..., Any]) -> Iterator[Any]:
    stocked = stock(new_bucket(server.connection), tmp_path)
    yield stocked
    stocked.client.close()


def progress(jobs: Jobs) -> int:
    return int(jobs.status("tomo").get("progress", {}).get("percentage", 0))


def test_a_job_survives_a_store_and_an_api_server_that_go_away_in_its_middle(
    operator: OperatorProcess,
    jobs: Jobs,
    container_of: Make,
    stocked: Any,
    server: OwnMinio,
    control_plane_namespace: Kubectl,
) -> None:
    config = yaml.safe_load(control_plane_namespace.kubeconfig.read_text())
    api = urlsplit(config["clusters"][0]["cluster"]["server"])
    with line_to(str(api.hostname), int(api.port or 443)) as line:
        operator.start()
        busy = {"input": {"object": BUSY}, "model": "demo"}
        jobs.submit("tomo", resources={"gpus": 0, "memory": "2Gi", "cpu": "10m"}, **busy)
        container = container_of("tomo", KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT=str(line.port))
        container.start()
        assert container.process
        until(lambda: "Processing tile" in container.log)
        server.stop()
        line.cut()
        until(lambda: "Uploading artifacts" in container.log)
        seen = progress(jobs)
        back = threading.Timer(AWAY_SECONDS, server.start)
        back.start()
        until(lambda: "answers again" in container.log)
        back.join()
        line.mend()
        code = container.process.wait(120)

    assert code == 0, container.log
    assert seen < 98, "nothing of the end was told while nobody could be told"
    uid = str(control_plane_namespace.get("segjob", "tomo")["metadata"]["uid"])
    manifest = Manifest.model_validate_json(stocked.get(keys.job_manifest(uid)))
    for artifact in manifest.artifacts:
        assert len(stocked.get(artifact.key)) == artifact.size
    assert progress(jobs) == 100
    assert [item["name"] for item in jobs.status("tomo")["artifacts"]] == [item.name for item in manifest.artifacts]
