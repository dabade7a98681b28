"""Tokens: who gets in, and what a refusal says."""

import json
import os
import stat
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from cryomamba_apiserver.auth import load_or_create_secret


def claims(**changes):
    now = datetime.now(UTC)
    base = {
        "iss": "cryomamba",
        "aud": "cryomamba",
        "sub": "ada",
        "scope": "read write",
        "exp": now + timedelta(hours=1),
    }
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def ask(server, token):
    return server.get("/v1/server/info", headers={"Authorization": f"Bearer {token}"})


def test_health_needs_no_token(server, clock):
    answer = server.get("/v1/healthz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "timestamp": clock.wire(), "uptime_seconds": 0}


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/v1/server/info"),
        ("POST", "/v1/uploads/init"),
        ("PUT", "/v1/uploads/upl_aaaaaaaaaaaa/part/0"),
        ("POST", "/v1/uploads/upl_aaaaaaaaaaaa/complete"),
        ("POST", "/v1/jobs"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/job_aaaaaaaaaaaa"),
        ("DELETE", "/v1/jobs/job_aaaaaaaaaaaa"),
        ("GET", "/v1/gpu/status"),
    ],
)
def test_everything_else_needs_one(server, method, url):
    answer = server.request(method, url)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert error["code"] == "AUTHENTICATION_REQUIRED"
    assert error["retryable"] is False
    assert "cryomamba token create" in error["hint"]


def test_a_token_of_ours_gets_in(server, token):
    assert ask(server, token()).status_code == 200


def test_scopes_may_be_a_list(server, context):
    listed = jwt.encode(claims(scope=None, scopes=["read"]), context.authority.secret, "HS256")

    assert ask(server, listed).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "something"},
        {"aud": None},
        {"sub": None},
        {"exp": None},
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(server, context, changes):
    answer = ask(server, jwt.encode(claims(**changes), context.authority.secret, "HS256"))

    assert answer.status_code == 401


def test_a_token_signed_with_another_secret_is_refused_and_not_repeated(server):
    forged = jwt.encode(claims(), "x" * 32, "HS256")

    answer = ask(server, forged)

    assert answer.status_code == 401
    assert forged not in answer.text


def test_a_token_without_a_signature_is_refused(server):
    def part(fields: dict[str, object]) -> str:
        return urlsafe_b64encode(json.dumps(fields, default=lambda moment: int(moment.timestamp())).encode()).decode()

    unsigned = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.".replace("=", "")

    assert ask(server, unsigned).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer " + "x" * 10_000])
def test_what_is_no_token_is_refused(server, header):
    answer = server.get("/v1/server/info", headers={"Authorization": header})

    assert answer.status_code == 401


def test_reading_does_not_allow_writing(server, token):
    answer = server.post("/v1/jobs", json={}, headers={"Authorization": f"Bearer {token('ada', 'read')}"})

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"
    assert "write" in answer.json()["error"]["hint"]


def test_the_secret_is_kept_and_nobody_else_can_read_it(tmp_path):
    first = load_or_create_secret(tmp_path / "data")

    assert load_or_create_secret(tmp_path / "data") == first
    assert len(first) >= 32
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert os.listdir(tmp_path / "data") == ["secret"]  # noqa: PTH208 - names are what is asked for


def test_commands_that_start_at_once_agree_on_the_secret(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(lambda _: load_or_create_secret(tmp_path), range(32)))

    assert len(secrets) == 1
