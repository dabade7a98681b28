"""The two ways of a job: by kubectl, and by REST and WebSocket; both give what a workstation gives."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cryomamba_crds import keys
from cryomamba_crds.report import Manifest
from support.api_target import Person, Target
from support.commands import serving
from support.installation import Installation, User

pytestmark = pytest.mark.timeout(900)

EXAMPLES = Path(__file__).parents[3] / "examples"
FILE_OF_THE_EXAMPLE = "file_xyz789abc123"
LABELS = "segmentation.mrc"


@pytest.fixture(scope="module")
def of_a_workstation(small_volume: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """The labels and statistics that the local profile gives for the same volume, model and parameters."""
    with serving(tmp_path_factory.mktemp("workstation") / "data") as server, httpx.Client(timeout=60) as http:
        http.base_url = httpx.URL(server.url)
        token = server.token()
        local = Person(Target(server.url, token, token, token, token, "demo", http), token)
        job_id = local.submit(local.upload(small_volume)["file_id"]).json()["job_id"]
        *_, last = local.watch(job_id)
        assert last["type"] == "completed", last
        yield {artifact["name"]: http.get(artifact["url"]).content for artifact in last["artifacts"]}


def test_a_resource_that_is_applied_ends_with_a_mask_in_the_bucket(
    site: Installation, ada: User, small_volume: bytes, of_a_workstation: dict[str, bytes]
) -> None:
    for key in site.keys(keys.model_prefix("demo")):
        site.put(key.replace("demo", "membranes", 1), site.read(key))
    site.put(keys.file_volume(FILE_OF_THE_EXAMPLE), small_volume)

    example = yaml.safe_load((EXAMPLES / "segmentationjob.yaml").read_text())
    example["spec"]["resources"] = {"memory": "3Gi", "cpu": "100m"}  # the node has two cores for everything

    site.kubectl.apply(example)
    resource = site.wait_until_finished("tomogram-17")

    conditions = {item["type"]: item["status"] for item in resource["status"]["conditions"]}
    assert conditions == {"Scheduled": "True", "Running": "False", "Succeeded": "True", "Finished": "True"}, resource
    assert resource["status"]["progress"]["percentage"] == 100
    uid = resource["metadata"]["uid"]
    manifest = Manifest.model_validate_json(site.read(keys.job_manifest(uid)))
    (labels,) = [artifact for artifact in manifest.artifacts if artifact.name == LABELS]
    assert labels.key == keys.attempt_prefix(uid, 1) + LABELS
    assert site.read(labels.key) == of_a_workstation[LABELS]
    assert {item["name"] for item in resource["status"]["artifacts"]} == {item.name for item in manifest.artifacts}
    # It has no owner, so that only an administrator sees it.
    assert ada.http.get("/v1/jobs/tomogram-17").status_code == 404
    with site.user("root", "admin") as administrator:
        shown = administrator.job("tomogram-17")
        assert (shown["status"], shown["file_id"], shown["model"]) == ("completed", FILE_OF_THE_EXAMPLE, "membranes")
        assert administrator.download(shown, LABELS) == of_a_workstation[LABELS]


def test_a_job_through_the_api_is_watched_and_its_mask_downloaded(
    site: Installation, ada: User, small_volume: bytes, of_a_workstation: dict[str, bytes]
) -> None:
    job_id = ada.submit(ada.upload(small_volume))

    with ada.socket(job_id) as socket:
        messages = [json.loads(message) for message in socket]

    kinds = [message["type"] for message in messages]
    assert kinds[-1] == "completed", messages[-1]
    assert {"progress", "preview"} <= set(kinds)
    percentages = [message["progress"]["percentage"] for message in messages if message["type"] == "progress"]
    assert percentages == sorted(percentages)
    job = ada.job(job_id)
    assert job["status"] == "completed"
    assert ada.download(job, LABELS) == of_a_workstation[LABELS]
    assert json.loads(ada.download(job, "statistics.json")) == json.loads(of_a_workstation["statistics.json"])
    assert messages[-1]["statistics"]["label_counts"] == json.loads(of_a_workstation["statistics.json"])["label_counts"]
    name = job_id.replace("_", "-")
    assert site.resource(name)["metadata"]["labels"]["cryomamba.io/owner"] == "ada"
    assert site.resource(name)["spec"]["modelDigest"].startswith("sha256:")


def test_every_replica_gives_the_same_answers(site: Installation, ada: User, small_volume: bytes) -> None:
    job_id = ada.submit(ada.upload(small_volume))
    ada.wait_for_end(job_id)
    token = {"Authorization": f"Bearer {ada.token}"}
    pods = site.pods("apiserver")
    assert len(pods) == 2

    answers = []
    for pod in pods:
        with httpx.Client(base_url=f"http://{pod['status']['podIP']}:8000", headers=token, timeout=60) as http:
            job = http.get(f"/v1/jobs/{job_id}").json()
            for artifact in job["artifacts"]:
                artifact["url"] = httpx.URL(artifact["url"]).path  # what is signed includes the time
            answers.append((job, http.get("/v1/jobs").json(), http.get("/v1/server/info").json()["available_models"]))

    assert answers[0] == answers[1]


def test_the_gpus_of_the_cluster_are_told_by_the_agents(site: Installation, ada: User) -> None:
    status = ada.http.get("/v1/gpu/status").json()

    # The node's GPUs are made up: the agent answers, and has none.
    assert (status["gpus"], status.get("unavailable_nodes", [])) == ([], [])
    assert len(site.pods("gpu-agent")) == 1
