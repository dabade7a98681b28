"""Jobs, from request to result, with a stub in place of the runner."""

import asyncio
import hashlib
import io
import json
import os
import pickle
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnect

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.adapters.local_jobs import LocalJobStore, LocalProfile
from cryomamba_apiserver.adapters.opening import RunnerStore
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.jobs.live import LiveJobs
from cryomamba_apiserver.ports.job_store import JobRecord, JobStatus
from cryomamba_apiserver.ports.object_store import StorageFullError
from cryomamba_crds import keys
from cryomamba_crds.report import Progress
from cryomamba_crds.task import DirectoryStore
from support.server_data import A6000, job_record, job_request
from support.waiting import processes_with, until


@pytest.fixture
def file_id(upload, emd_3197) -> str:
    return upload(emd_3197).json()["file_id"]


@pytest.fixture
def submit(ada, file_id):
    def post(client=ada, **fields):
        return client.post("/v1/jobs", json={"file_id": file_id, "model": "demo", **fields})

    return post


@pytest.fixture
def status(ada):
    return lambda job_id: ada.get(f"/v1/jobs/{job_id}").json()["status"]


def messages(server, job_id: str, token: str) -> list[dict]:
    """All messages of a job's socket, to its end."""
    with server.websocket_connect(f"/ws/jobs/{job_id}?token={token}") as socket:
        return rest(socket)


def rest(socket) -> list[dict]:
    """The messages that a socket still brings, to its end."""
    received: list[dict] = []
    code = None
    while code is None:
        try:
            received.append(socket.receive_json())
        except WebSocketDisconnect as end:
            code = end.code
    assert code == 1000
    return received


def test_a_new_job_is_answered_with_every_field_of_the_reference(submit, file_id, clock):
    answer = submit()

    assert answer.status_code == 201
    body = answer.json()
    assert body.pop("job_id").startswith("job_")
    assert body.pop("queue_position") in (0, 1)  # it may have begun already
    assert body == {
        "status": "queued",
        "file_id": file_id,
        "model": "demo",
        "created_at": clock.wire(),
        "estimated_duration_seconds": None,
    }


def test_a_job_runs_to_its_end_and_its_result_is_downloaded(submit, status, ada, server, clock):
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "completed")

    body = ada.get(f"/v1/jobs/{job_id}").json()

    assert body["progress"] == {
        "current_step": 3,
        "total_steps": 5,
        "percentage": 50,
        "message": "Processing tile 1/2",
    }
    assert body["params"]["step_size"] == 0.5
    assert {"created_at", "started_at", "completed_at", "updated_at"} <= set(body)
    (artifact,) = body["artifacts"]
    assert (artifact["name"], artifact["size"]) == ("segmentation.mrc", 6)
    download = server.get(artifact["url"])
    assert download.status_code == 200
    assert download.content == b"labels"
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["content-disposition"] == 'attachment; filename="segmentation.mrc"'


def test_the_socket_tells_progress_previews_and_the_end(submit, script, server, token):
    script.write_text("progress=10 preview=1 gpu progress=60 result")
    job_id = submit().json()["job_id"]

    received = messages(server, job_id, token())

    assert {message["job_id"] for message in received} == {job_id}
    kinds = [message["type"] for message in received]
    assert kinds[-1] == "completed"
    previews = [message["preview"] for message in received if message["type"] == "preview"]
    assert previews[-1] == {
        "scale": 4,
        "shape": [5, 5, 5],
        "dtype": "uint8",
        "slice_idx": 2,
        "encoding": "base64",
        "data": "UE5HIDE=",
    }
    progress = [message["progress"]["percentage"] for message in received if message["type"] == "progress"]
    assert progress[-1] == 60
    assert received[-1]["statistics"] == {
        "label_counts": {"1": 6},
        "physical_volume_nm3": {"1": 6.0},
        "surface_area_nm2": {"1": 12.0},
    }
    assert server.get(received[-1]["artifacts"][0]["url"]).content == b"labels"


def test_a_socket_that_comes_late_is_told_the_end_at_once(submit, status, server, token):
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "completed")

    assert [message["type"] for message in messages(server, job_id, token())] == ["progress", "completed"]


