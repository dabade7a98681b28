"""Tokens of an OpenID Connect issuer whose keys are served over HTTP."""

import asyncio
import contextlib
import hmac
import json
import logging
import socket
from base64 import urlsafe_b64encode
from datetime import UTC, datetime

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from typer.testing import CliRunner

from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.commands.token import app as token_command
from cryomamba_apiserver.errors import UnavailableError
from cryomamba_apiserver.tokens.fetching import DocumentError, fetch_json
from cryomamba_apiserver.tokens.issuer import KEYS_GOOD_SECONDS, UNKNOWN_KEY_SECONDS, IssuerKeys
from cryomamba_apiserver.tokens.key_set import read_key_set
from support.oidc_issuer import CONFIGURATION, issuing
from support.waiting import until


@pytest.fixture
def issuer():
    with issuing() as issuer:
        yield issuer


class Time:
    """Seconds that only the test lets pass."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def passed():
    return Time()


@pytest.fixture
def trusting(start, issuer, passed):
    """A server that takes the issuer's tokens."""
    with start(oidc_issuer=issuer.url) as client:
        client.app.state.context.authority._issuer_keys._monotonic = passed
        yield client


def ask(client, token):
    return client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})


def part(content):
    raw = json.dumps(content, default=lambda at: int(at.timestamp())).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def signed_with(secret, header, claims):
    signed = part(header) + b"." + part(claims)
    return (signed + b"." + urlsafe_b64encode(hmac.digest(secret, signed, "sha256")).rstrip(b"=")).decode()


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1"])
def test_tokens_of_the_issuer_get_in(trusting, issuer, kid):
    assert ask(trusting, issuer.token(kid)).status_code == 200


def test_its_keys_are_fetched_once_for_many_tokens(trusting, issuer):
    for subject in ("ada", "bob", "cleo"):
        assert ask(trusting, issuer.token(sub=subject)).status_code == 200

    assert issuer.asked == {CONFIGURATION: 1, "/keys": 1}


def test_where_the_keys_are_may_be_a_setting(start, issuer):
    with start(oidc_issuer=issuer.url, oidc_jwks_url=f"{issuer.url}/keys") as client:
        assert ask(client, issuer.token()).status_code == 200

    assert issuer.asked == {"/keys": 1}


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256"])
def test_a_token_that_no_key_of_the_issuer_signed_is_refused(trusting, issuer, algorithm):
    unsigned = signed_with(b"", {"alg": algorithm, "kid": "rsa-1"}, issuer.claims())

    assert ask(trusting, unsigned).status_code == 401
    assert ask(trusting, unsigned.rpartition(".")[0] + ".").status_code == 401


@pytest.mark.parametrize(
    "form", [(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), (Encoding.DER, PublicFormat.PKCS1)]
)
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_the_public_key_is_no_secret_to_sign_with(trusting, issuer, form, algorithm):
    public = issuer.rsa["rsa-1"].public_key().public_bytes(*form)

    assert ask(trusting, signed_with(public, {"alg": algorithm, "kid": "rsa-1"}, issuer.claims())).status_code == 401


@pytest.mark.parametrize(
    ("key", "algorithm", "named"), [("rsa-1", "RS256", "ec-1"), ("ec-1", "ES256", "rsa-1"), ("rsa-1", "RS512", "rsa-1")]
)
def test_a_key_is_good_for_its_own_algorithm_only(trusting, issuer, key, algorithm, named):
    private = {**issuer.rsa, **issuer.elliptic}[key]
    mixed = jwt.encode(issuer.claims(), private, algorithm, headers={"kid": named})

    assert ask(trusting, mixed).status_code == 401


