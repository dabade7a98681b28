"""`GET /v1/healthz` and `GET /v1/server/info`."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from support.api_target import Person, error, moment, ok, whole

GPU_FIELDS = {"id", "name", "memory_total", "memory_free", "compute_capability"}


@pytest.fixture(scope="module")
def info(ada):
    return ok(ada.get("/v1/server/info"))


@pytest.fixture
def info_with_gpu(info, request):
    """The answer of a server that has a GPU: the target, else one that is made to believe so."""
    if info["gpu_info"]:
        return info
    target = request.getfixturevalue("scripted").target
    return ok(Person(target, target.ada).get("/v1/server/info"))


def test_health_is_answered_200_without_a_token(stranger):
    ok(stranger.get("/v1/healthz"))


def test_health_has_status_timestamp_and_uptime_and_nothing_else(stranger):
    assert set(ok(stranger.get("/v1/healthz"))) == {"status", "timestamp", "uptime_seconds"}


def test_health_status_is_healthy(stranger):
    assert ok(stranger.get("/v1/healthz"))["status"] == "healthy"


def test_health_timestamp_is_the_time_in_utc(stranger):
    answered = moment(ok(stranger.get("/v1/healthz"))["timestamp"])

    assert abs(datetime.now(UTC) - answered) < timedelta(minutes=1)


def test_health_uptime_is_whole_seconds(stranger):
    uptime = ok(stranger.get("/v1/healthz"))["uptime_seconds"]

    assert whole(uptime)
    assert uptime >= 0


def test_the_curl_example_of_health_works(target):
    assert httpx.get(f"{target.url}/v1/healthz").status_code == 200


def test_the_curl_example_of_server_info_works(target):
    answer = httpx.get(f"{target.url}/v1/server/info", headers={"Authorization": f"Bearer {target.ada}"})

    assert answer.status_code == 200


def test_server_info_asks_for_a_token(stranger):
    error(stranger.get("/v1/server/info"), 401, "AUTHENTICATION_REQUIRED")


def test_server_info_has_the_fields_of_the_reference_and_no_other(info):
    assert set(info) - {"unavailable_nodes"} == {
        "version",
        "nnunet_version",
        "cuda_available",
        "cuda_version",
        "gpu_count",
        "gpu_info",
        "max_upload_size",
        "supported_formats",
        "available_models",
    }


def test_server_info_version_is_that_of_the_server(info):
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", info["version"])


def test_server_info_nnunet_version_is_a_version(info):
    # null where jobs run elsewhere and this server has no nnU-Net.
    assert info["nnunet_version"] is None or re.fullmatch(r"\d+\.\d+.*", info["nnunet_version"])


def test_server_info_cuda_available_says_whether_there_is_a_gpu(info):
    assert info["cuda_available"] is (info["gpu_count"] > 0)


def test_server_info_cuda_version_is_a_version_where_there_is_a_gpu(info_with_gpu):
    assert info_with_gpu["cuda_available"] is True
    assert re.fullmatch(r"\d+\.\d+", info_with_gpu["cuda_version"])


def test_server_info_gpu_count_is_that_of_gpu_info(info):
    assert whole(info["gpu_count"])
    assert info["gpu_count"] == len(info["gpu_info"])


def test_server_info_describes_each_gpu_with_the_fields_of_the_reference(info_with_gpu):
    for gpu in info_with_gpu["gpu_info"]:
        assert set(gpu) - {"node", "index"} == GPU_FIELDS
        assert whole(gpu["id"])
        assert isinstance(gpu["name"], str)
        assert re.fullmatch(r"\d+\.\d+", gpu["compute_capability"])


def test_server_info_gives_the_memory_of_gpus_in_bytes(info_with_gpu):
    for gpu in info_with_gpu["gpu_info"]:
        if gpu["memory_total"] is None:
            continue  # a card that shares the machine's memory does not tell
        assert whole(gpu["memory_total"])
        assert whole(gpu["memory_free"])
        assert gpu["memory_total"] >= 1 << 30  # no card that runs a network has less; in MiB it would be a million
        assert 0 <= gpu["memory_free"] <= gpu["memory_total"]


def test_server_info_max_upload_size_is_in_bytes(info):
    assert whole(info["max_upload_size"])
    assert info["max_upload_size"] > 0


def test_server_info_max_upload_size_is_10_gib_by_default(serve):
    target = serve()

    assert ok(Person(target, target.ada).get("/v1/server/info"))["max_upload_size"] == 10737418240


def test_server_info_supported_formats_are_mrc_and_nifti(info):
    assert info["supported_formats"] == ["mrc", "nifti"]


def test_server_info_available_models_are_those_that_jobs_may_name(info, target):
    assert all(isinstance(name, str) for name in info["available_models"])
    assert target.model in info["available_models"]