def test_a_failed_job_says_why(submit, status, script, ada, server, token):
    script.write_text("progress=10 fail")
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "failed")

    error = {"code": "INFERENCE_ERROR", "message": "It broke.", "hint": "Mend it.", "retryable": False, "details": {}}
    assert ada.get(f"/v1/jobs/{job_id}").json()["error"] == error
    last = messages(server, job_id, token())[-1]
    assert (last["type"], last["error"]) == ("error", error)


@pytest.mark.parametrize(
    ("script_text", "code", "words"),
    [
        ("kill", "OUT_OF_MEMORY", "was killed"),
        ("exit=3", "INTERNAL_ERROR", "ended with code 3"),
        ("progress=10", "INTERNAL_ERROR", "gave no result"),
        ("nonsense", "INTERNAL_ERROR", "ended with code 1"),
    ],
)
def test_a_runner_that_ends_without_a_word_is_explained(submit, status, script, ada, script_text, code, words):
    script.write_text(script_text)
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "failed")

    error = ada.get(f"/v1/jobs/{job_id}").json()["error"]

    assert error["code"] == code
    assert words in error["message"]
    assert error["hint"]


def test_one_job_runs_at_a_time_and_the_others_wait_in_their_order(submit, status, script, tmp_path):
    script.write_text(f"wait={tmp_path / 'go'} result")
    first = submit(params={"step_size": 0.5}).json()
    until(lambda: status(first["job_id"]) == "running")
    second, third = submit(params={"step_size": 0.6}).json(), submit(params={"step_size": 0.7}).json()

    assert (second["queue_position"], third["queue_position"]) == (1, 2)
    assert (status(second["job_id"]), status(third["job_id"])) == ("queued", "queued")
    (tmp_path / "go").touch()
    until(lambda: status(third["job_id"]) == "completed")
    assert status(second["job_id"]) == "completed"


def test_a_running_job_is_cancelled_with_all_its_processes(submit, status, script, ada, tmp_path):
    script.write_text(f"deaf child touch={tmp_path / 'deaf'} wait={tmp_path / 'never'}")
    job_id = submit().json()["job_id"]
    until((tmp_path / "deaf").exists)

    answer = ada.delete(f"/v1/jobs/{job_id}")

    assert answer.status_code == 200
    assert answer.json() == {"job_id": job_id, "status": "cancelled", "message": "Job cancelled successfully"}
    assert status(job_id) == "cancelled"
    assert processes_with(str(script)) == []


def test_after_a_cancellation_the_next_job_runs(submit, status, script, ada, tmp_path):
    script.write_text(f"touch={tmp_path / 'up'} wait={tmp_path / 'go'} result")
    first = submit().json()["job_id"]
    until((tmp_path / "up").exists)
    second = submit(params={"step_size": 0.6}).json()["job_id"]

    ada.delete(f"/v1/jobs/{first}")
    (tmp_path / "go").touch()

    until(lambda: status(second) == "completed")
    assert status(first) == "cancelled"


def test_a_queued_job_that_is_cancelled_never_runs(submit, status, script, ada, tmp_path):
    script.write_text(f"wait={tmp_path / 'go'} result")
    first = submit().json()["job_id"]
    until(lambda: status(first) == "running")
    second = submit(params={"step_size": 0.6}).json()["job_id"]

    assert ada.delete(f"/v1/jobs/{second}").status_code == 200
    (tmp_path / "go").touch()

    until(lambda: status(first) == "completed")
    assert "started_at" not in ada.get(f"/v1/jobs/{second}").json()


def test_a_cancelled_jobs_socket_is_told(submit, status, script, ada, server, token, tmp_path):
    script.write_text(f"wait={tmp_path / 'never'}")
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "running")
    ada.delete(f"/v1/jobs/{job_id}")

    last = messages(server, job_id, token())[-1]

    assert last["type"] == "error"
    assert last["error"]["message"] == "The job was cancelled."


