"""The OpenAPI document and the server agree: made-up requests, and what a whole job is answered with."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import schemathesis

from support.api_target import error, ok

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
RULES = Path(__file__).with_name("schemathesis.toml")


@pytest.fixture(scope="module")
def document(target):
    return schemathesis.openapi.from_dict(ok(httpx.get(f"{target.url}/openapi.json")))


@pytest.fixture(scope="module")
def to_be_fuzzed(serve):
    """A server that takes many requests, and whose disk they don't fill: an upload takes its place when it begins."""
    return serve(requests_per_minute=100_000, max_open_uploads=10_000, max_upload_size=64 << 20, storage_quota=1 << 30)


@pytest.mark.timeout(300)
def test_made_up_requests_are_answered_as_the_document_says(to_be_fuzzed, tmp_path):
    """Examples, edge cases, made-up data and sequences of requests, right and wrong ones, with and without a token."""
    target = to_be_fuzzed
    command = [SCHEMATHESIS, "--no-color", "--config-file", RULES, "run", f"{target.url}/openapi.json", "--checks=all"]
    environment = {**os.environ, "CRYOMAMBA_CONFORMANCE_ADA_TOKEN": target.ada}

    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_what_a_whole_job_is_answered_with_has_the_form_of_the_document(
    document, ada, stranger, small_volume, completed
):
    begun = ada.post(
        "/v1/uploads/init", json={"filename": "a.mrc", "total_size": len(small_volume), "chunk_size": 5 << 20}
    )
    upload, job = f"/v1/uploads/{begun.json()['upload_id']}", f"/v1/jobs/{completed.job_id}"
    part = ada.put(f"{upload}/part/0", content=small_volume)
    parts = [{"part_number": 0, "etag": part.json()["etag"]}]
    artifact = ada.job(completed.job_id)["artifacts"][0]["url"]
    files, uploads, jobs = "/v1/files/{job_id}/{artifact_name}", "/v1/uploads/{upload_id}", "/v1/jobs/{job_id}"
    answers = [
        ("GET", "/v1/healthz", stranger.get("/v1/healthz")),
        ("GET", "/v1/server/info", ada.get("/v1/server/info")),
        ("GET", "/v1/gpu/status", ada.get("/v1/gpu/status")),
        ("POST", "/v1/uploads/init", begun),
        ("PUT", uploads + "/part/{part_number}", part),
        ("GET", uploads, ada.get(upload)),
        ("POST", uploads + "/complete", ada.post(f"{upload}/complete", json={"parts": parts})),
        ("GET", "/v1/jobs", ada.get("/v1/jobs?limit=1")),
        ("GET", jobs, ada.get(job)),
        ("GET", files, httpx.get(ada.target.url + artifact)),
        ("GET", files, httpx.get(ada.target.url + artifact, headers={"Range": "bytes=0-9"})),
        ("HEAD", files, httpx.head(ada.target.url + artifact)),
        ("DELETE", jobs, ada.delete(job)),
        ("GET", jobs, stranger.get(job)),
    ]

    for method, path, answer in answers:
        document[path][method].validate_response(answer)
    assert [answer.status_code for _, _, answer in answers[:9]] == [200, 200, 200, 201, 200, 200, 200, 200, 200]


def test_a_method_that_an_address_does_not_take_is_405_and_names_those_that_it_does(ada):
    answer = ada.request("PATCH", "/v1/jobs")

    error(answer, 405, "VALIDATION_ERROR")
    assert answer.headers["allow"] == "GET, POST"
