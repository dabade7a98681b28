"""What the server says of itself, and of requests that nothing answers."""

from dataclasses import replace

import pynvml
import pytest

from cryomamba_apiserver.gpus.reading import local_gpus
from cryomamba_apiserver.gpus.service import GpuInventory, read_gpus, usable_gpus
from support.server_data import A6000


def test_the_server_says_what_it_can_do(ada):
    answer = ada.get("/v1/server/info")

    assert answer.status_code == 200
    assert answer.json() == {
        "version": "1.0.0",
        "nnunet_version": "2.8.1",
        "cuda_available": False,
        "cuda_version": None,
        "gpu_count": 0,
        "gpu_info": [],
        "max_upload_size": 10737418240,
        "supported_formats": ["mrc", "nifti"],
        "available_models": ["demo"],
    }


def test_no_gpu_is_an_empty_list(ada, clock):
    assert ada.get("/v1/gpu/status").json() == {"gpus": [], "timestamp": clock.wire()}


def test_a_gpu_is_told_in_the_units_of_the_reference(ada, context, server, monkeypatch):
    read = local_gpus(lambda: GpuInventory("12.1", (A6000,)), seconds=60)
    monkeypatch.setattr(server.app.state, "context", replace(context, read_gpus=read))

    info, status = ada.get("/v1/server/info").json(), ada.get("/v1/gpu/status").json()

    assert (info["cuda_available"], info["cuda_version"], info["gpu_count"]) == (True, "12.1", 1)
    assert info["gpu_info"] == [
        {
            "id": 0,
            "name": "NVIDIA A6000",
            "memory_total": 51539607552,
            "memory_free": 32212254720,
            "compute_capability": "8.6",
        }
    ]
    assert status["gpus"] == [
        {
            "id": 0,
            "name": "NVIDIA A6000",
            "memory_used": 18432,
            "memory_total": 49152,
            "memory_free": 30720,
            "utilization": 85,
            "temperature": 72,
            "power_usage": 280,
            "power_limit": 300,
        }
    ]


@pytest.mark.parametrize(
    ("variable", "usable"),
    [(None, (0, 1)), ("", ()), ("1", (1,)), ("1,0", (0, 1)), ("0, 7", (0,)), ("-1", ())],
)
def test_jobs_use_the_gpus_that_were_left_visible(variable, usable):
    inventory = GpuInventory("12.1", (A6000, replace(A6000, index=1)))

    assert usable_gpus(inventory, variable) == usable


def test_gpus_that_are_named_in_another_way_are_refused_by_name():
    with pytest.raises(ValueError, match="GPU-5a"):
        usable_gpus(GpuInventory("12.1", (A6000,)), "GPU-5a")


def test_a_driver_that_does_not_answer_is_no_gpu(monkeypatch, caplog):
    def mismatch() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", mismatch)

    assert read_gpus().gpus == ()
    assert read_gpus().problems == ("the NVIDIA driver does not answer: RM has detected an NVML/RM version mismatch.",)
    assert "does not answer" in caplog.text


@pytest.mark.parametrize("token", [None, "nonsense"])
def test_a_stranger_is_refused_before_its_body_is_judged(server, token):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    answer = server.post("/v1/jobs", content=b"{", headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "AUTHENTICATION_REQUIRED"


def test_a_body_that_is_too_large_is_refused(ada):
    answer = ada.post("/v1/jobs", content=b" " * (3 << 20))

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_the_description_says_which_endpoints_need_a_token(server):
    paths = server.get("/openapi.json").json()["paths"]

    assert paths["/v1/jobs"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in paths["/v1/healthz"]["get"]
    assert "security" not in paths["/v1/files/{job_id}/{artifact_name}"]["get"]


@pytest.mark.parametrize(
    ("method", "url", "status", "code"),
    [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("PATCH", "/v1/jobs", 405, "VALIDATION_ERROR"),
        ("POST", "/v1/jobs", 400, "VALIDATION_ERROR"),
    ],
)
def test_what_nothing_answers_comes_in_the_envelope(server, token, method, url, status, code):
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}

    answer = server.request(method, url, content=b"{", headers=headers)

    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"code", "message", "hint", "retryable", "details"}
    assert answer.json()["error"]["code"] == code


def test_an_unexpected_error_is_told_without_its_details(ada, context, server, monkeypatch, caplog):
    def broken() -> GpuInventory:
        raise RuntimeError("a detail that is nobody's business")

    monkeypatch.setattr(server.app.state, "context", replace(context, read_gpus=broken))

    answer = ada.get("/v1/gpu/status")

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
    assert "detail" not in answer.json()["error"]["message"]
    assert "a detail that is nobody's business" in caplog.text