def test_a_job_that_has_ended_cannot_be_cancelled(submit, status, ada):
    job_id = submit().json()["job_id"]
    until(lambda: status(job_id) == "completed")

    answer = ada.delete(f"/v1/jobs/{job_id}")

    assert answer.status_code == 409
    assert answer.json()["error"]["details"] == {"status": "completed"}


def test_the_same_job_twice_is_a_conflict_that_names_the_first(submit, status, script, tmp_path):
    script.write_text(f"wait={tmp_path / 'never'}")
    first = submit().json()["job_id"]

    answer = submit()

    assert answer.status_code == 409
    assert answer.json()["error"]["details"] == {"job_id": first}


def test_the_second_job_of_a_model_is_estimated_from_the_first(submit, status):
    until_done = submit().json()["job_id"]
    until(lambda: status(until_done) == "completed")

    # 20 x 20 x 20 voxels fit into one patch, and the stub says that a tile takes 2 s.
    assert submit().json()["estimated_duration_seconds"] == 2


@pytest.mark.parametrize(
    ("fields", "status_code", "field"),
    [
        ({"model": "3d_fullres"}, 400, "model"),
        ({"model": "../demo"}, 400, "model"),
        ({"params": {"folds": [0]}}, 400, "params.folds"),
        ({"params": {"folds": []}}, 400, "params.folds"),
        ({"params": {"step_size": 0.05}}, 400, "body.params.step_size"),
        ({"params": {"step_size": 1.5}}, 400, "body.params.step_size"),
        ({"params": {"step_size": 0.333}}, 400, "body.params.step_size"),
        ({"params": {"folds": list(range(11))}}, 400, "body.params.folds"),
        ({"params": {"voxel_size": [1, 0, 1]}}, 400, "body.params.voxel_size.1"),
        ({"params": {"voxel_size": [1, 1, 1.23456789012]}}, 400, "body.params.voxel_size"),
        ({"params": {"voxel_size": [1, 1, 1e6]}}, 400, "body.params.voxel_size"),
        ({"params": {"object_table": 2}}, 400, "body.params.object_table"),
        ({"params": {"tta": True}}, 400, "body.params.tta"),
        ({"preview_config": {"downsample_factor": 0}}, 400, "body.preview_config.downsample_factor"),
    ],
)
def test_a_wrong_request_is_refused_by_field(submit, fields, status_code, field):
    answer = submit(**fields)

    assert answer.status_code == status_code
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"]["field"] == field


def test_what_arithmetic_makes_of_a_percentage_is_that_percentage(submit, ada):
    job_id = submit(params={"step_size": 0.1 + 0.2}).json()["job_id"]

    assert ada.get(f"/v1/jobs/{job_id}").json()["params"]["step_size"] == 0.3


def test_an_unknown_model_is_answered_with_what_there_is(submit):
    error = submit(model="3d_fullres").json()["error"]

    assert error["details"]["available_models"] == ["demo"]
    assert "demo" in error["hint"]


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch cryomamba-was-here",)


def with_os_system(archive: zipfile.ZipFile, name: str) -> bytes:
    """plans.json, asking for os.system as the network's nonlinearity."""
    content = archive.read(name)
    return content.replace(b'"torch.nn.LeakyReLU"', b'"os.system"') if name.endswith("plans.json") else content


def with_evil_pickle(archive: zipfile.ZipFile, name: str) -> bytes:
    """The checkpoint, its pickle replaced by one that runs a command."""
    content = archive.read(name)
    if not name.endswith(".pth"):
        return content
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as inner, zipfile.ZipFile(changed, "w") as outer:
        for entry in inner.namelist():
            outer.writestr(entry, pickle.dumps(RunsCode()) if entry.endswith("data.pkl") else inner.read(entry))
    return changed.getvalue()


