"""Tokens: who gets in, and what a refusal says."""

import asyncio
import hmac
import json
import os
import stat
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from cryomamba_apiserver.errors import AuthenticationError
from cryomamba_apiserver.settings import read_settings
from cryomamba_apiserver.tokens.claims import LEEWAY_SECONDS
from cryomamba_apiserver.tokens.denied import DeniedTokens
from cryomamba_apiserver.tokens.secret import SecretAuthority, load_or_create_secret
from cryomamba_crds.failures import FailureError


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


@pytest.fixture
def sign(context):
    """Signs claims as the server does, with changes; None removes one."""
    return lambda **changes: jws(context.authority.secret, {"alg": "HS256"}, claims(**changes))


def signed_for(client, **changes):
    return jwt.encode(claims(**changes), client.app.state.context.authority.secret, "HS256")


def jws(secret, header, payload):
    """A signed token with a header and a payload of any form."""

    def part(content):
        raw = (
            content
            if isinstance(content, bytes)
            else json.dumps(content, default=lambda at: int(at.timestamp())).encode()
        )
        return urlsafe_b64encode(raw).rstrip(b"=")

    signed = part(header) + b"." + part(payload)
    return (signed + b"." + part(hmac.digest(secret, signed, "sha256"))).decode()


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


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "sub"])
def test_a_token_that_lacks_a_claim_is_refused_with_its_name(server, sign, name):
    answer = ask(server, sign(**{name: None}))

    assert answer.status_code == 401
    assert f"lacks the claim {name}" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "somebody"}, "another issuer"),
        ({"iss": ["cryomamba"]}, "another issuer"),
        ({"aud": "something"}, "another audience"),
        ({"aud": ["something", "else"]}, "another audience"),
        ({"aud": {"cryomamba": 1}}, "another audience"),
        ({"exp": datetime(2020, 1, 1, tzinfo=UTC)}, "expired"),
        ({"exp": "tomorrow"}, "exp of the token is malformed"),
        ({"exp": True}, "exp of the token is malformed"),
        ({"exp": float("inf")}, "exp of the token is malformed"),
        ({"exp": float("nan")}, "exp of the token is malformed"),
        ({"exp": 10**400}, "exp of the token is malformed"),
        ({"nbf": 10**400}, "nbf of the token is malformed"),
        ({"iat": -(10**400)}, "iat of the token is malformed"),
        ({"nbf": datetime(2100, 1, 1, tzinfo=UTC)}, "not valid yet"),
        ({"iat": datetime(2100, 1, 1, tzinfo=UTC)}, "not valid yet"),
        ({"nbf": []}, "nbf of the token is malformed"),
        ({"sub": 7}, "sub of the token is malformed"),
        ({"sub": ""}, "sub of the token is malformed"),
        ({"sub": " "}, "sub of the token is malformed"),
        ({"sub": "a\nb"}, "sub of the token is malformed"),
        ({"sub": "a\x00"}, "sub of the token is malformed"),
        ({"sub": "\ud800"}, "sub of the token is malformed"),
        ({"sub": "a" * 256}, "sub of the token is malformed"),
        ({"scope": ["read"]}, "scope of the token is malformed"),
        ({"scope": None, "scopes": "read"}, "scopes of the token is malformed"),
        ({"jti": 7}, "jti of the token is malformed"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(server, sign, changes, said):
    answer = ask(server, sign(**changes))

    assert answer.status_code == 401
    assert said in answer.json()["error"]["message"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_an_audience_among_others_is_enough(server, sign):
    assert ask(server, sign(aud=["something", "cryomamba"])).status_code == 200


@pytest.mark.parametrize(("scopes", "status"), [({"scopes": ["openid", {}, "read"]}, 200), ({}, 403)])
def test_scopes_of_others_are_nothing_to_us(server, sign, scopes, status):
    assert ask(server, sign(scope=None, **scopes)).status_code == status


def test_a_token_that_was_good_expires_all_the_same(server, token, clock):
    good = token("ada", ttl=timedelta(minutes=5))
    assert ask(server, good).status_code == 200

    clock.forward(timedelta(minutes=5, seconds=LEEWAY_SECONDS))

    assert ask(server, good).status_code == 401
    assert ask(server, good).json()["error"]["message"] == "The token has expired."


def test_clocks_may_be_a_little_apart(server, sign, clock):
    soon = clock.time + timedelta(seconds=LEEWAY_SECONDS - 1)
    just_over = clock.time - timedelta(seconds=LEEWAY_SECONDS - 1)

    assert ask(server, sign(nbf=soon, iat=soon)).status_code == 200
    assert ask(server, sign(exp=just_over)).status_code == 200


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": True}, {"crit": []}])
def test_a_token_with_critical_extensions_is_refused(server, context, header):
    critical = jws(context.authority.secret, {"alg": "HS256", **header}, claims())

    assert ask(server, critical).status_code == 401


def test_only_the_algorithm_that_is_used_here_counts(server, context):
    other = jwt.encode(claims(), context.authority.secret, "HS384")

    assert ask(server, other).status_code == 401
    assert "signed in a way" in ask(server, other).json()["error"]["message"]


def test_a_token_of_a_megabyte_is_refused_before_it_is_looked_into(server, sign, monkeypatch):
    def looked(*_):
        raise AssertionError

    monkeypatch.setattr("cryomamba_apiserver.tokens.authority.jwt.get_unverified_header", looked)

    answer = ask(server, sign(padding="x" * 2**20))

    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "The token is too long."


@pytest.mark.parametrize("payload", [b"[]", b"7", b"null", b"{", b"[" * 3000, b'{"exp": 1e999}', b"\xff"])
def test_a_payload_that_is_no_object_is_refused(server, context, payload):
    assert ask(server, jws(context.authority.secret, {"alg": "HS256"}, payload)).status_code == 401


@pytest.mark.parametrize("header", [b"[]", b"7", b"{", b"[" * 3000, b'{"alg": ["HS256"]}', b'{"alg": {}}', b"\xff"])
def test_a_header_that_is_none_is_refused(server, context, header):
    assert ask(server, jws(context.authority.secret, header, claims())).status_code == 401


def test_a_token_is_revoked_by_its_id(start):
    with start(denied_jtis=("stolen", "lost")) as client:
        answers = {jti: ask(client, signed_for(client, jti=jti)) for jti in ("stolen", "lost", "fine")}

    assert {jti: answer.status_code for jti, answer in answers.items()} == {"stolen": 401, "lost": 401, "fine": 200}
    assert answers["stolen"].json()["error"]["message"] == "The token has been revoked."


def test_a_token_that_was_good_is_refused_once_its_id_is_in_the_file(tmp_path):
    file = tmp_path / "denied"
    file.write_text("# stolen laptops\nother\n")
    passed = [0.0]
    denied = DeniedTokens(("fixed",), file, monotonic=lambda: passed[0])
    authority = SecretAuthority(b"s" * 32, "cryomamba", "cryomamba", lambda: datetime.now(UTC), denied)
    good = jwt.encode(claims(jti="stolen"), b"s" * 32, "HS256")

    before = asyncio.run(authority.check(good))
    file.write_text("other\nstolen\n")
    passed[0] += 1

    assert before.subject == "ada"
    with pytest.raises(AuthenticationError, match="revoked"):
        asyncio.run(authority.check(good))


@pytest.mark.parametrize("damage", ["removed", "not text", "a folder"])
def test_where_the_file_of_revoked_tokens_is_damaged_its_ids_are_kept(tmp_path, caplog, damage):
    file = tmp_path / "denied"
    file.write_text("stolen\n")
    passed = [0.0]
    denied = DeniedTokens((), file, monotonic=lambda: passed[0])

    file.unlink()
    if damage == "not text":
        file.write_bytes(b"\xff\xfe\x00")
    elif damage == "a folder":
        file.mkdir()
    for _ in range(3):
        passed[0] += 1
        assert denied.has("stolen")

    assert caplog.text.count("can't be read") == 1


def test_a_token_signed_with_another_secret_is_refused_and_not_repeated(server):
    forged = jwt.encode(claims(), "x" * 32, "HS256")

    answer = ask(server, forged)

    assert answer.status_code == 401
    assert forged not in answer.text


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_refused(server, algorithm):
    signed = jws(b"", {"alg": algorithm, "typ": "JWT"}, claims())
    unsigned = signed.rpartition(".")[0] + "."

    assert ask(server, unsigned).status_code == 401
    assert ask(server, signed).status_code == 401


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


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_the_secret_may_be_a_setting_or_a_file(start, tmp_path, ending):
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef" * 2 + ending)

    with start(token_secret_file=file) as client, start(token_secret="0123456789abcdef" * 2) as other:
        assert ask(client, jwt.encode(claims(), "0123456789abcdef" * 2, "HS256")).status_code == 200
        assert other.app.state.context.authority.secret == client.app.state.context.authority.secret


@pytest.mark.parametrize("kind", ["setting", "file", "data directory"])
def test_a_secret_that_is_too_short_is_refused_at_start_and_not_shown(start, tmp_path, kind):
    short = "short-and-secret"
    file = tmp_path / "data" / "secret"
    file.parent.mkdir()
    file.write_text(short)
    settings = {"setting": {"token_secret": short}, "file": {"token_secret_file": file}, "data directory": {}}[kind]

    with pytest.raises(FailureError, match="16 bytes, and 32") as refused, start(**settings):
        pass

    assert short not in str(refused.value)


def test_a_file_of_revoked_tokens_that_is_not_there_is_refused_at_start(start, tmp_path):
    with pytest.raises(FailureError, match="CRYOMAMBA_DENIED_JTIS_FILE"), start(denied_jtis_file=tmp_path / "none"):
        pass


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"OIDC_ISSUER": "http://idp.example"}, "CRYOMAMBA_OIDC_ISSUER"),
        ({"OIDC_ISSUER": "idp.example"}, "CRYOMAMBA_OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://user:secret@idp.example"}, "CRYOMAMBA_OIDC_ISSUER"),
        ({"OIDC_ISSUER": "https://idp.example", "OIDC_JWKS_URL": "file:///keys"}, "CRYOMAMBA_OIDC_JWKS_URL"),
        ({"OIDC_JWKS_URL": "https://idp.example/keys"}, "CRYOMAMBA_OIDC_ISSUER"),
        ({"TOKEN_SECRET": "s" * 32, "TOKEN_SECRET_FILE": "/f"}, "CRYOMAMBA_TOKEN_SECRET_FILE"),
        ({"LIMITS_URL": "http://:a-password@127.0.0.1"}, "CRYOMAMBA_LIMITS_URL"),
        ({"LIMITS_URL": "redis://:a-password@"}, "CRYOMAMBA_LIMITS_URL"),
        ({"LIMITS_URL": "redis://:a-password@host:port"}, "CRYOMAMBA_LIMITS_URL"),
        ({"REQUESTS_PER_MINUTE": "0"}, "CRYOMAMBA_REQUESTS_PER_MINUTE"),
    ],
)
def test_wrong_settings_are_refused_with_their_name_and_without_secrets(environment, named):
    variables = {f"CRYOMAMBA_{name}": value for name, value in environment.items()}

    with pytest.raises(FailureError, match=named) as refused:
        read_settings(variables)

    assert "a-password" not in str(refused.value)
