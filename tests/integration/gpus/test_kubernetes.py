"""A server that finds its cluster's agents by their pods, which a real API server lists."""

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from devcluster import network
from support.cluster_server import cluster_settings
from support.commands import Server, serving
from support.gpu_agents import Agent
from support.kubernetes import Kubectl
from support.operators import as_service_account
from support.waiting import until

LABEL = {"app.kubernetes.io/component": "gpu-agent"}
SELECTOR = "app.kubernetes.io/component=gpu-agent"
HOSTS = {"node-a": "127.0.0.2", "node-b": "127.0.0.3"}
ACCOUNT = "server-that-may-not-list-pods"


@pytest.fixture(scope="module")
def port() -> str:
    return str(network.free_port("127.0.0.1", random.SystemRandom()))


@pytest.fixture
def lab(control_plane_namespace: Kubectl) -> Kubectl:
    """A namespace in which pods can be made."""
    until(lambda: "default" in control_plane_namespace("get", "serviceaccounts", "--output", "name"))
    return control_plane_namespace


def add_pod(lab: Kubectl, node: str, address: str | None, labels: dict[str, str] = LABEL) -> None:
    """Make an agent's pod that has this address; whatever is there answers."""
    name = f"gpu-agent-{node}"
    spec = {"nodeName": node, "containers": [{"name": "gpu-agent", "image": "localhost/none:1"}]}
    lab.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
    if address:
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}}
        lab("patch", "pod", name, "--subresource=status", "--type=merge", "--patch-file=/dev/stdin", manifest=status)


@pytest.fixture
def serve(lab: Kubectl, bucket, port: str, tmp_path: Path) -> Iterator[Callable[[Kubectl], Server]]:
    with ExitStack() as servers:

        def begin(kubectl: Kubectl) -> Server:
            settings = cluster_settings(kubectl, bucket, secrets.token_hex(32))
            agents = {"gpu_agent_selector": SELECTOR, "gpu_agent_port": port}
            return servers.enter_context(serving(tmp_path / "data", **settings, **agents))

        yield begin


def told(server: Server, path: str = "/v1/gpu/status") -> dict:
    answer = httpx.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {server.token()}"}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_gpus_of_all_nodes_are_told_and_a_silent_node_is_named(
    lab: Kubectl, start: Callable[..., Agent], serve, port: str
):
    for node, host in HOSTS.items():
        start(node, gpu_agent_host=host, gpu_agent_port=port)
        add_pod(lab, node, host)
    add_pod(lab, "node-c", "127.0.0.4")
    add_pod(lab, "node-d", None)
    add_pod(lab, "node-e", "127.0.0.2", {"app.kubernetes.io/component": "something-else"})
    server = serve(lab)

    status, info = told(server), told(server, "/v1/server/info")

    places = [("node-a", 0), ("node-a", 1), ("node-b", 0), ("node-b", 1)]
    assert [(gpu["node"], gpu["index"]) for gpu in status["gpus"]] == places
    assert [gpu["id"] for gpu in info["gpu_info"]] == [0, 1, 2, 3]
    assert (info["gpu_count"], info["cuda_available"], info["cuda_version"]) == (4, True, "12.4")
    silent = [
        {"node": "node-c", "reason": "its agent cannot be reached: connection refused"},
        {"node": "node-d", "reason": "its agent has not started"},
    ]
    assert status["unavailable_nodes"] == info["unavailable_nodes"] == silent


def test_a_server_that_may_not_list_pods_says_so_and_serves_all_the_same(lab: Kubectl, serve, tmp_path: Path):
    lab("create", "serviceaccount", ACCOUNT)
    verbs = "--verb=get,list,watch,create,patch,delete"
    lab("create", "role", "jobs", verbs, "--resource=segmentationjobs.cryomamba.io")
    lab("create", "rolebinding", "jobs", "--role=jobs", f"--serviceaccount={lab.namespace}:{ACCOUNT}")
    server = serve(as_service_account(lab, ACCOUNT, tmp_path / "kubeconfig"))

    info = told(server, "/v1/server/info")

    assert info["supported_formats"] == ["mrc", "nifti"]
    assert info["gpu_info"] == []
    (entry,) = info["unavailable_nodes"]
    assert entry["node"] is None
    assert "list pods" in entry["reason"]
    assert lab.namespace in entry["reason"]
