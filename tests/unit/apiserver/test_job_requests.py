"""Creating, listing and cancelling jobs over HTTP: retries, pages, refusals."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.ports.job_store import JobStatus
from support.server_data import job_request
from support.volume_files import nifti
from support.waiting import until


@pytest.fixture
def file_id(upload, emd_3197) -> str:
    return upload(emd_3197).json()["file_id"]


@pytest.fixture
def submit(server, token, file_id):
    tokens = {who: token(who) for who in ("ada", "bob")}

    def post(key: str | None = None, owner: str = "ada", **fields):
        headers = {"Authorization": f"Bearer {tokens[owner]}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        return server.post("/v1/jobs", json={"file_id": file_id, "model": "demo", **fields}, headers=headers)

    return post


@pytest.fixture
def waiting(script, tmp_path):
    """Jobs run until the test says go."""
    script.write_text(f"wait={tmp_path / 'go'} result")
    return tmp_path / "go"


@pytest.fixture
def queued(server, context):
    """Creates so many jobs of ada's without files; their ids in the order of their creation."""
    numbers = itertools.count()

    def create(count: int, owner: str = "ada") -> list[str]:
        async def insert() -> list[str]:
            requests = [job_request(f"file_{next(numbers)}", owner) for _ in range(count)]
            return [(await context.job_store.create(request)).job_id for request in requests]

        return server.portal.call(insert)

    return create


def test_a_retry_is_answered_as_the_first_time_and_creates_nothing(submit, ada, waiting):
    first = submit("8e03978e-40d5-43dd-bc93-6894a57f9324")
    until(lambda: ada.get(f"/v1/jobs/{first.json()['job_id']}").json()["status"] == "running")

    again = submit("8e03978e-40d5-43dd-bc93-6894a57f9324")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert ada.get("/v1/jobs").json()["total"] == 1


def test_a_retry_of_a_job_that_has_ended_does_not_run_it_again(submit, ada):
    first = submit("key").json()
    until(lambda: ada.get(f"/v1/jobs/{first['job_id']}").json()["status"] == "completed")

    assert submit("key").json() == first
    assert submit().json()["job_id"] != first["job_id"]


def test_defaults_that_are_spelt_out_make_no_other_request(submit):
    first = submit("key")

    assert submit("key", params={"step_size": 0.5, "folds": "all"}).content == first.content


def test_a_key_for_another_request_is_a_conflict(submit, ada, waiting):
    submit("key")

    answer = submit("key", params={"step_size": 0.7})

    assert answer.status_code == 409
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("CONFLICT", {"field": "header.Idempotency-Key"})
    assert "new key" in error["hint"]
    assert ada.get("/v1/jobs").json()["total"] == 1


def test_the_same_request_with_another_key_is_the_same_job(submit, waiting):
    first = submit("key").json()["job_id"]

    answer = submit("another-key")

    assert (answer.status_code, answer.json()["error"]["details"]) == (409, {"job_id": first})


@pytest.mark.parametrize("key", ["", "k" * 129, "with space", "tab\t", "quarter\xbc"])
def test_a_key_that_is_too_long_or_not_plain_is_refused(submit, key):
    answer = submit(key.encode("latin-1"))

    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == "header.Idempotency-Key"


def test_the_longest_key_is_taken(submit):
    assert submit("k" * 128).status_code == 201


