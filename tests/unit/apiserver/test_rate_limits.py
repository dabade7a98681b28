"""Rate limits over HTTP: who is counted, what is told, what is refused."""

from dataclasses import replace
from datetime import timedelta

import pytest
from starlette.websockets import WebSocketDisconnect

from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.limits.admission import address_of, is_part
from support.redis_server import redis_running
from support.server_data import job_request

PARTS = {"parts": [{"part_number": 0, "etag": "0" * 32}]}
HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def limits(answer):
    return tuple(int(answer.headers[name]) for name in HEADERS)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def issue(client, subject):
    scopes = frozenset({Scope.READ, Scope.WRITE})
    return client.app.state.context.authority.issue(subject, scopes, timedelta(days=1))


def uploaded(client, headers, data):
    begun = client.post(
        "/v1/uploads/init",
        json={"filename": "a.mrc", "total_size": len(data), "chunk_size": 5 * 1024**2},
        headers=headers,
    ).json()
    part = client.put(begun["chunk_urls"][0], content=data, headers=headers).json()
    done = client.post(
        f"/v1/uploads/{begun['upload_id']}/complete",
        json={"parts": [{"part_number": 0, "etag": part["etag"]}]},
        headers=headers,
    )
    return done.json()["file_id"]


@pytest.fixture
def strict(start, clock):
    """Starts a server that allows three requests a minute."""
    with start(requests_per_minute=3) as client:
        yield client


@pytest.fixture
def tokens(strict):
    return lambda subject: issue(strict, subject)


def test_each_request_says_what_is_left_and_when_the_next_window_begins(strict, tokens, clock):
    ends = int(clock.time.timestamp()) + 60

    first = strict.get("/v1/jobs", headers=bearer(tokens("ada")))
    clock.forward(timedelta(seconds=10))
    second = strict.get("/v1/jobs", headers=bearer(tokens("ada")))

    assert limits(first) == (3, 2, ends)
    assert limits(second) == (3, 1, ends)


def test_one_request_too_many_is_refused_until_the_window_ends(strict, tokens, clock):
    ada = bearer(tokens("ada"))
    for _ in range(3):
        assert strict.get("/v1/jobs", headers=ada).status_code == 200
    clock.forward(timedelta(seconds=45))

    refused = strict.get("/v1/jobs", headers=ada)
    clock.forward(timedelta(seconds=15))
    later = strict.get("/v1/jobs", headers=ada)

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "15"
    assert limits(refused)[:2] == (3, 0)
    error = refused.json()["error"]
    assert error == {
        "code": "RATE_LIMIT_EXCEEDED",
        "message": "Rate limit exceeded: 3 requests a minute.",
        "hint": "Please wait before making more requests",
        "retryable": True,
        "details": {"limit": 3, "window_seconds": 60, "retry_after_seconds": 15},
    }
    assert later.status_code == 200
    assert limits(later)[:2] == (3, 2)


def test_who_is_refused_does_not_wait_longer_for_having_tried_again(strict, tokens, clock):
    ada = bearer(tokens("ada"))
    for _ in range(30):
        strict.get("/v1/jobs", headers=ada)
    clock.forward(timedelta(seconds=60))

    assert strict.get("/v1/jobs", headers=ada).status_code == 200


def test_a_subject_is_counted_whichever_of_its_tokens_it_sends_and_others_are_not_touched(strict, tokens):
    for _ in range(3):
        strict.get("/v1/jobs", headers=bearer(tokens("ada")))

    assert strict.get("/v1/jobs", headers=bearer(tokens("ada"))).status_code == 429
    assert strict.get("/v1/jobs", headers=bearer(tokens("bob"))).status_code == 200


@pytest.mark.parametrize("headers", [{}, bearer("nonsense"), {"Authorization": "Basic abc"}])
def test_without_a_valid_token_the_address_is_counted(strict, tokens, headers):
    answers = [strict.get("/v1/jobs", headers=headers) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert strict.get("/v1/jobs", headers=bearer(tokens("ada"))).status_code == 200


@pytest.mark.parametrize("url", ["/v1/nothing", "/openapi.json", "/v1/files/job_a/segmentation.mrc?token=x&expires=1"])
def test_what_needs_no_token_is_limited_by_address_as_well(strict, url):
    answers = [strict.get(url) for _ in range(4)]

    assert [limits(answer)[1] for answer in answers] == [2, 1, 0, 0]
    assert answers[3].status_code == 429


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("GET", "/v1/jobs", 200),
        ("GET", "/v1/healthz", 200),
        ("GET", "/v1/nothing", 404),
        ("PATCH", "/v1/jobs", 405),
        ("POST", "/v1/jobs", 415),
        ("GET", "/v1/jobs/job_aaaaaaaaaaaa", 404),
        ("PUT", "/v1/uploads/upl_aaaaaaaaaaaa/part/0", 404),
    ],
)
def test_the_headers_are_on_every_answer(strict, tokens, method, url, status):
    answer = strict.request(method, url, content=b"{", headers=bearer(tokens("ada")))

    assert answer.status_code == status
    assert limits(answer)[0] == 3


def test_an_unexpected_error_has_the_headers_as_well(strict, tokens, monkeypatch):
    def broken():
        raise RuntimeError

    context = strict.app.state.context
    monkeypatch.setattr(strict.app.state, "context", replace(context, read_gpus=broken))

    answer = strict.get("/v1/gpu/status", headers=bearer(tokens("ada")))

    assert answer.status_code == 500
    assert limits(answer)[:2] == (3, 2)


