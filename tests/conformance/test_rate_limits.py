"""The limits, the headers on every answer, and the answer to one request too many."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from support.api_target import CHUNK, Person, error, ok

HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture(scope="module")
def few(serve):
    """Somebody on a server that takes three requests a minute from each; nobody else uses it."""
    return serve(requests_per_minute=3)


@pytest.fixture(scope="module")
def refused(few):
    """The answer to a request too many."""
    someone = Person(few, few.ada)
    answers = [someone.get("/v1/jobs") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    return answers[-1]


def test_60_requests_a_minute_are_taken_from_each_subject_by_default(serve):
    target = serve()

    answer = Person(target, target.bob).get("/v1/jobs")

    assert answer.headers["x-ratelimit-limit"] == "60"


def test_the_61st_request_of_a_minute_is_429_by_default(serve):
    target = serve()
    someone = Person(target, target.admin)

    statuses = [someone.get("/v1/server/info").status_code for _ in range(61)]

    assert statuses == [200] * 60 + [429]


def test_requests_are_counted_for_each_subject_apart(few, refused):
    assert Person(few, few.bob).get("/v1/jobs").status_code == 200


def test_parts_of_uploads_are_not_counted_as_requests(few):
    someone = Person(few, few.admin)
    url = someone.begin(8)["chunk_urls"][0]

    statuses = {someone.put(url, content=b"12345678").status_code for _ in range(10)}

    assert statuses == {200}


def test_20_jobs_an_hour_may_be_created_by_default(serve, small_volume):
    target = serve(requests_per_minute=1000)
    someone = Person(target, target.ada)
    file_id = someone.upload(small_volume)["file_id"]

    answers = [someone.submit(file_id, params={"step_size": 0.3 + 0.01 * number}) for number in range(21)]
    for answer in answers[-2::-1]:
        someone.delete(f"/v1/jobs/{answer.json()['job_id']}")

    assert [answer.status_code for answer in answers] == [201] * 20 + [429]
    details = error(answers[-1], 429, "RATE_LIMIT_EXCEEDED")["details"]
    assert (details["limit"], details["window_seconds"]) == (20, 3600)


def test_5_connections_may_watch_jobs_at_a_time_by_default(scripted):
    someone = scripted.ada
    scripted.jobs_do(f"wait={scripted.control / 'never'}")
    job_id = ok(someone.submit(scripted.new_file()), 201)["job_id"]

    with ExitStack() as connections:
        for _ in range(5):
            connections.enter_context(someone.socket(job_id)).ping().wait(30)
        with someone.socket(job_id) as sixth, pytest.raises(ConnectionClosed) as closed:
            sixth.recv(timeout=30)
    ok(someone.delete(f"/v1/jobs/{job_id}"))

    assert closed.value.rcvd.code == 4429


def test_10_parts_may_be_uploaded_at_a_time_by_default(serve):
    target = serve(requests_per_minute=1000)
    someone = Person(target, target.ada)
    begun = someone.begin(11 * CHUNK)
    all_begun, go_on = threading.Barrier(11), threading.Event()

    def slowly():
        yield bytes(CHUNK - 1)
        all_begun.wait(60)
        assert go_on.wait(60)
        yield b"\0"

    def put(url):
        headers = {"Content-Length": str(CHUNK), "Authorization": f"Bearer {target.ada}"}
        return httpx.put(target.url + url, content=slowly(), headers=headers, timeout=60)

    with ThreadPoolExecutor(10) as senders:
        sent = [senders.submit(put, url) for url in begun["chunk_urls"][:10]]
        all_begun.wait(60)
        eleventh = in_flight_refusal(someone, begun["chunk_urls"][10])
        go_on.set()

    assert [answer.result().status_code for answer in sent] == [200] * 10
    assert error(eleventh, 429, "RATE_LIMIT_EXCEEDED")["details"]["limit"] == 10
    assert someone.put(begun["chunk_urls"][10], content=bytes(CHUNK)).status_code == 200


def in_flight_refusal(someone, url):
    """Send a part until it is refused: the ten before it may still be on their way to the server."""
    # An empty part is refused with 400 until then, so that none of these is ever held.
    deadline = time.monotonic() + 30
    while (answer := someone.put(url, content=b"")).status_code == 400:
        assert time.monotonic() < deadline, "the eleventh part was not refused"
    return answer


@pytest.mark.parametrize(
    "request_",
    [("GET", "/v1/healthz"), ("GET", "/v1/server/info"), ("GET", "/v1/jobs/job_mno345pqr678"), ("GET", "/v1/nothing")],
)
@pytest.mark.parametrize("who", ["ada", "stranger"])
def test_every_answer_has_the_three_headers(request, request_, who):
    answer = request.getfixturevalue(who).request(*request_)

    limit, remaining, reset = (int(answer.headers[name]) for name in HEADERS)

    assert 0 <= remaining <= limit
    assert abs(reset - time.time()) < 120


def test_a_downloads_answer_has_the_three_headers(ada, completed):
    artifact = ada.job(completed.job_id)["artifacts"][0]

    answer = httpx.get(ada.target.url + artifact["url"])

    assert set(HEADERS) <= set(answer.headers)


def test_remaining_falls_with_each_request(ada):
    first, second = (int(ada.get("/v1/jobs").headers["x-ratelimit-remaining"]) for _ in range(2))

    assert second == first - 1 or second > first  # a new minute has begun


def test_reset_is_a_time_in_unix_seconds(ada):
    reset = int(ada.get("/v1/jobs").headers["x-ratelimit-reset"])

    assert -5 <= reset - time.time() <= 65


def test_one_request_too_many_is_429_in_the_envelope_and_retryable(refused):
    assert error(refused, 429, "RATE_LIMIT_EXCEEDED")["retryable"] is True


def test_one_request_too_many_is_told_in_the_words_of_the_reference(refused):
    failure = error(refused, 429, "RATE_LIMIT_EXCEEDED")

    assert failure["message"].startswith("Rate limit exceeded")
    assert failure["hint"] == "Please wait before making more requests"


def test_the_details_of_429_are_limit_window_and_wait_in_seconds(refused):
    details = error(refused, 429, "RATE_LIMIT_EXCEEDED")["details"]

    assert set(details) == {"limit", "window_seconds", "retry_after_seconds"}
    assert details["limit"] == 3
    assert details["window_seconds"] == 60
    assert 1 <= details["retry_after_seconds"] <= 60


def test_429_says_in_its_headers_when_to_come_again(refused):
    details = error(refused, 429, "RATE_LIMIT_EXCEEDED")["details"]

    assert int(refused.headers["retry-after"]) == details["retry_after_seconds"]
    assert refused.headers["x-ratelimit-remaining"] == "0"
