"""Probes, metrics, and what every response carries."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from cryomamba_apiserver.context import Context
from cryomamba_apiserver.jobs.mailbox import FRAMES
from cryomamba_apiserver.operations.metrics import Backlog, Metrics
from cryomamba_apiserver.operations.observation import Observation
from cryomamba_apiserver.operations.readiness import Readiness
from support.commands import serving
from support.waiting import until

ORIGIN = "https://viewer.example"


def sample(text: str, name: str, **labels: str) -> float | None:
    """One value of an exposition."""
    for family in text_string_to_metric_families(text):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    return None


async def works() -> None:
    pass


async def fails() -> None:
    raise ConnectionError("could not reach https://user:hidden@store")


async def hangs() -> None:
    await asyncio.Event().wait()


def test_the_process_is_alive_and_ready(server: TestClient) -> None:
    alive, ready = server.get("/livez"), server.get("/readyz")

    assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "degraded": {}})


def test_a_store_that_is_away_is_named_and_the_process_stays_alive(server: TestClient, context: Context) -> None:
    readiness = Readiness({"object_store": fails, "job_store": works}, 1)
    server.app.state.context = replace(context, readiness=readiness)  # type: ignore[attr-defined]

    answer = server.get("/readyz")

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    error = answer.json()["error"]
    assert (error["code"], error["retryable"]) == ("SERVICE_UNAVAILABLE", True)
    assert error["details"] == {"not_ready": {"object_store": "does not work; the server's log says why"}}
    assert "hidden" not in answer.text
    assert server.get("/livez").status_code == 200


def test_limits_that_each_server_keeps_alone_are_told_and_keep_nobody_out(
    server: TestClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(context.limits), "trouble", "the store of the rate limits does not answer")

    answer = server.get("/readyz")

    assert answer.status_code == 200
    assert answer.json()["degraded"] == {"rate_limits": "the store of the rate limits does not answer"}


def test_each_check_has_a_deadline_of_its_own() -> None:
    readiness = Readiness({"slow": hangs, "slower": hangs, "good": works}, 0.05)

    problems = asyncio.run(readiness.problems())

    assert problems == {"slow": "did not answer within 0.05 s", "slower": "did not answer within 0.05 s"}


def test_a_flood_of_probes_asks_once_a_second() -> None:
    asked, time = [], [0.0]

    async def check() -> None:
        asked.append(time[0])

    async def probe() -> None:
        readiness = Readiness({"store": check}, 1, clock=lambda: time[0])
        await asyncio.gather(*(readiness.problems() for _ in range(50)))
        time[0] = 1.5
        await readiness.problems()

    asyncio.run(probe())

    assert asked == [0.0, 1.5]


def test_requests_are_counted_by_route_and_never_by_what_is_in_a_path(server: TestClient, ada: Any) -> None:
    for _ in range(3):
        ada.get("/v1/jobs/job_secretsecret")
    server.get("/nothing/to/see?token=hidden")
    server.request("BREW", "/v1/healthz")

    text = server.app.state.metrics.exposition(Backlog(queued=2, running=1)).decode()  # type: ignore[attr-defined]

    def count(method: str, route: str, status: str) -> float | None:
        return sample(text, "cryomamba_http_requests_total", method=method, route=route, status=status)

    assert count("GET", "/v1/jobs/{job_id}", "404") == 3
    assert count("GET", "unmatched", "404") == 1
    assert count("other", "/v1/healthz", "405") == 1
    assert sample(text, "cryomamba_http_request_duration_seconds_count", method="GET", route="/v1/jobs/{job_id}") == 3
    assert (sample(text, "cryomamba_jobs_queued"), sample(text, "cryomamba_jobs_running")) == (2, 1)
    for hidden in ("job_secret", "ada", "hidden", "/nothing"):
        assert hidden not in text


def test_bytes_of_bodies_and_uploads_in_flight_are_counted(upload: Any, server: TestClient, emd_3197: bytes) -> None:
    upload(emd_3197)

    text = server.app.state.metrics.exposition(None).decode()  # type: ignore[attr-defined]

    received = sample(text, "cryomamba_http_body_bytes_total", direction="in")
    assert received is not None
    assert received > len(emd_3197)
    assert sample(text, "cryomamba_uploads_in_flight") == 0
    assert "cryomamba_jobs_queued NaN" in text


def test_metrics_are_on_a_port_of_their_own(tmp_path: Path) -> None:
    with serving(tmp_path / "data", metrics_port="0") as server:
        assert server.process.stdout
        address = server.process.stdout.readline().removeprefix("Metrics: ").strip()
        text = httpx.get(address).text
        elsewhere = httpx.get(address.removesuffix("/metrics")).status_code
        on_the_api = httpx.get(f"{server.url}/metrics").status_code

    assert sample(text, "cryomamba_jobs_queued") == 0
    assert sample(text, "cryomamba_websockets_open") == 0
    assert "process_resident_memory_bytes" in text
    assert (elsewhere, on_the_api) == (404, 404)


def test_open_sockets_are_counted(server: TestClient, token: Any) -> None:
    metrics: Metrics = server.app.state.metrics  # type: ignore[attr-defined]

    with server.websocket_connect(f"/ws/jobs/job_a?token={token()}") as socket:
        assert socket.receive()["code"] == 4404

    until(lambda: sample(metrics.exposition(None).decode(), "cryomamba_websockets_open") == 0, 10)


def test_every_response_carries_an_id_and_tells_browsers_to_be_careful(server: TestClient, ada: Any) -> None:
    for answer in (server.get("/v1/healthz"), ada.get("/v1/jobs"), server.get("/nothing"), server.get("/openapi.json")):
        assert len(answer.headers["x-request-id"]) == 16
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_X", True), ("a" * 65, False), ("a b", False), ("<script>", False), ("é", False)]
)
def test_a_request_id_is_taken_where_it_is_short_and_plain(server: TestClient, sent: str, kept: bool) -> None:
    answer = server.get("/livez", headers={"X-Request-Id": sent.encode()})

    assert (answer.headers["x-request-id"] == sent) is kept


def test_an_unexpected_error_is_logged_with_the_id_that_the_client_is_told(
    server: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("made to fail")

    monkeypatch.setattr("cryomamba_apiserver.system.router.Health", broken)

    answer = server.get("/v1/healthz", headers={"X-Request-Id": "failing"})

    error = answer.json()["error"]
    assert answer.status_code == 500
    assert error["details"] == {"request_id": "failing"} == {"request_id": answer.headers["x-request-id"]}
    assert "made to fail" not in answer.text
    assert "x-ratelimit-limit" in answer.headers
    assert [record.exc_info is not None for record in caplog.records if record.message == "unexpected error"] == [True]


def test_pages_of_an_allowed_origin_may_call_with_a_token_and_without_cookies(start: Any) -> None:
    with start(cors_origins=(ORIGIN,)) as server:
        asking = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
        allowed = server.options(
            "/v1/jobs",
            headers=asking | {"Access-Control-Request-Headers": "authorization, idempotency-key, if-modified-since"},
        )
        refused = server.options("/v1/jobs", headers=asking | {"Origin": "https://other.example"})
        answer = server.get("/v1/jobs", headers={"Origin": ORIGIN})

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in allowed.headers
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "VALIDATION_ERROR"
    assert "access-control-allow-origin" not in refused.headers
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "x-ratelimit-remaining", "retry-after", "link", "idempotency-replayed"} <= set(
        exposed.replace(" ", "").split(",")
    )


def test_https_is_demanded_for_good_only_by_a_setting(start: Any) -> None:
    with start(hsts_seconds=3600) as server:
        assert server.get("/livez").headers["strict-transport-security"] == "max-age=3600; includeSubDomains"


def test_there_is_no_page_that_loads_scripts_from_elsewhere(server: TestClient) -> None:
    assert server.get("/docs").status_code == server.get("/redoc").status_code == 404
    assert server.get("/openapi.json").status_code == 200


def test_an_address_with_a_slash_too_many_is_not_redirected_to_whatever_host_the_client_named(
    server: TestClient,
) -> None:
    assert server.get("/v1/healthz/", follow_redirects=False).status_code == 404


def test_messages_of_a_websocket_are_counted_that_are_written_as_whole_frames(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, _: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "abc"})
        scope["extensions"][FRAMES]["write"](b"taken")
        scope["extensions"][FRAMES]["write"](b"")
        await send({"type": "websocket.close", "code": 1000})

    async def nothing(_: Any = None) -> Any:
        return {}

    scope = {"type": "websocket", "headers": [], "query_string": b"", "extensions": {FRAMES: {"write": bool}}}
    metrics = Metrics()
    caplog.set_level("INFO", "cryomamba_apiserver.access")

    asyncio.run(Observation(app, metrics=metrics, headers=[], max_query_parameters=1)(scope, nothing, nothing))

    assert [vars(record)["sent"] for record in caplog.records if record.message == "websocket"] == [8]
    assert sample(metrics.exposition(None).decode(), "cryomamba_http_body_bytes_total", direction="out") == 8
