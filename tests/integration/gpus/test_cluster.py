"""The GPUs of a cluster: agents that answer, hang, refuse and talk nonsense, each on an address of its own."""

import asyncio
import json
import random
import time
from contextlib import asynccontextmanager, suppress

import pytest

from cryomamba_apiserver.gpus.agents import ClusterGpus, cluster_gpus
from cryomamba_apiserver.gpus.census import GpuCensus, UnavailableNode
from cryomamba_apiserver.ports.job_store import JobsUnavailableError
from cryomamba_apiserver.settings import Settings
from devcluster import network
from support.waiting import until

SELECTOR = "app.kubernetes.io/component=gpu-agent"
HERE = {"node-b": "127.0.0.2", "node-a": "127.0.0.3"}
"""Where real agents run."""
ELSEWHERE = "127.0.0.9"


@pytest.fixture(scope="module")
def port():
    return str(network.free_port("127.0.0.1", random.SystemRandom()))


@pytest.fixture
def agents(start, port):
    """Two nodes with two GPUs each."""
    for node, host in HERE.items():
        start(node, gpu_agent_host=host, gpu_agent_port=port)
    return [(host, node) for node, host in HERE.items()]


def listing(pods):
    async def list_pods(selector):
        assert selector == SELECTOR
        return pods

    return list_pods


def census_of(pods, port, seconds=2.0):
    settings = Settings(gpu_agent_selector=SELECTOR, gpu_agent_port=port, gpu_agent_seconds=seconds)
    return asyncio.run(cluster_gpus(listing(pods), settings)())


@asynccontextmanager
async def answering(port, *pieces, host=ELSEWHERE, last_for_ever=False):
    """Answer each connection with these bytes and close it, or else repeat the last of them every 50 ms."""

    async def answer(reader, writer):
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
            while last_for_ever and not reader.at_eof():
                writer.write(pieces[-1])
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), 0.05)
        writer.close()

    server = await asyncio.start_server(answer, host, int(port))
    async with server:
        yield


def http(body, status="200 OK", headers=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}".encode()


def census_with(pieces, port, seconds=2.0, **how):
    """Ask about one node, where something answers that is no agent."""

    async def ask():
        async with answering(port, *pieces, **how):
            return await ClusterGpus(listing([(ELSEWHERE, "node-x")]), SELECTOR, int(port), seconds)()

    return asyncio.run(ask())


def test_gpus_are_numbered_in_the_order_of_node_and_index(agents, port):
    census = census_of(agents, port)

    assert census.cuda_version == "12.4"
    assert [(placed.id, placed.node, placed.gpu.index) for placed in census.gpus] == [
        (0, "node-a", 0),
        (1, "node-a", 1),
        (2, "node-b", 0),
        (3, "node-b", 1),
    ]
    assert census.gpus[0].gpu.memory_total == 48 << 30
    assert census.unavailable == ()


def test_nodes_that_do_not_answer_are_named_and_not_waited_for(agents, port):
    async def ask():
        async with answering(port, b"", host="127.0.0.4", last_for_ever=True):
            pods = [*agents, ("127.0.0.4", "hangs"), ("127.0.0.5", "refuses"), (None, "starts")]
            began = time.monotonic()
            census = await ClusterGpus(listing(pods), SELECTOR, int(port), 1.0)()
            return census, time.monotonic() - began

    census, took = asyncio.run(ask())

    assert len(census.gpus) == 4
    assert census.unavailable == (
        UnavailableNode("hangs", "its agent did not answer within 1 s"),
        UnavailableNode("refuses", "its agent cannot be reached: connection refused"),
        UnavailableNode("starts", "its agent has not started"),
    )
    assert took < 1.9


def test_a_node_whose_driver_hangs_is_named_with_the_agents_own_words(agents, port, gpus):
    gpus.say("gpus=2 hang=memory")

    census = census_of(agents, port, seconds=2.0)

    assert census.gpus == ()
    assert {entry.node for entry in census.unavailable} == {"node-a", "node-b"}
    assert {entry.reason for entry in census.unavailable} == {"the NVIDIA driver has not answered within 1.5 s"}
    gpus.say("gpus=2")
    until(lambda: not census_of(agents, port).unavailable)


def test_a_node_that_has_lost_a_gpu_is_named_and_its_other_gpus_are_told(agents, port, gpus):
    gpus.say("gpus=2 lost=0")

    census = census_of(agents, port)

    assert [(placed.node, placed.gpu.index) for placed in census.gpus] == [("node-a", 1), ("node-b", 1)]
    assert census.unavailable[0] == UnavailableNode("node-a", "GPU 0 does not answer: GPU is lost")


