"""Several API servers of one installation answer as one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.api_target import Person, error, ok
from support.waiting import until


@pytest.fixture
def adas(serve) -> tuple[Person, Person]:
    """The same person at two servers."""
    one, other = serve(), serve()
    return Person(one, one.ada), Person(other, one.ada)


def at_once(*calls):
    with ThreadPoolExecutor(len(calls)) as threads:
        return [done.result() for done in [threads.submit(call) for call in calls]]


def test_a_job_is_known_to_the_other_server_at_once(adas, small_volume):
    here, there = adas
    file_id = here.upload(small_volume)["file_id"]

    job_id = ok(here.submit(file_id), 201)["job_id"]

    assert there.job(job_id) == here.job(job_id)


def test_two_servers_list_the_same_jobs_in_the_order_of_their_creation(adas, small_volume):
    here, there = adas
    file_id = here.upload(small_volume)["file_id"]
    steps = (0.5, 0.6, 0.7, 0.8)
    made = [
        ok(adas[number % 2].submit(file_id, params={"step_size": step}), 201)["job_id"]
        for number, step in enumerate(steps)
    ]

    def listed(who: Person) -> list[str]:
        return [job["job_id"] for job in ok(who.get("/v1/jobs"))["jobs"]]

    until(lambda: listed(here) == listed(there) == made[::-1])


def test_a_request_sent_to_both_servers_under_one_key_makes_one_job(adas, small_volume, kube):
    file_id = adas[0].upload(small_volume)["file_id"]
    body = {"file_id": file_id, "model": "demo"}
    headers = {"Idempotency-Key": "a-key"}

    answers = at_once(*[lambda who=who: who.post("/v1/jobs", json=body, headers=headers) for who in adas * 3])

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(kube.jobs()) == 1


def test_a_key_that_was_used_for_another_request_is_refused_by_the_other_server(adas, small_volume):
    here, there = adas
    file_id = here.upload(small_volume)["file_id"]
    headers = {"Idempotency-Key": "a-key"}
    ok(here.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}, headers=headers), 201)

    answer = there.post(
        "/v1/jobs", json={"file_id": file_id, "model": "demo", "params": {"step_size": 0.7}}, headers=headers
    )

    assert error(answer, 409, "CONFLICT")["details"]["field"] == "header.Idempotency-Key"


def test_the_same_job_asked_for_at_both_servers_at_once_is_made_once(adas, small_volume, kube):
    file_id = adas[0].upload(small_volume)["file_id"]

    answers = at_once(*[lambda who=who: who.submit(file_id) for who in adas * 3])

    (made,) = [answer for answer in answers if answer.status_code == 201]
    refused = [error(answer, 409, "CONFLICT") for answer in answers if answer is not made]
    job_id = made.json()["job_id"]
    assert len(refused) == 5
    assert {failure["details"]["job_id"] for failure in refused} == {job_id}
    until(lambda: len(kube.jobs()) == 1)
    assert kube.jobs()[0]["metadata"]["name"] == job_id.replace("_", "-")


def test_a_job_cancelled_at_one_server_is_cancelled_at_the_other(adas, small_volume):
    here, there = adas
    job_id = ok(here.submit(here.upload(small_volume)["file_id"]), 201)["job_id"]

    with there.socket(job_id) as socket:
        ok(here.delete(f"/v1/jobs/{job_id}"))
        last = socket.recv(timeout=3)

    assert "cancelled" in str(last)
    assert there.job(job_id)["status"] == "cancelled"