@pytest.mark.parametrize(("spoil", "field"), [(with_os_system, "nonlin"), (with_evil_pickle, "checkpoint_final.pth")])
def test_a_model_that_would_run_code_is_refused_by_field_and_the_server_goes_on(
    submit, context, tmp_path, monkeypatch, spoil, field
):
    monkeypatch.chdir(tmp_path)
    models = context.objects.root / "models"
    changed = io.BytesIO()
    card = json.loads((models / "demo" / "model.json").read_text())
    with (
        zipfile.ZipFile(context.objects.root / keys.model_archive("demo", card["digest"])) as good,
        zipfile.ZipFile(changed, "w") as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, spoil(good, name))
    (models / "evil").mkdir()
    digest = "sha256:" + hashlib.sha256(changed.getvalue()).hexdigest()
    (context.objects.root / keys.model_archive("evil", digest)).write_bytes(changed.getvalue())
    (models / "evil" / "model.json").write_text(json.dumps({**card, "digest": digest}))

    answer = submit(model="evil")

    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert field in error["details"]["field"]
    assert not Path("cryomamba-was-here").exists()
    assert submit().status_code == 201


@pytest.mark.parametrize("file_id", ["file_aaaaaaaaaaaa", "../../secret", "x"])
def test_an_unknown_file_is_not_found(ada, file_id):
    answer = ada.post("/v1/jobs", json={"file_id": file_id, "model": "demo"})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"


def test_what_belongs_to_somebody_else_is_not_there(submit, status, bob, server, token, file_id):
    job_id = submit().json()["job_id"]

    assert bob.get(f"/v1/jobs/{job_id}").status_code == 404
    assert bob.delete(f"/v1/jobs/{job_id}").status_code == 404
    assert bob.get("/v1/jobs").json()["total"] == 0
    assert submit(client=bob).status_code == 404
    assert refusal(server, job_id, token("bob")) == 4404
    until(lambda: status(job_id) == "completed")


def test_an_administrator_sees_everybodys(submit, server, token):
    job_id = submit().json()["job_id"]

    answer = server.get("/v1/jobs", headers={"Authorization": f"Bearer {token('root', 'admin')}"})

    assert [job["job_id"] for job in answer.json()["jobs"]] == [job_id]


def refusal(server, job_id: str, token: str | None) -> int:
    """The code with which a socket is closed."""
    query = "" if token is None else f"?token={token}"
    with server.websocket_connect(f"/ws/jobs/{job_id}{query}") as socket, pytest.raises(WebSocketDisconnect) as closed:
        socket.receive_json()
    return closed.value.code


def test_a_socket_without_a_good_token_or_job_is_closed_with_a_code(submit, server, token):
    job_id = submit().json()["job_id"]

    assert refusal(server, job_id, None) == 4401
    assert refusal(server, job_id, "nonsense") == 4401
    assert refusal(server, job_id, token("ada", "write")) == 4403
    assert refusal(server, "job_aaaaaaaaaaaa", token()) == 4404


@pytest.mark.parametrize("how", ["authorization", "subprotocol"])
def test_a_socket_takes_its_token_outside_the_url_too(submit, server, token, how):
    job_id = submit().json()["job_id"]
    headers = {"Authorization": f"Bearer {token()}"} if how == "authorization" else {}
    offered = [f"bearer.{token()}"] if how == "subprotocol" else []

    with server.websocket_connect(f"/ws/jobs/{job_id}", subprotocols=offered, headers=headers) as socket:
        assert rest(socket)[-1]["type"] == "completed"


def test_a_ping_is_answered(submit, server, token, script, tmp_path, clock):
    script.write_text(f"wait={tmp_path / 'go'} result")
    job_id = submit().json()["job_id"]

    with server.websocket_connect(f"/ws/jobs/{job_id}?token={token()}") as socket:
        socket.send_text("no JSON")
        socket.send_text("[" * 100_000)
        socket.send_bytes(b"ping")
        socket.send_json({"type": "ping"})
        answer = socket.receive_json()
        (tmp_path / "go").touch()
        rest(socket)

    assert answer == {"type": "pong", "timestamp": clock.wire()}


