"""The table of error codes, and the envelope."""

import pytest

from support.api_target import CHUNK, error, ok

FIELDS = {"code", "message", "hint", "retryable", "details"}


def test_errors_come_in_one_envelope(ada, stranger):
    answers = [
        stranger.get("/v1/jobs"),
        ada.get("/v1/jobs/job_mno345pqr678"),
        ada.get("/v1/jobs", params={"limit": 0}),
        ada.get("/v1/nothing"),
        ada.request("PATCH", "/v1/jobs"),
        ada.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}),
    ]

    for answer in answers:
        (key,) = body = answer.json()
        assert key == "error"
        assert set(body["error"]) == FIELDS


def test_the_envelopes_message_and_hint_are_texts_and_details_an_object(ada):
    error(ada.get("/v1/jobs/job_mno345pqr678"), 404, "NOT_FOUND")


def test_validation_error_is_400_and_not_retryable(ada):
    assert error(ada.post("/v1/jobs", json={}), 400, "VALIDATION_ERROR")["retryable"] is False


def test_validation_error_names_the_field_in_details(ada):
    assert "file_id" in error(ada.post("/v1/jobs", json={}), 400, "VALIDATION_ERROR")["details"]["field"]


def test_authentication_required_is_401_and_not_retryable(stranger):
    assert error(stranger.get("/v1/jobs"), 401, "AUTHENTICATION_REQUIRED")["retryable"] is False


def test_forbidden_is_403_and_not_retryable(reader):
    assert error(reader.post("/v1/uploads/init", json={}), 403, "FORBIDDEN")["retryable"] is False


def test_not_found_is_404_and_not_retryable(ada):
    assert error(ada.get("/v1/jobs/job_mno345pqr678"), 404, "NOT_FOUND")["retryable"] is False


def test_conflict_is_409_and_not_retryable(ada, completed):
    assert error(ada.delete(f"/v1/jobs/{completed.job_id}"), 409, "CONFLICT")["retryable"] is False


def test_payload_too_large_is_413_and_not_retryable(ada):
    body = {"filename": "a.mrc", "total_size": 2**60, "chunk_size": CHUNK}

    assert error(ada.post("/v1/uploads/init", json=body), 413, "PAYLOAD_TOO_LARGE")["retryable"] is False


def test_service_unavailable_is_503_and_retryable(at_capacity):
    assert error(at_capacity, 503, "SERVICE_UNAVAILABLE")["retryable"] is True


def test_insufficient_storage_is_507_and_not_retryable(storage_full):
    assert error(storage_full, 507, "INSUFFICIENT_STORAGE")["retryable"] is False


def test_internal_error_is_500_and_retryable(scripted):
    """A record of an upload that somebody has damaged on the disk."""
    someone = scripted.ada
    begun = someone.begin(8)
    (record,) = scripted.data_dir.rglob(f"{begun['upload_id']}/session.json")
    record.write_text("{")

    answer = someone.put(begun["chunk_urls"][0], content=b"12345678")

    assert error(answer, 500, "INTERNAL_ERROR")["retryable"] is True


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        ("GPU_ERROR", True),
        ("INFERENCE_ERROR", False),
        ("OUT_OF_MEMORY", False),
    ],
)
def test_what_goes_wrong_in_a_job_is_told_with_its_code(scripted, code, retryable):
    """These three are the 500s of jobs: no request fails with them, a job's `error` and last message do."""
    someone = scripted.ada
    scripted.jobs_do(f"fail={code}")
    file_id = scripted.new_file()
    job_id = ok(someone.submit(file_id), 201)["job_id"]

    last = someone.watch(job_id)[-1]

    assert last["type"] == "error"
    assert last["error"]["code"] == code
    assert last["error"]["retryable"] is retryable
    assert someone.job(job_id)["error"] == last["error"]
