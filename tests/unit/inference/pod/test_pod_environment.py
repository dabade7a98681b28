"""What a pod reads from its environment, and the task that it makes of it."""

import json
from pathlib import Path

import pytest

from cryomamba_crds import keys, pod
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_card import Label, ModelCard
from cryomamba_crds.task import CheckpointParams, DirectoryStore, S3Store
from cryomamba_inference.engine import Tuning
from cryomamba_inference.pod.environment import read_environment, termination_log
from cryomamba_inference.pod.task import find_model, make_task
from cryomamba_inference.storage import DirectoryStorage

SPEC = {
    "input": {"fileId": "file_abc123def456"},
    "model": "membranes",
    "inference": {"folds": ["0", "all"], "tileStepPercent": 30, "voxelSizeNm": ["1.348", "1.348", "2"]},
    "preview": {"intervalSeconds": 9},
    "resources": {"gpus": 0},
}
STORE = {"kind": "s3", "endpoint": "http://minio:9000", "bucket": "tomograms"}
DIGEST = "sha256:" + "a" * 64
CARD = ModelCard(
    labels=[Label(id=1, name="membrane", colour="#56b4e9")], spacing_policy="ignore", contrast="dark", digest=DIGEST
)


def environment(**changes: str | None) -> dict[str, str]:
    """Of a pod; a change to None takes a variable away."""
    values = {
        pod.JOB_NAME: "job-mno345pqr678",
        pod.JOB_NAMESPACE: "lab",
        pod.JOB_UID: "uid-1",
        pod.POD_UID: "pod-uid-1",
        pod.JOB_SPEC: json.dumps(SPEC),
        pod.STORE: json.dumps(STORE),
        pod.CREDENTIALS_VARIABLE: pod.CREDENTIALS,
        pod.SCRATCH_VARIABLE: "/scratch",
        pod.MODEL_CACHE_VARIABLE: "/model-cache",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def test_the_environment_becomes_a_task_of_the_attempt() -> None:
    handed = read_environment(environment())

    task = make_task(handed, 3, _model(handed.model_cache))

    assert (task.job_id, task.job_uid, task.attempt) == ("job_mno345pqr678", "uid-1", 3)
    assert task.input_key == keys.file_volume("file_abc123def456")
    assert task.output_prefix == "jobs/uid-1/3/"
    assert task.store == S3Store(endpoint="http://minio:9000", bucket="tomograms")
    assert task.params.folds == [0, "all"]
    assert task.params.step_size == 0.3
    assert task.params.voxel_size_nm == (1.348, 1.348, 2.0)
    assert task.preview.interval_seconds == 9
    assert task.model.cache == "/model-cache"


def test_an_object_of_the_bucket_is_the_input_where_the_job_names_one() -> None:
    spec = {**SPEC, "input": {"object": "incoming/tomogram-17.mrc"}}
    handed = read_environment(environment(**{pod.JOB_SPEC: json.dumps(spec)}))

    assert make_task(handed, 1, _model(Path("/m"))).input_key == "incoming/tomogram-17.mrc"


@pytest.mark.parametrize(
    ("gpus", "said", "device"), [(1, None, "cuda"), (0, None, "cpu"), (1, "cpu", "cpu"), (0, "auto", "auto")]
)
def test_a_job_that_asked_for_a_gpu_computes_on_one_unless_an_administrator_says_otherwise(
    gpus: int, said: str | None, device: str
) -> None:
    spec = json.dumps({**SPEC, "resources": {"gpus": gpus}})

    handed = read_environment(environment(**{pod.JOB_SPEC: spec, pod.DEVICE: said}))

    assert make_task(handed, 1, _model(Path("/m"))).device == device


def test_a_pod_template_may_say_how_the_network_is_run() -> None:
    handed = read_environment(environment(nnUNet_compile="true"))

    assert handed.tuning == Tuning(compiled=True)


def test_a_pod_template_may_say_how_often_planes_are_left() -> None:
    said = read_environment(environment(**{pod.CHECKPOINT: '{"interval_seconds": 5}'}))
    unsaid = read_environment(environment())

    often = CheckpointParams(interval_seconds=5, share_of_time=0.02)
    assert make_task(said, 1, _model(Path("/m"))).checkpoint == often
    assert make_task(unsaid, 1, _model(Path("/m"))).checkpoint == CheckpointParams(interval_seconds=20)


@pytest.mark.parametrize(
    "name",
    [
        pod.JOB_NAME,
        pod.JOB_NAMESPACE,
        pod.JOB_UID,
        pod.JOB_SPEC,
        pod.POD_UID,
        pod.STORE,
        pod.CREDENTIALS_VARIABLE,
        pod.SCRATCH_VARIABLE,
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
    ],
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_is_named(name: str, value: str | None) -> None:
    with pytest.raises(FailureError, match=f"{name} is missing") as failed:
        read_environment(environment(**{name: value}))

    assert failed.value.failure.code is FailureCode.VALIDATION_ERROR
    assert not failed.value.failure.retryable


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (pod.JOB_SPEC, "{", "Invalid JSON"),
        (pod.JOB_SPEC, json.dumps({**SPEC, "tilt": 3}), "tilt"),
        (pod.STORE, '{"kind":"s3"}', "endpoint"),
        (pod.STORE, '{"kind":"tape"}', "tape"),
        (pod.DEVICE, "gpu", "'auto', 'cpu' or 'cuda'"),
        (pod.CHECKPOINT, '{"share_of_time": 2}', "share_of_time"),
    ],
)
def test_a_variable_that_is_wrong_is_named_with_what_is_wrong_about_it(name: str, value: str, told: str) -> None:
    with pytest.raises(FailureError, match=f"{name} is not valid") as failed:
        read_environment(environment(**{name: value}))

    assert told in failed.value.failure.message