def test_lists_are_newest_first_and_come_in_pages(submit, status, ada):
    jobs = [submit(params={"step_size": step}).json()["job_id"] for step in (0.3, 0.4, 0.5)]
    until(lambda: status(jobs[-1]) == "completed")

    page = ada.get("/v1/jobs", params={"limit": 2, "offset": 1, "status": "completed"}).json()

    assert [job["job_id"] for job in page["jobs"]] == [jobs[1], jobs[0]]
    assert set(page["jobs"][0]) == {"job_id", "status", "created_at", "completed_at"}
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
    assert ada.get("/v1/jobs", params={"limit": 101}).status_code == 400
    assert ada.get("/v1/jobs", params={"status": "paused"}).status_code == 400


def test_a_full_queue_is_told_with_when_to_come_back(start, script, tmp_path, emd_3197):
    script.write_text(f"wait={tmp_path / 'never'}")
    with start(max_queued_jobs=1) as client:
        ada = authorised(client)
        file_id = uploaded(client, emd_3197, ada)
        first = client.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}, headers=ada).json()["job_id"]
        until(lambda: client.get(f"/v1/jobs/{first}", headers=ada).json()["status"] == "running")
        other = {"file_id": file_id, "model": "demo", "params": {"step_size": 0.6}}
        client.post("/v1/jobs", json=other, headers=ada)

        answer = client.post("/v1/jobs", json={**other, "params": {"step_size": 0.7}}, headers=ada)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "60"
    assert answer.json()["error"]["retryable"] is True


def authorised(client) -> dict[str, str]:
    from datetime import timedelta

    token = client.app.state.context.authority.issue("ada", frozenset({"read", "write"}), timedelta(hours=1))
    return {"Authorization": f"Bearer {token}"}


def uploaded(client, data: bytes, headers: dict[str, str]) -> str:
    begun = client.post(
        "/v1/uploads/init", json={"filename": "a.map", "total_size": len(data), "chunk_size": 5 << 20}, headers=headers
    ).json()
    part = client.put(begun["chunk_urls"][0], content=data, headers=headers).json()
    parts = {"parts": [{"part_number": 0, "etag": part["etag"]}]}
    return client.post(f"/v1/uploads/{begun['upload_id']}/complete", json=parts, headers=headers).json()["file_id"]


def test_a_job_that_was_running_when_the_server_stopped_runs_again(start, script, tmp_path, emd_3197):
    script.write_text(f"progress=40 touch={tmp_path / 'up'} wait={tmp_path / 'go'} result")
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        job_id = client.post("/v1/jobs", json=body, headers=ada).json()["job_id"]
        until((tmp_path / "up").exists)
    assert processes_with(str(script)) == []
    (tmp_path / "go").touch()

    with start() as client:
        until(lambda: client.get(f"/v1/jobs/{job_id}", headers=ada).json()["status"] == "completed")
        attempts = sorted(path.name for path in (tmp_path / "data" / "logs" / job_id).iterdir())

    assert attempts == ["1", "2"]


def test_a_job_whose_result_was_committed_before_the_server_stopped_is_not_run_again(start, script, tmp_path, emd_3197):
    script.write_text(f"manifest touch={tmp_path / 'up'} wait={tmp_path / 'never'}")
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        job_id = client.post("/v1/jobs", json=body, headers=ada).json()["job_id"]
        until((tmp_path / "up").exists)

    with start() as client:
        until(lambda: client.get(f"/v1/jobs/{job_id}", headers=ada).json()["status"] == "completed")
        (artifact,) = client.get(f"/v1/jobs/{job_id}", headers=ada).json()["artifacts"]
        assert client.get(artifact["url"]).content == b"labels"

    assert os.listdir(tmp_path / "data" / "logs" / job_id) == ["1"]  # noqa: PTH208 - names are what is asked for


def as_if_killed(data_dir: Path, job_id: str) -> None:
    """Leave a job as kill -9 of the server leaves it; an orderly stop puts it back into the queue."""
    table = JobTable(data_dir / "jobs.sqlite", lambda: datetime.now(UTC))
    table.change(job_id, {"status": JobStatus.RUNNING})
    table.close()


