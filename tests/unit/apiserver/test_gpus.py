"""GPUs in the API: those of a cluster, and a driver that takes its time."""

import asyncio
import threading
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from cryomamba_apiserver import profiles
from cryomamba_apiserver.app import create_app
from cryomamba_apiserver.gpus.census import GpuCensus, PlacedGpu, UnavailableNode, of_nodes, of_this_machine
from cryomamba_apiserver.gpus.reading import PatientReader, local_gpus
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.settings import Settings
from support.server_data import A6000

SECOND = replace(A6000, index=1)


@pytest.fixture
def with_gpus(server, context, monkeypatch):
    """Has the server find these GPUs."""

    def give(census: GpuCensus) -> None:
        async def read():
            return census

        monkeypatch.setattr(server.app.state, "context", replace(context, read_gpus=read))

    return give


@pytest.mark.parametrize(("url", "field"), [("/v1/gpu/status", "gpus"), ("/v1/server/info", "gpu_info")])
def test_a_gpu_of_a_cluster_says_where_it_is(ada, with_gpus, url, field):
    with_gpus(of_nodes({"b": GpuInventory("12.4", (A6000,)), "a": GpuInventory("12.4", (SECOND, A6000))}, {}))

    told = ada.get(url).json()

    assert [(gpu["id"], gpu["node"], gpu["index"]) for gpu in told[field]] == [(0, "a", 0), (1, "a", 1), (2, "b", 0)]
    assert "unavailable_nodes" not in told


@pytest.mark.parametrize("url", ["/v1/gpu/status", "/v1/server/info"])
def test_a_node_that_does_not_answer_is_named_with_the_reason(ada, with_gpus, url):
    with_gpus(of_nodes({}, {"b": "its agent has not started", "a": "its agent answered 500"}))

    answer = ada.get(url)

    assert answer.status_code == 200
    assert answer.json()["unavailable_nodes"] == [
        {"node": "a", "reason": "its agent answered 500"},
        {"node": "b", "reason": "its agent has not started"},
    ]


@pytest.mark.parametrize(("url", "field"), [("/v1/gpu/status", "gpus"), ("/v1/server/info", "gpu_info")])
def test_what_a_card_does_not_tell_is_null_and_not_left_out(ada, with_gpus, url, field):
    silent = replace(A6000, memory_total=None, memory_free=None, memory_used=None, utilization=None, power_usage=None)
    with_gpus(of_this_machine(GpuInventory("12.4", (silent,))))

    (gpu,) = ada.get(url).json()[field]

    assert gpu["memory_total"] is None
    assert gpu["memory_free"] is None
    assert "node" not in gpu
    assert "index" not in gpu


def test_without_a_node_that_has_gpus_there_is_no_cuda():
    assert of_nodes({"a": GpuInventory("12.4", ())}, {}) == GpuCensus(None, ())


def test_a_machine_keeps_the_indices_of_its_driver():
    census = of_this_machine(GpuInventory("12.4", (SECOND,), ("GPU 0 does not answer: GPU is lost",)))

    assert census.gpus == (PlacedGpu(1, SECOND),)
    assert census.unavailable == (UnavailableNode(None, "GPU 0 does not answer: GPU is lost"),)


async def _until_told(reader):
    while (inventory := await reader()).problems:
        pass
    return inventory


def test_a_driver_that_hangs_is_a_problem_that_is_told_in_time_and_ends_with_it():
    back, readings = threading.Event(), []

    def read():
        readings.append(None)
        back.wait()
        return GpuInventory("12.4", (A6000,))

    async def ask():
        reader = PatientReader(read, 0.05)
        first = await asyncio.gather(reader(), reader())
        second = await reader()
        back.set()
        return [*first, second], await _until_told(reader)

    told, afterwards = asyncio.run(ask())

    assert [inventory.problems for inventory in told] == [("the NVIDIA driver has not answered within 0.05 s",)] * 3
    assert afterwards.gpus == (A6000,)
    assert len(readings) == 1


def test_what_goes_wrong_in_a_reading_is_raised_where_it_is_awaited():
    def read():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(local_gpus(read, 5)())


def test_a_server_starts_though_its_driver_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "_FIRST_LOOK_SECONDS", 0.05)
    app = create_app(Settings(data_dir=tmp_path / "data"), gpus_of_this_machine=threading.Event().wait)

    with TestClient(app) as client:
        assert client.get("/livez").status_code == 200


def test_agents_are_asked_where_they_listen_by_default():
    assert Settings().gpu_agent_port == 9400
    assert Settings().gpu_agent_selector is None