@pytest.mark.parametrize("header", [{"jku": "{url}/mine"}, {"jwk": "mine"}, {"x5u": "{url}/mine"}])
def test_a_token_cannot_bring_its_own_key(trusting, issuer, header):
    mine = rsa.generate_private_key(65537, 2048)
    public = {**json.loads(RSAAlgorithm.to_jwk(mine.public_key())), "kid": "mine"}
    issuer.document("/mine", {"keys": [public]})
    brought = {name: public if value == "mine" else value.format(url=issuer.url) for name, value in header.items()}

    forged = jwt.encode(issuer.claims(), mine, "RS256", headers={"kid": "mine", **brought})

    assert ask(trusting, forged).status_code == 401
    assert "/mine" not in issuer.asked


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://somebody.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"sub": None},
        {"exp": None},
        {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(trusting, issuer, changes):
    assert ask(trusting, issuer.token(**changes)).status_code == 401


def test_a_token_with_unknown_critical_extensions_is_refused(trusting, issuer):
    assert ask(trusting, issuer.token(headers={"crit": ["b64"], "b64": True})).status_code == 401


def test_a_token_is_revoked_by_its_id(start, issuer):
    with start(oidc_issuer=issuer.url, denied_jtis=("stolen",)) as client:
        assert ask(client, issuer.token(jti="fine")).status_code == 200
        assert ask(client, issuer.token(jti="stolen")).status_code == 401


def test_tokens_of_the_server_itself_do_not_count_beside_an_issuer(trusting, start, issuer, tmp_path):
    secret = (tmp_path / "data" / "secret").read_bytes()

    assert ask(trusting, jwt.encode(issuer.claims(), secret, "HS256")).status_code == 401


def test_no_token_is_made_where_an_issuer_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("CRYOMAMBA_OIDC_ISSUER", "https://idp.example")

    result = CliRunner().invoke(token_command, ["create", "--subject", "ada", "--data-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert "takes the tokens of https://idp.example and issues none" in result.stderr


def test_a_new_key_is_found_when_a_token_names_it(trusting, issuer, passed):
    assert ask(trusting, issuer.token()).status_code == 200
    new = issuer.rotate()
    passed.seconds += UNKNOWN_KEY_SECONDS

    assert ask(trusting, issuer.token(new)).status_code == 200
    assert issuer.asked["/keys"] == 2


def test_keys_that_nobody_has_are_asked_for_now_and_then_only(trusting, issuer, passed):
    ask(trusting, issuer.token())
    unknown = [issuer.token(headers={"kid": f"made-up-{number}"}) for number in range(20)]
    passed.seconds += UNKNOWN_KEY_SECONDS

    answers = [ask(trusting, token) for token in unknown]

    assert {answer.status_code for answer in answers} == {401}
    assert issuer.asked["/keys"] == 2


def test_a_key_that_was_withdrawn_stops_counting_even_for_tokens_that_were_good(trusting, issuer, passed):
    old = issuer.token()
    assert ask(trusting, old).status_code == 200
    issuer.rotate()
    passed.seconds += KEYS_GOOD_SECONDS

    until(lambda: ask(trusting, old).status_code == 401, 20)


def test_while_the_issuer_is_away_its_last_keys_are_kept(trusting, issuer, passed, caplog):
    assert ask(trusting, issuer.token()).status_code == 200
    issuer.answers["/keys"] = (500, b"", {})
    passed.seconds += KEYS_GOOD_SECONDS

    assert ask(trusting, issuer.token(sub="bob")).status_code == 200
    until(lambda: "the keys that it had are kept" in caplog.text, 20)
    assert ask(trusting, issuer.token(sub="cleo")).status_code == 200


def test_where_no_key_could_be_had_yet_a_token_is_neither_good_nor_bad(trusting, issuer, passed, caplog):
    there, issuer.answers["/keys"] = issuer.answers["/keys"], (503, b"", {})

    away = ask(trusting, issuer.token())
    issuer.answers["/keys"] = there
    passed.seconds += UNKNOWN_KEY_SECONDS
    back = ask(trusting, issuer.token())

    assert away.status_code == 503
    assert away.json()["error"]["code"] == "SERVICE_UNAVAILABLE"
    assert away.json()["error"]["retryable"] is True
    assert away.headers["retry-after"] == "10"
    assert trusting.get("/v1/healthz").status_code == 200
    assert back.status_code == 200


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}/", "jwks_uri": "{url}/keys"},
        {"jwks_uri": "{url}/keys"},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}"},
        [],
        "{url}",
    ],
)
def test_a_document_that_is_not_the_issuers_is_not_believed(trusting, issuer, document, caplog):
    text = json.dumps(document).replace("{url}", issuer.url)
    issuer.answers[CONFIGURATION] = (200, text.encode(), {})

    assert ask(trusting, issuer.token()).status_code == 503
    assert issuer.asked["/keys"] == 0
    assert "can't be had" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"[" * 600_000, {}),
        (200, b"[" * 10_000, {}),
        (200, b"{}", {}),
        (200, b'{"keys": 7}', {}),
        (200, b'{"keys": [7, {}, {"kty": []}, {"kty": "RSA", "n": 1, "e": null}]}', {}),
        (200, b"<html>", {}),
        (302, b"", {"Location": "/elsewhere"}),
        (404, b"", {}),
    ],
)
def test_what_is_no_key_set_is_not_one(trusting, issuer, answer, caplog):
    issuer.document("/elsewhere", json.loads(issuer.answers["/keys"][1]))
    issuer.answers["/keys"] = answer

    assert ask(trusting, issuer.token()).status_code == 503
    assert issuer.asked["/elsewhere"] == 0
    assert [record.levelno for record in caplog.records if "can't be had" in record.message] == [logging.ERROR]


