"""The SDK against a server in memory."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from cryomamba import ApiError, Client, ConnectionFailedError, CryoMambaError, JobParams, UnexpectedAnswerError
from cryomamba.models import Artifact

MEBIBYTE = 2**20


def envelope(code: str, *, retryable: bool, **details: object) -> dict[str, object]:
    return {"error": {"code": code, "message": "No.", "hint": "Do.", "retryable": retryable, "details": details}}


def test_a_file_is_sent_in_parts_and_arrives_whole(client: Client, server: Any, tmp_path: Path) -> None:
    data = bytes(range(256)) * (20 * MEBIBYTE // 256) + b"end"
    path = tmp_path / "tomogram.mrc"
    path.write_bytes(data)

    uploaded = client.upload(path)

    assert uploaded.file_id == "file_1"
    assert [len(server.parts[number]) for number in range(3)] == [8 * MEBIBYTE, 8 * MEBIBYTE, 4 * MEBIBYTE + 3]
    assert b"".join(server.parts[number] for number in range(3)) == data
    assert server.body("/v1/uploads/init") == {
        "filename": "tomogram.mrc",
        "total_size": len(data),
        "chunk_size": 8 * MEBIBYTE,
        "content_type": "application/octet-stream",
    }
    assert server.body("/v1/uploads/upl_1/complete") == {
        "parts": [{"part_number": number, "etag": f"etag{number}"} for number in range(3)]
    }


def test_a_part_declares_its_length_and_its_type(client: Client, server: Any, volume: Path) -> None:
    client.upload(volume)

    [put] = [request for request in server.requests if request.method == "PUT"]
    assert put.headers["Content-Length"] == str(volume.stat().st_size)
    assert put.headers["Content-Type"] == "application/octet-stream"
    assert "Transfer-Encoding" not in put.headers


def test_the_token_goes_into_the_header_of_every_call_and_into_no_url(
    client: Client, server: Any, volume: Path
) -> None:
    client.upload(volume)
    client.job("job_abc")

    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer test-token"}
    assert not any("test-token" in str(request.url) for request in server.requests)
    assert "test-token" not in repr(client)


def test_upload_progress_ends_at_the_size_of_the_file(client: Client, volume: Path) -> None:
    seen: list[tuple[int, int]] = []

    client.upload(volume, on_progress=lambda sent, total: seen.append((sent, total)))

    size = volume.stat().st_size
    assert seen[-1] == (size, size)


def test_a_part_that_is_sent_again_is_counted_once(client: Client, server: Any, volume: Path) -> None:
    seen: list[int] = []
    server.fail("/v1/uploads/upl_1/part/0", httpx.Response(503, json=envelope("SERVICE_UNAVAILABLE", retryable=True)))

    client.upload(volume, on_progress=lambda sent, _total: seen.append(sent))

    assert max(seen) == volume.stat().st_size
    assert len(server.paths("PUT")) == 2


def test_parts_are_under_way_at_the_same_time_but_not_more_than_three(tmp_path: Path) -> None:
    path = tmp_path / "tomogram.mrc"
    with path.open("wb") as file:
        file.truncate(48 * MEBIBYTE)
    lock, at_once, most = threading.Lock(), 0, 0
    together = threading.Barrier(3, timeout=30)  # opens only for three parts at a time; six parts come as two threes

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal at_once, most
        when = "2025-10-17T10:40:00Z"
        if request.method == "PUT":
            with lock:
                at_once += 1
                most = max(most, at_once)
            together.wait()
            with lock:
                at_once -= 1
            number = int(request.url.path.rpartition("/")[2])
            return httpx.Response(200, json={"part_number": number, "etag": "e"})
        if request.url.path.endswith("/init"):
            urls = [f"/part/{number}" for number in range(6)]
            return httpx.Response(201, json={"upload_id": "upl_1", "chunk_urls": urls, "expires_at": when})
        metadata = {"shape": [1, 1, 1], "dtype": "int8"}
        answer = {"file_id": "f", "filename": "t", "size": 1, "checksum": "c", "metadata": metadata}
        return httpx.Response(200, json=answer | {"created_at": when})

    with Client("http://127.0.0.1:1", "t", transport=httpx.MockTransport(handle)) as client:
        client.upload(path)

    assert most == 3


def test_a_part_refused_for_good_ends_the_upload_at_once(client: Client, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "tomogram.mrc"
    with path.open("wb") as file:
        file.truncate(200 * MEBIBYTE)
    refused = httpx.Response(507, json=envelope("INSUFFICIENT_STORAGE", retryable=False))
    server.fail("/v1/uploads/upl_1/part/0", refused)

    with pytest.raises(ApiError) as caught:
        client.upload(path)

    assert caught.value.code == "INSUFFICIENT_STORAGE"
    assert len(server.paths("PUT")) < 25
    assert not any(path.endswith("/complete") for path in server.paths("POST"))


def test_an_empty_file_is_not_sent(client: Client, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.mrc"
    path.touch()

    with pytest.raises(CryoMambaError, match=r"empty\.mrc is empty"):
        client.upload(path)

    assert server.requests == []


def test_a_missing_file_is_named(client: Client, tmp_path: Path) -> None:
    with pytest.raises(CryoMambaError, match=r"nowhere\.mrc cannot be read"):
        client.upload(tmp_path / "nowhere.mrc")


def test_a_server_that_is_full_is_asked_again_after_the_seconds_it_names(
    client: Client, server: Any, pauses: list[float]
) -> None:
    busy = envelope("SERVICE_UNAVAILABLE", retryable=True)
    server.fail("/v1/server/info", httpx.Response(503, json=busy, headers={"Retry-After": "7"}))

    assert client.server_info().available_models == ["demo"]
    assert pauses == [7]


def test_the_seconds_may_stand_in_the_details_instead(client: Client, server: Any, pauses: list[float]) -> None:
    limited = envelope("RATE_LIMIT_EXCEEDED", retryable=True, retry_after_seconds=15)
    server.fail("/v1/server/info", httpx.Response(429, json=limited))

    client.server_info()

    assert pauses == [15]


def test_what_the_server_calls_final_is_not_repeated(client: Client, server: Any, pauses: list[float]) -> None:
    broken = envelope("INFERENCE_ERROR", retryable=False)
    server.fail("/v1/jobs/job_abc", httpx.Response(500, json=broken))

    with pytest.raises(ApiError):
        client.job("job_abc")

    assert pauses == []
    assert len(server.requests) == 1


def test_a_refusal_carries_all_that_the_envelope_says(client: Client, server: Any) -> None:
    server.fail("/v1/jobs", httpx.Response(409, json=envelope("CONFLICT", retryable=False, job_id="job_live")))

    with pytest.raises(ApiError) as caught:
        client.create_job("file_1", "demo")

    error = caught.value
    assert (error.code, error.message, error.hint, error.retryable) == ("CONFLICT", "No.", "Do.", False)
    assert error.details == {"job_id": "job_live"}
    assert error.status == 409


@pytest.mark.parametrize(("status", "code", "attempts"), [(502, "INTERNAL_ERROR", 5), (404, "NOT_FOUND", 1)])
def test_an_error_page_of_a_proxy_is_told_by_its_status(
    client: Client, server: Any, status: int, code: str, attempts: int
) -> None:
    server.fail("/v1/gpu", *[httpx.Response(status, html="<h1>Bad gateway</h1>") for _ in range(attempts)])

    with pytest.raises(ApiError, match=f"http://127.0.0.1:8000/v1/gpu/status answered HTTP {status}") as caught:
        client.gpu_status()

    assert caught.value.code == code
    assert len(server.requests) == attempts


def test_an_answer_that_is_no_json_is_called_unexpected(client: Client, server: Any) -> None:
    server.fail("/v1/server/info", httpx.Response(200, html="<h1>Welcome to the router</h1>"))

    with pytest.raises(UnexpectedAnswerError, match="/v1/server/info answered something unexpected"):
        client.server_info()


def test_a_server_that_never_answered_is_not_waited_for(client: Client, server: Any, pauses: list[float]) -> None:
    server.fail("/", httpx.ConnectError("Connection refused"))

    with pytest.raises(
        ConnectionFailedError, match=r"no CryoMamba server answers at http://127\.0\.0\.1:8000"
    ) as caught:
        client.server_info()

    assert "cryomamba serve" in caught.value.hint
    assert pauses == []


def test_a_server_that_answered_before_may_come_back(client: Client, server: Any, pauses: list[float]) -> None:
    client.server_info()
    server.fail("/", httpx.ConnectError("Connection refused"), httpx.ReadError("reset"))

    assert client.job("job_abc").status == "queued"
    assert len(pauses) == 2


def test_a_job_is_asked_for_with_what_differs_from_the_defaults(client: Client, server: Any) -> None:
    params = JobParams(folds=[0, 2], disable_tta=True, voxel_size=(1.0, 1.0, 2.0))

    client.create_job("file_1", "demo", params)

    assert server.body("/v1/jobs") == {
        "file_id": "file_1",
        "model": "demo",
        "params": {"folds": [0, 2], "disable_tta": True, "voxel_size": [1.0, 1.0, 2.0]},
    }


def test_repeating_a_lost_request_for_a_job_uses_the_same_key(client: Client, server: Any) -> None:
    client.server_info()
    server.fail("/v1/jobs", httpx.ReadError("reset"))

    client.create_job("file_1", "demo")
    client.create_job("file_1", "demo")

    keys = [request.headers["Idempotency-Key"] for request in server.requests if request.method == "POST"]
    assert keys[0] == keys[1] != keys[2]


def test_the_list_of_jobs_is_filtered_by_the_server(client: Client, server: Any) -> None:
    server.fail("/v1/jobs", httpx.Response(200, json={"jobs": [], "total": 150, "limit": 10, "offset": 20}))

    assert client.jobs("completed", limit=10, offset=20).total == 150
    assert dict(server.requests[0].url.params) == {"limit": "10", "offset": "20", "status": "completed"}


def test_a_path_before_the_api_is_kept(make_client: Callable[..., Client], server: Any) -> None:
    server.fail("/cryomamba/v1/server/info", httpx.Response(200, json={"version": "1.0.0"}))

    make_client("https://host.example/cryomamba/").server_info()

    assert str(server.requests[0].url) == "https://host.example/cryomamba/v1/server/info"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", ""])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(CryoMambaError, match="is not the URL of a server"):
        Client(url)


def artifact(**changes: object) -> Artifact:
    fields = {"name": "segmentation.mrc", "size": 5, "url": "/v1/files/job_abc/segmentation.mrc?token=x"}
    return Artifact.model_validate(fields | changes)


def test_a_download_is_saved_under_its_name_and_without_the_token(client: Client, server: Any, tmp_path: Path) -> None:
    server.files["segmentation.mrc"] = b"voxel"

    saved = client.download(artifact(), tmp_path / "new")

    assert saved == tmp_path / "new" / "segmentation.mrc"
    assert saved.read_bytes() == b"voxel"
    assert "Authorization" not in server.requests[0].headers


def test_a_download_that_is_cut_short_is_tried_again_and_then_refused(
    client: Client, server: Any, tmp_path: Path
) -> None:
    server.files["segmentation.mrc"] = b"vox"

    with pytest.raises(CryoMambaError, match="arrived with 3 of 5 bytes"):
        client.download(artifact(), tmp_path)

    assert len(server.requests) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", "", "a/b"])
def test_a_name_with_a_path_in_it_is_not_saved(client: Client, server: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnexpectedAnswerError):
        client.download(artifact(name=name), tmp_path)

    assert server.requests == []


def test_the_signature_of_a_download_stays_out_of_messages(client: Client, server: Any, tmp_path: Path) -> None:
    server.fail("/v1/files", httpx.Response(403, text="no"))

    with pytest.raises(ApiError) as caught:
        client.download(artifact(url="/v1/files/job_abc/segmentation.mrc?token=s3cret"), tmp_path)

    assert "s3cret" not in str(caught.value)
    assert caught.value.code == "FORBIDDEN"
