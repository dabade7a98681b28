"""`GET /v1/files/{job_id}/{artifact_name}` and what jobs say of their artifacts."""

import json
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx
import mrcfile
import numpy as np
import pytest

from support.api_target import error, moment, ok, whole


@pytest.fixture(scope="module")
def artifacts(ada, completed):
    return {artifact["name"]: artifact for artifact in ada.job(completed.job_id)["artifacts"]}


@pytest.fixture
def downloads(target):
    """A client without a token, which goes where it is sent: the store may have an address of its own."""
    with httpx.Client(base_url=target.url, follow_redirects=True, timeout=60) as client:
        yield client


def with_query(url, **changes):
    """Return a URL with other values in its query; None takes one away."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    kept = httpx.QueryParams({name: value for name, value in query.items() if value is not None})
    return urlunsplit(parts._replace(query=str(kept)))


def test_artifacts_have_the_fields_of_the_reference_and_no_other(artifacts):
    for artifact in artifacts.values():
        assert set(artifact) == {"name", "size", "content_type", "url", "created_at"}
        assert isinstance(artifact["name"], str)
        assert isinstance(artifact["content_type"], str)
        assert whole(artifact["size"])
        moment(artifact["created_at"])


def test_artifacts_are_a_segmentation_and_statistics(artifacts):
    assert {"segmentation.mrc", "statistics.json"} <= set(artifacts)


def test_an_artifacts_url_is_signed_and_says_when_it_expires(artifacts, completed):
    for name, artifact in artifacts.items():
        url = urlsplit(artifact["url"])
        assert url.path == f"/v1/files/{completed.job_id}/{name}"
        assert {"token", "expires"} <= set(parse_qs(url.query))


def test_an_artifacts_expiry_is_a_time_in_unix_seconds_an_hour_ahead_by_default(scripted):
    artifact = scripted_artifact(scripted)
    now = moment(ok(scripted.ada.get("/v1/healthz"))["timestamp"])

    expires = int(parse_qs(urlsplit(artifact["url"]).query)["expires"][0])

    assert 3540 <= expires - now.timestamp() <= 3600


def scripted_artifact(scripted):
    """Return a result of a job on the scripted server."""
    job_id = ok(scripted.ada.submit(scripted.new_file()), 201)["job_id"]
    scripted.ada.watch(job_id)
    (artifact,) = scripted.ada.job(job_id)["artifacts"]
    return artifact


def test_a_download_is_answered_200_and_needs_no_bearer_token(downloads, artifacts):
    assert downloads.get(artifacts["segmentation.mrc"]["url"]).status_code == 200


def test_the_curl_example_of_a_download_works(target, ada, completed, tmp_path):
    details = httpx.get(f"{target.url}/v1/jobs/{completed.job_id}", headers={"Authorization": f"Bearer {target.ada}"})
    artifact = next(one for one in ok(details)["artifacts"] if one["name"] == "segmentation.mrc")

    answer = httpx.get(target.url + artifact["url"], follow_redirects=True)
    (tmp_path / "segmentation.mrc").write_bytes(answer.content)

    with mrcfile.open(tmp_path / "segmentation.mrc") as file:
        assert file.data.shape == (24, 28, 32)
        assert np.issubdtype(file.data.dtype, np.integer)


def test_a_downloads_content_type_is_octet_stream(downloads, artifacts):
    for artifact in artifacts.values():
        assert downloads.get(artifact["url"]).headers["content-type"] == "application/octet-stream"


def test_a_downloads_content_disposition_is_an_attachment_with_the_artifacts_name(downloads, artifacts):
    for name, artifact in artifacts.items():
        disposition = downloads.get(artifact["url"]).headers["content-disposition"]
        assert disposition == f'attachment; filename="{name}"'


def test_a_downloads_body_has_the_artifacts_size_in_bytes(downloads, artifacts):
    for artifact in artifacts.values():
        assert len(downloads.get(artifact["url"]).content) == artifact["size"]


def test_statistics_json_says_what_the_websocket_said(downloads, artifacts, completed):
    (message,) = completed.of_type("completed")

    document = json.loads(downloads.get(artifacts["statistics.json"]["url"]).content)

    assert message["statistics"].items() <= document.items()


@pytest.mark.parametrize("token", ["xyz", "", None, "0" * 64])
def test_a_download_with_an_invalid_token_is_403(downloads, artifacts, token):
    url = with_query(artifacts["segmentation.mrc"]["url"], token=token)

    error(downloads.get(url), 403, "FORBIDDEN")


def test_a_download_with_another_expiry_is_403(downloads, artifacts):
    url = artifacts["segmentation.mrc"]["url"]
    later = int(parse_qs(urlsplit(url).query)["expires"][0]) + 1

    error(downloads.get(with_query(url, expires=str(later))), 403, "FORBIDDEN")


def test_a_download_with_the_token_of_another_artifact_is_403(downloads, artifacts, completed):
    query = urlsplit(artifacts["statistics.json"]["url"]).query

    error(downloads.get(f"/v1/files/{completed.job_id}/segmentation.mrc?{query}"), 403, "FORBIDDEN")


def test_a_download_with_an_expired_token_is_403(scripted):
    artifact = scripted_artifact(scripted)
    scripted.clock_ahead(3601)

    error(httpx.get(scripted.target.url + artifact["url"]), 403, "FORBIDDEN")


def test_a_download_of_an_artifact_that_is_gone_is_404(scripted):
    artifact = scripted_artifact(scripted)
    for held in scripted.data_dir.rglob(artifact["name"]):
        held.unlink()

    error(httpx.get(scripted.target.url + artifact["url"]), 404, "NOT_FOUND")


def test_an_artifact_that_there_is_not_is_refused(downloads, artifacts, completed):
    """A link to what there is not cannot be had, so that the answer is that of a wrong link: 403, not 404."""
    query = urlsplit(artifacts["segmentation.mrc"]["url"]).query

    error(downloads.get(f"/v1/files/{completed.job_id}/nothing.mrc?{query}"), 403, "FORBIDDEN")