def test_a_key_set_that_is_too_long_is_not_read(trusting, issuer, caplog):
    status, body, headers = issuer.answers["/keys"]
    issuer.answers["/keys"] = (status, body + b" " * (512 << 10), headers)

    assert ask(trusting, issuer.token()).status_code == 503
    assert "longer than 524288 bytes" in caplog.text


def test_an_issuer_that_says_nothing_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"

        with pytest.raises(DocumentError, match=r"does not answer within 0\.1 seconds"):
            asyncio.run(fetch_json(url, seconds=0.1))


def test_only_public_signing_keys_that_are_long_enough_are_used():
    def jwk(key, **fields):
        return {**json.loads(RSAAlgorithm.to_jwk(key)), **fields}

    long, short = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 1024)
    keys = read_key_set(
        {
            "keys": [
                jwk(long.public_key(), kid="good", key_ops=["verify"], use="sig", alg="RS256"),
                jwk(long, kid="private", key_ops=["verify"]),
                jwk(short.public_key(), kid="short"),
                jwk(long.public_key(), kid="encrypts", use="enc", key_ops=[]),
                jwk(long.public_key(), kid="other", key_ops=["verify"], alg="PS256"),
                jwk(long.public_key(), kid=7, key_ops=["verify"]),
                {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "RS256"},
            ]
        }
    )

    assert set(keys.keys) == {("RS256", "good")}


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("AQAB")
FIELDS = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"])
VALUES = SCALARS | st.sampled_from(["RSA", "EC", "P-256", "RS256", "ES256", "sig"]) | st.lists(SCALARS, max_size=2)


@given(st.lists(st.dictionaries(FIELDS, VALUES) | SCALARS, max_size=3))
def test_whatever_an_issuer_publishes_is_a_key_set_or_is_not(keys):
    with contextlib.suppress(ValueError):
        read_key_set({"keys": keys})


def test_a_token_that_names_no_key_is_checked_with_the_only_one_there_is(trusting, issuer):
    unnamed = jwt.encode(issuer.claims(), issuer.rsa["rsa-1"], "RS256")

    assert ask(trusting, unnamed).status_code == 200


def test_many_who_wait_for_a_key_ask_once_and_others_do_not_wait():
    asked: list[str] = []

    async def story():
        began, answered = asyncio.Event(), asyncio.Event()

        async def fetch(url):
            asked.append(url)
            began.set()
            await answered.wait()
            raise DocumentError("away")

        keys = IssuerKeys("https://idp.example", "https://idp.example/keys", fetch=fetch)
        waiting = [asyncio.create_task(keys.find("RS256", "kid")) for _ in range(20)]
        one_that_leaves = asyncio.create_task(keys.find("RS256", "kid"))
        await began.wait()
        one_that_leaves.cancel()
        answered.set()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await keys.close()
        return outcomes

    outcomes = asyncio.run(story())

    assert asked == ["https://idp.example/keys"]
    assert {type(outcome) for outcome in outcomes} == {UnavailableError}


def test_a_server_that_ends_does_not_wait_for_its_issuer():
    async def story():
        asked = asyncio.Event()

        async def fetch(_):
            asked.set()
            await asyncio.Event().wait()

        keys = IssuerKeys("https://idp.example", None, fetch=fetch)
        keys.refresh_if_old()
        await asked.wait()
        await keys.close()
        return True

    assert asyncio.run(story())


def test_a_token_is_made_for_whoever_is_named(tmp_path, start):
    made = CliRunner().invoke(
        token_command,
        ["create", "--subject", "eve", "--scope", "read", "--ttl", "15m", "--data-dir", str(tmp_path / "data")],
    )
    token = made.stdout.strip()

    with start() as client:
        principal = asyncio.run(client.app.state.context.authority.check(token))

    assert (principal.subject, principal.scopes) == ("eve", {Scope.READ})
    assert jwt.decode(token, options={"verify_signature": False})["jti"] in made.stderr


@pytest.mark.parametrize("subject", ["", " ", "a\nb", " ada", "a" * 256, "a\x00b"])
def test_a_token_is_not_made_for_a_name_that_is_none(tmp_path, subject):
    made = CliRunner().invoke(token_command, ["create", "--subject", subject, "--data-dir", str(tmp_path)])

    assert made.exit_code == 2
    assert made.stdout == ""