@pytest.mark.parametrize(
    ("host", "url"),
    [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443"), ("api.svc", "https://api.svc:443")],
)
def test_the_api_server_is_found_by_kubernetes_own_variables(host: str, url: str) -> None:
    assert read_environment(environment(KUBERNETES_SERVICE_HOST=host)).api_server == url


def test_models_are_unpacked_into_the_scratch_space_where_no_volume_is_shared() -> None:
    handed = read_environment(environment(**{pod.MODEL_CACHE_VARIABLE: None}))

    assert handed.model_cache == Path("/scratch/models")


def test_the_last_word_goes_where_kubernetes_looks_unless_told_otherwise() -> None:
    assert termination_log({}) == Path("/dev/termination-log")
    assert termination_log({"CRYOMAMBA_TERMINATION_LOG": "/tmp/word"}) == Path("/tmp/word")


@pytest.mark.parametrize("pinned", [DIGEST, None])
def test_a_model_is_the_one_that_the_job_is_pinned_to_or_the_one_that_the_name_stands_for(
    tmp_path: Path, pinned: str | None
) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put_bytes(keys.model_archive_card("membranes", DIGEST), CARD.model_dump_json().encode())
    newer = CARD.model_copy(update={"digest": "sha256:" + "b" * 64})
    storage.put_bytes(keys.model_card("membranes"), newer.model_dump_json().encode())

    model = find_model(_spec(modelDigest=pinned), storage, cache=tmp_path, scratch=tmp_path)

    assert model.card == (CARD if pinned else newer)
    assert model.key == keys.model_archive("membranes", model.card.digest)


@pytest.mark.parametrize("pinned", [DIGEST, None])
def test_a_model_that_is_not_there_is_named_with_what_to_do(tmp_path: Path, pinned: str | None) -> None:
    with pytest.raises(FailureError, match="no model membranes") as failed:
        find_model(_spec(modelDigest=pinned), DirectoryStorage(tmp_path), cache=tmp_path, scratch=tmp_path)

    assert failed.value.failure.code is FailureCode.NOT_FOUND
    assert "cryomamba models push" in failed.value.failure.hint


@pytest.mark.parametrize("text", [b"{", b"{}", CARD.model_dump_json().replace("aaaa", "cccc").encode()])
def test_a_card_that_is_none_or_another_models_is_refused(tmp_path: Path, text: bytes) -> None:
    storage = DirectoryStorage(tmp_path)
    storage.put_bytes(keys.model_archive_card("membranes", DIGEST), text)

    with pytest.raises(FailureError, match="card") as failed:
        find_model(_spec(modelDigest=DIGEST), storage, cache=tmp_path, scratch=tmp_path)

    assert failed.value.failure.code is FailureCode.VALIDATION_ERROR


def test_a_store_may_be_a_directory_for_whoever_tries_a_pod_by_hand() -> None:
    store = '{"kind":"directory","root":"/objects"}'

    handed = read_environment(environment(**{pod.STORE: store, pod.CREDENTIALS_VARIABLE: None}))

    assert handed.store == DirectoryStore(root="/objects")


def _spec(**changes: str | None):
    return read_environment(environment(**{pod.JOB_SPEC: json.dumps({**SPEC, **changes})})).spec


def _model(cache: Path):
    from cryomamba_crds.task import ModelReference

    return ModelReference(name="membranes", key="k", card=CARD, cache=str(cache))