def test_a_job_during_which_the_server_is_killed_again_and_again_is_given_up(start, script, tmp_path, emd_3197):
    script.write_text(f"touch={tmp_path / 'up'} wait={tmp_path / 'never'}")
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        job_id = client.post("/v1/jobs", json=body, headers=ada).json()["job_id"]
        until((tmp_path / "up").exists)
    for _ in range(2):
        as_if_killed(tmp_path / "data", job_id)
        (tmp_path / "up").unlink()
        with start():
            until((tmp_path / "up").exists)
    as_if_killed(tmp_path / "data", job_id)

    with start() as client:
        until(lambda: client.get(f"/v1/jobs/{job_id}", headers=ada).json()["status"] == "failed")
        error = client.get(f"/v1/jobs/{job_id}", headers=ada).json()["error"]

    assert "3 times" in error["message"]


def test_an_orderly_stop_is_no_crash(start, script, tmp_path, emd_3197):
    script.write_text(f"touch={tmp_path / 'up'} wait={tmp_path / 'go'} result")
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        job_id = client.post("/v1/jobs", json=body, headers=ada).json()["job_id"]
        until((tmp_path / "up").exists)
    for _ in range(4):
        (tmp_path / "up").unlink()
        with start():
            until((tmp_path / "up").exists)
    (tmp_path / "go").touch()

    with start() as client:
        until(lambda: client.get(f"/v1/jobs/{job_id}", headers=ada).json()["status"] == "completed")


def test_leftovers_of_a_killed_server_are_removed_from_scratch(start, tmp_path):
    left = tmp_path / "data" / "scratch" / "cryomamba-abc" / "inflated-voxels"
    left.parent.mkdir(parents=True)
    left.touch()

    with start():
        assert not left.exists()


def gpus(count: int) -> GpuInventory:
    return GpuInventory("12.1", tuple(replace(A6000, index=index) for index in range(count)))


def test_as_many_jobs_run_at_once_as_there_are_gpus_each_on_its_own(start, script, tmp_path, emd_3197):
    script.write_text(f"environment={tmp_path} wait={tmp_path / 'go'} result")
    with start(gpus=gpus(2)) as client:
        ada = authorised(client)
        file_id = uploaded(client, emd_3197, ada)
        for step in (0.5, 0.6, 0.7):
            body = {"file_id": file_id, "model": "demo", "params": {"step_size": step}}
            client.post("/v1/jobs", json=body, headers=ada)
        until(lambda: len(list(tmp_path.glob("job_*.environment"))) == 2)

        running = client.get("/v1/jobs", params={"status": "running"}, headers=ada).json()["total"]
        seen = [json.loads(path.read_text()) for path in tmp_path.glob("job_*.environment")]
        (tmp_path / "go").touch()
        until(lambda: client.get("/v1/jobs", params={"status": "completed"}, headers=ada).json()["total"] == 3)

    assert running == 2
    assert sorted(one["CUDA_VISIBLE_DEVICES"] for one in seen) == ["0", "1"]
    assert {one["CUDA_DEVICE_ORDER"] for one in seen} == {"PCI_BUS_ID"}


def test_a_runner_sees_none_of_the_servers_settings(start, script, tmp_path, emd_3197, monkeypatch):
    monkeypatch.setenv("CRYOMAMBA_S3_SECRET", "a secret")
    script.write_text(f"environment={tmp_path} result")
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        client.post("/v1/jobs", json=body, headers=ada)
        until(lambda: list(tmp_path.glob("job_*.environment")))
        (path,) = tmp_path.glob("job_*.environment")

    assert [name for name in json.loads(path.read_text()) if name.startswith("CRYOMAMBA_")] == []


def test_a_job_that_is_cancelled_before_its_task_took_a_step_frees_its_slot(tmp_path):
    """Both table writes may end within one turn of a busy event loop; asyncio then never enters the task."""

    async def story() -> list[int | None]:
        profile = LocalProfile(tmp_path, RunnerStore(DirectoryStore(root=str(tmp_path))), (), max_queued_jobs=9)
        jobs = LocalJobStore(profile, DirectoryObjectStore(tmp_path), lambda: datetime.now(UTC))
        record = await jobs.get((await jobs.create(job_request())).job_id)
        await jobs._start(record)
        await jobs.cancel(record.job_id)  # the task that _start made has not run yet
        free = list(jobs._free_slots)
        await jobs._put_back()
        jobs._table.close()
        return free

    assert asyncio.run(story()) == [None]