def test_a_subject_that_is_called_like_an_address_does_not_count_for_it(strict, tokens):
    for _ in range(4):
        strict.get("/v1/jobs", headers=bearer(tokens("ip:testclient")))

    assert strict.get("/v1/nothing").status_code == 404


def test_downloads_by_a_good_link_are_not_counted_whoever_shares_the_address(strict):
    context = strict.app.state.context

    async def made():
        return (await context.job_store.create(job_request())).job_id

    job_id = strict.portal.call(made)
    good = context.signer.link(job_id, "gone.mrc", "ada", context.now())
    for _ in range(5):
        strict.get("/v1/nothing")

    answers = [strict.get(good) for _ in range(10)]
    bad = [strict.get(f"{good}0").status_code for _ in range(4)]

    assert {answer.status_code for answer in answers} == {404}
    assert {limits(answer)[:2] for answer in answers} == {(3, 3)}
    assert bad == [403, 403, 403, 429]


def test_probes_are_never_refused(strict):
    answers = [strict.get("/v1/healthz") for _ in range(10)]

    assert {answer.status_code for answer in answers} == {200}
    assert {limits(answer)[1] for answer in answers} == {3}


def test_parts_of_an_upload_are_not_counted(strict, tokens):
    ada = bearer(tokens("ada"))
    begun = strict.post(
        "/v1/uploads/init",
        json={"filename": "a.mrc", "total_size": 4 * 5 * 1024**2, "chunk_size": 5 * 1024**2},
        headers=ada,
    ).json()

    answers = [strict.put(url, content=bytes(5 * 1024**2), headers=ada) for url in begun["chunk_urls"]]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200]
    assert {limits(answer)[1] for answer in answers} == {2}


def test_a_part_without_a_valid_token_is_counted(strict):
    answers = [strict.put("/v1/uploads/upl_aaaaaaaaaaaa/part/0", content=b"") for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]


def test_the_paths_that_are_not_counted_are_those_of_the_app(server):
    """The middleware knows them by their form, since it runs before the routes do."""
    paths = {
        (method.upper(), path)
        for path, operations in server.get("/openapi.json").json()["paths"].items()
        for method in operations
    }

    assert {(method, path) for method, path in paths if is_part(method, path)} == {
        ("PUT", "/v1/uploads/{upload_id}/part/{part_number}")
    }
    assert ("GET", "/v1/healthz") in paths


def test_jobs_that_were_created_are_limited_by_the_hour(start, emd_3197, clock):
    with start(jobs_per_hour=2) as client:
        ada = bearer(issue(client, "ada"))
        file_id = uploaded(client, ada, emd_3197)

        def submit(**fields):
            return client.post("/v1/jobs", json={"file_id": file_id, "model": "demo", **fields}, headers=ada)

        failed = [submit(model="unknown") for _ in range(3)]
        created = [submit(params={"step_size": step}) for step in (0.5, 0.6)]
        refused = submit(params={"step_size": 0.7})
        clock.forward(timedelta(hours=1))
        later = submit(params={"step_size": 0.7})

    assert {answer.status_code for answer in failed} == {400}
    assert [answer.status_code for answer in created] == [201, 201]
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "3600"
    assert refused.json()["error"]["details"] == {"limit": 2, "window_seconds": 3600, "retry_after_seconds": 3600}
    assert later.status_code == 201


@pytest.mark.parametrize(("method", "path"), [("PUT", "part/0"), ("POST", "complete")])
def test_more_uploads_at_once_than_allowed_are_refused(start, method, path):
    with start(uploads_per_subject=1) as client:
        ada = bearer(issue(client, "ada"))

        def send():
            return client.request(method, f"/v1/uploads/upl_aaaaaaaaaaaa/{path}", json=PARTS, headers=ada)

        other = client.app.state.context.limits.upload("ada")
        client.portal.call(other.__aenter__)
        refused = send()
        client.portal.call(other.__aexit__, None, None, None)
        allowed = send()

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["details"] == {"limit": 1, "window_seconds": 0, "retry_after_seconds": 1}
    assert allowed.status_code != 429
    assert limits(refused)[0] > 1


@pytest.mark.parametrize(
    ("host", "who"),
    [
        ("192.0.2.7", "ip:192.0.2.7"),
        ("::ffff:192.0.2.7", "ip:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "ip:2001:db8:1:2::/64"),
        ("", "ip:"),
    ],
)
def test_an_address_stands_for_whoever_can_choose_it(host, who):
    assert address_of({"client": (host, 40000)}) == who


@pytest.mark.parametrize("token", ["", "nonsense"])
def test_handshakes_of_strangers_count_for_their_address(strict, token):
    def refused():
        url = f"/ws/jobs/job_a?token={token}"
        with strict.websocket_connect(url) as socket, pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        return closed.value.code

    assert [refused() for _ in range(4)] == [4401, 4401, 4401, 4429]
    assert strict.get("/v1/nothing").status_code == 429


def test_with_redis_the_limits_of_the_app_are_shared(start, tmp_path):
    with redis_running(tmp_path) as redis, start(limits_url=redis.url, requests_per_minute=3) as client:
        ada = bearer(issue(client, "ada"))
        answers = [client.get("/v1/jobs", headers=ada) for _ in range(4)]
        redis.stop()
        alone = client.get("/v1/jobs", headers=ada)
        ready = client.get("/readyz")

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [limits(answer)[1] for answer in answers] == [2, 1, 0, 0]
    assert (alone.status_code, limits(alone)[1]) == (200, 2)
    assert ready.status_code == 200
    assert "rate_limits" in ready.json()["degraded"]