GPU = {
    "index": 0,
    "name": "card",
    "memory_total": 1,
    "memory_free": 1,
    "memory_used": 0,
    "compute_capability": "8.6",
    "utilization": None,
    "temperature": None,
    "power_usage": None,
    "power_limit": None,
}
REPORT = {"node": "node-x", "cuda_version": "12.4", "gpus": [GPU], "problems": []}
NO_AGENT = "what answers in its agent's place is none"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x00\xff\x13 nonsense\r\n\r\n", NO_AGENT),
        (b"", "its agent broke the connection off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", NO_AGENT),
        (http("<html>"), NO_AGENT),
        (http("{}"), NO_AGENT),
        (http("[" * 100_000), NO_AGENT),
        (http(json.dumps(REPORT | {"gpus": [GPU | {"memory_total": "much"}]})), NO_AGENT),
        (http(json.dumps(REPORT | {"gpus": [GPU] * 1000})), NO_AGENT),
        (http(json.dumps(REPORT | {"cuda_version": "x"})), NO_AGENT),
        (http(json.dumps(REPORT) + " " * (2 << 20)), NO_AGENT),
        (http("", "500 Internal Server Error"), "its agent answered 500"),
        (http("", "302 Found", f"Location: http://{ELSEWHERE}:1/\r\n"), "its agent answered 302"),
    ],
)
def test_nonsense_is_named_and_not_shown(port, answer, reason):
    census = census_with([answer], port)

    assert census == GpuCensus(None, (), (UnavailableNode("node-x", reason),))


def test_an_answer_that_never_ends_is_cut_off(port):
    endless = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n"]

    census = census_with(endless, port, 0.5, last_for_ever=True)

    assert census.unavailable == (UnavailableNode("node-x", "its agent did not answer within 0.5 s"),)


def test_what_a_newer_agent_tells_besides_is_no_obstacle(port):
    report = json.dumps(REPORT | {"mood": "good", "gpus": [GPU | {"fan": 3}]})

    census = census_with([http(report)], port)

    assert [placed.gpu.name for placed in census.gpus] == ["card"]


def test_an_agent_that_is_being_replaced_is_told_by_the_one_that_answers(agents, port):
    pods = [("127.0.0.5", "node-a"), *agents, (None, "node-b")]

    census = census_of(pods, port)

    assert len(census.gpus) == 4
    assert census.unavailable == ()


def test_a_pod_that_is_on_no_node_yet_is_nobodys():
    assert census_of([(None, None)], "9400") == GpuCensus(None, ())


def test_without_a_selector_no_agent_is_asked():
    assert asyncio.run(cluster_gpus(listing([]), Settings())()) == GpuCensus(None, ())


def test_the_oldest_of_the_drivers_says_which_cuda_there_is(port):
    older = {**REPORT, "cuda_version": "9.10"}

    async def ask():
        async with (
            answering(port, http(json.dumps(REPORT)), host="127.0.0.7"),
            answering(port, http(json.dumps(older)), host="127.0.0.8"),
        ):
            pods = [("127.0.0.7", "new"), ("127.0.0.8", "old")]
            return await ClusterGpus(listing(pods), SELECTOR, int(port), 2.0)()

    assert asyncio.run(ask()).cuda_version == "9.10"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (
            JobsUnavailableError("The server is not allowed to list pods.", "…"),
            "The server is not allowed to list pods.",
        ),
        (TimeoutError(), "no answer in time"),
    ],
)
def test_pods_that_cannot_be_listed_are_told_as_a_reason(failure, reason):
    async def list_pods(_):
        raise failure

    census = asyncio.run(ClusterGpus(list_pods, SELECTOR, 9400, 2.0)())

    assert census.unavailable == (UnavailableNode(None, f"Kubernetes does not say where the GPU agents are: {reason}"),)


def test_a_listing_that_hangs_is_not_waited_for():
    async def list_pods(_):
        await asyncio.Event().wait()

    census = asyncio.run(ClusterGpus(list_pods, SELECTOR, 9400, 0.2)())

    assert census.unavailable[0].reason.endswith("no answer in time")


def test_clients_that_poll_share_one_question_a_second(agents, port):
    asked = []
    time_of_the_test = [0.0]

    async def list_pods(_):
        asked.append(None)
        return agents

    async def ask():
        gpus = ClusterGpus(list_pods, SELECTOR, int(port), 2.0, lambda: time_of_the_test[0])
        first = await asyncio.gather(*(gpus() for _ in range(50)))
        time_of_the_test[0] = 0.9
        await gpus()
        within = len(asked)
        time_of_the_test[0] = 1.1
        await asyncio.gather(*(gpus() for _ in range(50)))
        return first, within

    first, within = asyncio.run(ask())

    assert len({id(census) for census in first}) == 1
    assert within == 1
    assert len(asked) == 2


def test_a_client_that_leaves_does_not_take_the_answer_from_the_others(agents, port):
    async def ask():
        gpus = ClusterGpus(listing(agents), SELECTOR, int(port), 2.0)
        leaves, stays = asyncio.create_task(gpus()), asyncio.create_task(gpus())
        await asyncio.sleep(0)
        leaves.cancel()
        return await stays

    assert len(asyncio.run(ask()).gpus) == 4