def test_how_a_job_ended_is_written_once_the_disk_has_room_again(start, script, tmp_path, emd_3197, monkeypatch):
    monkeypatch.setattr("cryomamba_apiserver.adapters.local_jobs._FULL_DISK_SECONDS", 0.05)
    script.write_text(f"wait={tmp_path / 'go'} fail")
    refused = []

    def full(table: JobTable, job_id: str, changes: dict) -> JobRecord:
        if "failure" in changes and len(refused) < 3:
            refused.append(job_id)
            raise StorageFullError("full")
        return change(table, job_id, changes)

    change = JobTable.change
    with start() as client:
        ada = authorised(client)
        body = {"file_id": uploaded(client, emd_3197, ada), "model": "demo"}
        job_id = client.post("/v1/jobs", json=body, headers=ada).json()["job_id"]
        monkeypatch.setattr(JobTable, "change", full)
        (tmp_path / "go").touch()
        until(lambda: client.get(f"/v1/jobs/{job_id}", headers=ada).json()["status"] == "failed")

    assert refused == [job_id] * 3


def test_another_attempts_result_counts_where_this_one_has_none(submit, status, script):
    script.write_text("manifest fail")
    job_id = submit().json()["job_id"]

    until(lambda: status(job_id) == "completed")


def test_a_reader_that_is_slow_is_told_the_newest_and_not_everything(tmp_path):
    """Of a hundred changes that nobody read, the last progress and the end are what there is to say."""

    class Jobs:
        async def watch(self, job_id: str):
            for percentage in range(1, 101):
                progress = Progress(current_step=3, percentage=percentage, message="Processing")
                yield job_record(job_id, progress=progress)
            yield job_record(job_id, progress=progress, status=JobStatus.CANCELLED)

    async def story() -> list[dict]:
        live = LiveJobs(Jobs(), DirectoryObjectStore(tmp_path), LinkSigner(b"k", timedelta(hours=1)), datetime.now)
        messages = live.messages("job_a")
        first = await anext(messages)
        await live._feeds["job_a"]._task  # all hundred have come by the time this reader looks again
        received = [first, *[message async for message in messages]]
        assert live._feeds == {}
        return [json.loads(message.text) for message in received]

    received = asyncio.run(story())

    assert [message["type"] for message in received] in (["progress", "progress", "error"], ["progress", "error"])
    assert received[-2]["progress"]["percentage"] == 100


def test_sockets_are_closed_with_going_away_when_the_server_stops(submit, server, token, script, tmp_path):
    script.write_text(f"progress=1 wait={tmp_path / 'never'}")
    job_id = submit().json()["job_id"]

    with server.websocket_connect(f"/ws/jobs/{job_id}?token={token()}") as socket:
        socket.receive_json()
        server.portal.call(server.app.state.context.live.close)
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()

    assert closed.value.code == 1012


def test_a_jobs_details_are_as_new_as_what_its_watchers_are_told(submit, script, ada, context, tmp_path, monkeypatch):
    """The disk has what comes first, and not yet what comes next."""
    monkeypatch.setattr("cryomamba_apiserver.adapters.local_jobs._WRITE_SECONDS", 10**6)
    script.write_text(f"progress=1 progress=50 gpu wait={tmp_path / 'never'}")
    job_id = submit().json()["job_id"]

    def told() -> dict:
        return ada.get(f"/v1/jobs/{job_id}").json()

    until(lambda: "gpu_stats" in told())

    assert told()["progress"]["percentage"] == 50
    assert told()["status"] == "running"
    ada.delete(f"/v1/jobs/{job_id}")
    assert told()["status"] == "cancelled"
    assert context.job_store._unwritten == {}


def test_a_job_whose_model_is_there_lists_no_models(submit, context, monkeypatch):
    async def names(_: object) -> list[str]:
        raise AssertionError("all models were listed")

    monkeypatch.setattr(type(context.catalogue), "names", names)

    assert submit().status_code == 201
