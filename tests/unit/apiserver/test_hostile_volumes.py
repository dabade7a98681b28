"""Hostile volumes, uploaded over the API: refused by field, cheaply, and the server goes on."""

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings

from corpus.hostile_volumes import HOSTILE, hostile_volumes

MEGABYTE = 1_000_000
# What a message calls a field that has no name in a header, or one that nobody says.
WORDS = {
    "format": ("neither MRC nor NIfTI", "gzip"),
    "size": ("truncated", "inflates to more", "holds"),
    "gzip": ("gzip",),
    "dim": ("dim", "volumes", "By the NIfTI header"),
    "magic": ("NIfTI-2", ".hdr and .img", "the mark of NIfTI"),
    "sizeof_hdr": ("does not begin with its length",),
    "imodFlags": ("IMOD's flags",),
}


def test_there_are_at_least_sixty():
    assert len(HOSTILE) >= 60


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all, since none of them may do it any harm."""
    from fastapi.testclient import TestClient

    from cryomamba_apiserver.app import create_app
    from cryomamba_apiserver.gpus.service import GpuInventory
    from cryomamba_apiserver.settings import Settings

    limits = {"requests_per_minute": 1_000_000, "max_open_uploads": 100_000}
    app = create_app(
        Settings(data_dir=tmp_path_factory.mktemp("server") / "data", **limits),
        gpus_of_this_machine=lambda: GpuInventory(None, ()),
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def complete(server):
    """Uploads bytes and returns the answer to `complete` and the bytes of memory that it took."""
    from datetime import timedelta

    from cryomamba_apiserver.auth import Scope

    authority = server.app.state.context.authority
    token = authority.issue("ada", frozenset({Scope.READ, Scope.WRITE}), timedelta(hours=1))
    headers = {"Authorization": f"Bearer {token}"}

    def send(data: bytes):
        request = {"filename": "v.mrc", "total_size": len(data), "chunk_size": 5 * 1024**2}
        begun = server.post("/v1/uploads/init", json=request, headers=headers).json()
        part = server.put(begun["chunk_urls"][0], content=data, headers=headers).json()
        body = {"parts": [{"part_number": 0, "etag": part["etag"]}]}
        tracemalloc.start()
        try:
            answer = server.post(f"/v1/uploads/{begun['upload_id']}/complete", json=body, headers=headers)
            spent = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return answer, spent

    send(b"what the first request loads is not counted")
    return send


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_volume_is_refused_by_field_and_for_less_than_a_megabyte(complete, name):
    hostile = HOSTILE[name]

    answer, spent = complete(hostile.content())

    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"]["field"] == hostile.field, error
    assert any(word in error["message"] for word in WORDS.get(hostile.field, (hostile.field,))), error
    assert error["hint"]
    assert error["retryable"] is False
    assert spent < MEGABYTE


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(content=hostile_volumes())
def test_no_volume_at_all_is_answered_with_anything_but_its_facts_or_the_field_that_is_wrong(complete, content):
    answer, spent = complete(content)

    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["error"]["details"]["field"]
    assert spent < MEGABYTE


def test_the_server_goes_on_afterwards(server, complete, emd_3197):
    answer, _ = complete(emd_3197)

    assert answer.status_code == 200
    assert server.get("/v1/healthz").json()["status"] == "healthy"
