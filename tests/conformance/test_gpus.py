"""`GET /v1/gpu/status`."""

import httpx
import pytest

from support.api_target import Person, error, moment, ok, whole

ON_A_CLUSTER = {"node", "index"}


@pytest.fixture(scope="module")
def status(ada):
    return ok(ada.get("/v1/gpu/status"))


@pytest.fixture
def gpus(status, request):
    """GPUs as a server that has some tells of them: the target, else one that is made to believe so."""
    if status["gpus"]:
        return status["gpus"]
    target = request.getfixturevalue("scripted").target
    return ok(Person(target, target.ada).get("/v1/gpu/status"))["gpus"]


def test_gpu_status_asks_for_a_token(stranger):
    error(stranger.get("/v1/gpu/status"), 401, "AUTHENTICATION_REQUIRED")


def test_the_curl_example_of_gpu_status_works(target):
    answer = httpx.get(f"{target.url}/v1/gpu/status", headers={"Authorization": f"Bearer {target.ada}"})

    assert answer.status_code == 200


def test_gpu_status_has_gpus_and_timestamp(status):
    assert {"gpus", "timestamp"} <= set(status)
    assert isinstance(status["gpus"], list)


def test_gpu_status_timestamp_is_utc(status):
    moment(status["timestamp"])


def test_gpu_status_without_a_gpu_is_an_empty_list_and_no_error(ada, status):
    if ok(ada.get("/v1/server/info"))["gpu_count"]:
        pytest.skip("the server has a GPU")

    assert status["gpus"] == []


def test_gpu_status_has_the_fields_of_the_reference_and_no_other(gpus):
    for gpu in gpus:
        assert set(gpu) - ON_A_CLUSTER == {
            "id",
            "name",
            "memory_used",
            "memory_total",
            "memory_free",
            "utilization",
            "temperature",
            "power_usage",
            "power_limit",
        }


def test_gpu_status_id_is_a_number_and_name_a_text(gpus):
    for gpu in gpus:
        assert whole(gpu["id"])
        assert isinstance(gpu["name"], str)


def test_gpu_status_gives_memory_in_mib(gpus):
    for gpu in gpus:
        if gpu["memory_total"] is None:
            continue  # a card that shares the machine's memory does not tell
        assert all(whole(gpu[field]) for field in ("memory_used", "memory_total", "memory_free"))
        assert 1024 <= gpu["memory_total"] < 1 << 20  # from a GiB to a TiB; in bytes it would be thousands of millions
        assert 0 <= gpu["memory_used"] <= gpu["memory_total"]


def test_gpu_status_gives_utilization_in_percent(gpus):
    for gpu in gpus:
        assert gpu["utilization"] is None or 0 <= gpu["utilization"] <= 100


def test_gpu_status_gives_temperature_in_degrees_celsius(gpus):
    for gpu in gpus:
        assert gpu["temperature"] is None or 0 < gpu["temperature"] < 150


@pytest.mark.parametrize("field", ["power_usage", "power_limit"])
def test_gpu_status_gives_power_in_watts(gpus, field):
    for gpu in gpus:
        assert gpu[field] is None or 0 < gpu[field] < 10_000
