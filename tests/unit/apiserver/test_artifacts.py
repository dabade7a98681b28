"""Signed links."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from cryomamba_apiserver.artifacts.signing import LinkSigner

NOW = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)
SIGNER = LinkSigner.from_secret(b"s" * 32, timedelta(hours=1))


def taken_apart(link: str) -> tuple[str, str, int]:
    parts = urlsplit(link)
    query = parse_qs(parts.query)
    return parts.path, query["token"][0], int(query["expires"][0])


def test_a_link_works_until_it_expires():
    path, token, expires = taken_apart(SIGNER.link("job_a", "segmentation.mrc", "ada", NOW))

    assert path == "/v1/files/job_a/segmentation.mrc"
    assert SIGNER.valid("job_a", "segmentation.mrc", "ada", token, expires, NOW + timedelta(minutes=59))
    assert not SIGNER.valid("job_a", "segmentation.mrc", "ada", token, expires, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("job_id", "name", "owner", "later"),
    [
        ("job_b", "segmentation.mrc", "ada", 0),
        ("job_a", "statistics.json", "ada", 0),
        ("job_a", "segmentation.mrc", "bob", 0),
        ("job_a", "segmentation.mrc", "ada", 3600),
    ],
)
def test_a_link_is_good_for_nothing_else(job_id, name, owner, later):
    _, token, expires = taken_apart(SIGNER.link("job_a", "segmentation.mrc", "ada", NOW))

    assert not SIGNER.valid(job_id, name, owner, token, expires + later, NOW)


def test_another_secret_makes_other_links():
    other = LinkSigner.from_secret(b"t" * 32, timedelta(hours=1))

    assert taken_apart(other.link("j", "n", "o", NOW)) != taken_apart(SIGNER.link("j", "n", "o", NOW))


@pytest.mark.parametrize("query", ["", "?token=x", "?token=x&expires=99999999999", "?token=%C3%A9&expires=1"])
def test_a_download_without_a_good_link_is_forbidden(server, query):
    answer = server.get(f"/v1/files/job_aaaaaaaaaaaa/segmentation.mrc{query}")

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"


def test_a_good_link_to_nothing_is_not_found(server, context, clock):
    # Signed by the server itself, for a job of which nothing is known, so that only its absence can refuse it.
    link = context.signer.link("job_aaaaaaaaaaaa", "segmentation.mrc", "ada", clock())

    assert server.get(link).status_code == 403