def test_retries_at_the_same_moment_create_one_job(submit, ada, waiting):
    together = threading.Barrier(8)

    def send(_: int):
        together.wait()
        return submit("key")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(send, range(8)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert ada.get("/v1/jobs").json()["total"] == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 7


def test_retries_at_the_same_moment_count_as_one_job(server, context, submit, ada, waiting):
    test_retries_at_the_same_moment_create_one_job(submit, ada, waiting)

    counted = server.portal.call(context.limits._own.windows.get, "jobs:ada")

    assert counted == 1


def test_a_full_queue_says_when_to_come_back(start, queued_by):
    with start(max_queued_jobs=1) as client:
        answer = queued_by(client)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "60"
    assert answer.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
    assert answer.json()["error"]["retryable"] is True


@pytest.fixture
def queued_by(emd_3197, waiting):
    """Fills a server's queue of one and returns the answer to a further job."""

    def fill(client):
        issued = client.app.state.context.authority.issue("ada", frozenset(Scope), timedelta(hours=1))
        client.headers["Authorization"] = f"Bearer {issued}"
        sizes = {"total_size": len(emd_3197), "chunk_size": 5 << 20}
        begun = client.post("/v1/uploads/init", json={"filename": "volume.mrc", **sizes}).json()
        etag = client.put(begun["chunk_urls"][0], content=emd_3197).json()["etag"]
        parts = {"parts": [{"part_number": 0, "etag": etag}]}
        file_id = client.post(f"/v1/uploads/{begun['upload_id']}/complete", json=parts).json()["file_id"]

        def create(step: float):
            body = {"file_id": file_id, "model": "demo", "params": {"step_size": step}}
            return client.post("/v1/jobs", json=body)

        first = create(0.5).json()["job_id"]
        until(lambda: client.get(f"/v1/jobs/{first}").json()["status"] == "running")
        assert create(0.6).status_code == 201
        return create(0.7)

    return fill


@pytest.mark.parametrize("status", ["queued", "running", "completed", "failed", "cancelled"])
def test_jobs_are_listed_by_each_status(server, context, ada, queued, waiting, status):
    waiting.touch()
    job_id, _ = queued(2)
    until(lambda: ada.get("/v1/jobs", params={"status": "completed"}).json()["total"] == 2)
    server.portal.call(context.job_store._call, set_status, context.job_store._table, status, job_id)

    listed = ada.get("/v1/jobs", params={"status": status}).json()

    assert job_id in [job["job_id"] for job in listed["jobs"]]
    assert {job["status"] for job in listed["jobs"]} == {status}
    assert listed["total"] == len(listed["jobs"]) == (2 if status == "completed" else 1)


def set_status(table: JobTable, status: str, job_id: str) -> None:
    with table._database as database:
        row = {"status": status, "job_id": job_id}
        database.execute(
            "UPDATE jobs SET status = :status, record = json_set(record, '$.status', :status) WHERE job_id = :job_id",
            row,
        )


def test_an_unknown_status_is_answered_with_those_that_there_are(ada):
    answer = ada.get("/v1/jobs", params={"status": "done"})

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["details"]["field"] == "query.status"
    assert all(status.value in error["message"] for status in JobStatus)


def test_following_the_links_shows_every_old_job_once_while_jobs_are_added(ada, queued, waiting):
    old = queued(7)
    seen: list[str] = []
    page = ada.get("/v1/jobs", params={"limit": 2})
    seen += [job["job_id"] for job in page.json()["jobs"]]
    while "next" in page.links:
        queued(3)
        page = ada.get(page.links["next"]["url"])
        seen += [job["job_id"] for job in page.json()["jobs"]]

    assert seen == old[::-1]


def test_offsets_skip_no_old_job_while_jobs_are_added(ada, queued, waiting):
    old = queued(7)
    seen: list[str] = []
    for offset in itertools.count(step=2):
        page = ada.get("/v1/jobs", params={"limit": 2, "offset": offset}).json()
        if not page["jobs"]:
            break
        seen += [job["job_id"] for job in page["jobs"]]
        if offset < 6:
            queued(1)

    assert [job_id for job_id in dict.fromkeys(seen) if job_id in old] == old[::-1]


def test_a_link_keeps_to_the_filter_and_the_limit(ada, queued, waiting):
    waiting.touch()
    queued(4)
    until(lambda: ada.get("/v1/jobs", params={"status": "completed"}).json()["total"] == 4)

    page = ada.get("/v1/jobs", params={"status": "completed", "limit": 3})

    assert page.links["next"]["url"].startswith("/v1/jobs?status=completed&limit=3&before=job_")
    last = ada.get(page.links["next"]["url"])
    assert len(last.json()["jobs"]) == 1
    assert (last.json()["total"], last.json()["limit"]) == (4, 3)
    assert "link" not in last.headers


def test_a_page_after_a_job_that_is_not_there_or_not_ones_own_is_refused(ada, queued, waiting):
    (bobs,) = queued(1, "bob")

    for before in ("job_aaaaaaaaaaaa", bobs):
        answer = ada.get("/v1/jobs", params={"before": before})
        assert answer.status_code == 400
        assert answer.json()["error"]["details"] == {"field": "query.before"}


def test_cancelling_again_is_answered_as_the_first_time(submit, ada, waiting):
    job_id = submit().json()["job_id"]

    first, again = ada.delete(f"/v1/jobs/{job_id}"), ada.delete(f"/v1/jobs/{job_id}")

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert again.json()["status"] == "cancelled"


def test_a_failed_job_cannot_be_cancelled(submit, ada, script):
    script.write_text("fail")
    job_id = submit().json()["job_id"]
    until(lambda: ada.get(f"/v1/jobs/{job_id}").json()["status"] == "failed")

    answer = ada.delete(f"/v1/jobs/{job_id}")

    assert (answer.status_code, answer.json()["error"]["details"]) == (409, {"status": "failed"})


def test_a_job_that_is_not_there_cannot_be_cancelled(ada):
    assert ada.delete("/v1/jobs/job_aaaaaaaaaaaa").status_code == 404


def test_a_file_of_several_channels_is_refused_where_the_model_takes_one(upload, submit):
    volume = upload(nifti(dim=(4, 5, 4, 3, 2, 1, 1, 1)), "pair.nii").json()

    answer = submit(file_id=volume["file_id"])

    assert volume["metadata"]["shape"] == [5, 4, 3]
    assert volume["metadata"]["channels"] == 2
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("VALIDATION_ERROR", False)
    assert error["message"] == "volume: it has 2 channels and the model takes one channel (density)"
    assert "file of its own" in error["hint"]


def test_a_file_of_one_channel_is_refused_where_the_model_takes_two(server, context, submit):
    model = server.portal.call(context.catalogue.get, "demo")
    # A model with two channels, as far as the server knows.
    context.catalogue._facts[model.card.digest] = replace(model.facts, channel_names=("even", "odd"))

    answer = submit()

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"] == "volume: it has one channel and the model takes 2 channels (even, odd)"
    assert "4D NIfTI file, in this order: even, odd" in error["hint"]
    assert error["details"] == {"field": "channels", "channels": 1, "model_channels": ["even", "odd"]}
