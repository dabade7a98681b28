import json
from pathlib import Path

import pytest

from devcluster import certificates, components
from devcluster.api import Answer
from devcluster.network import LOOPBACK, NODE_ADDRESS
from devcluster.state import Layout, Record


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, Record]:
    """The files and the record of a cluster of which nothing runs."""
    layout = Layout(tmp_path_factory.mktemp("cluster"))
    certificates.make_all(layout.certificates, [LOOPBACK], [])
    names = components.CONTROL_PLANE_PORTS + components.NODE_PORTS
    ports = {name: 20000 + number for number, name in enumerate(names)}
    return layout, Record(
        "local", address=NODE_ADDRESS, ports=ports, binaries={"kubernetes": "/k8s", "coredns": "/coredns"}
    )


def words(cluster: tuple[Layout, Record]) -> dict[str, list[str]]:
    parts = components.control_plane(*cluster) + components.node(*cluster)
    return {part.name: [str(word) for word in part.argv] for part in parts}


def test_a_server_starts_before_those_who_call_it(cluster: tuple[Layout, Record]) -> None:
    assert list(words(cluster)) == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "containerd",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
    ]


def test_every_kubernetes_server_binds_one_address(cluster: tuple[Layout, Record]) -> None:
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert f"--bind-address={NODE_ADDRESS}" in words(cluster)[name]


def test_etcd_listens_on_the_loopback_to_those_with_a_certificate(cluster: tuple[Layout, Record]) -> None:
    etcd = words(cluster)["etcd"]

    listens = [word for word in etcd if word.startswith(("--listen-client-urls", "--listen-peer-urls"))]
    assert listens == ["--listen-client-urls=https://127.0.0.1:20000", "--listen-peer-urls=https://127.0.0.1:20001"]
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= set(etcd)


def test_no_command_line_names_every_address_or_carries_a_secret(cluster: tuple[Layout, Record]) -> None:
    said = json.dumps(words(cluster))

    assert "0.0.0.0" not in said
    assert "PRIVATE KEY" not in said


def test_requests_are_authorised_and_nodes_restricted(cluster: tuple[Layout, Record]) -> None:
    apiserver = words(cluster)["kube-apiserver"]

    assert "--authorization-mode=Node,RBAC" in apiserver
    assert "--enable-admission-plugins=NodeRestriction" in apiserver


def test_a_component_that_nobody_started_does_not_answer(cluster: tuple[Layout, Record]) -> None:
    etcd = components.control_plane(*cluster)[0]

    with pytest.raises(OSError, match=r"refused"):
        etcd.is_up()


@pytest.mark.parametrize(
    ("status", "body", "ready"),
    [
        (200, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, True),
        (200, {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, False),
        (200, {"status": {"conditions": [{"type": "PIDPressure", "status": "True"}]}}, False),
        (200, {"status": {}}, False),
        (404, {"kind": "Status", "status": "Failure"}, False),
    ],
)
def test_a_node_is_ready_when_it_says_so(status: int, body: dict[str, object], ready: bool) -> None:
    assert components.is_ready(Answer(status, json.dumps(body).encode())) is ready


def test_images_go_where_kubelet_looks_for_them() -> None:
    argv = components.ctr(Layout(Path("/state")), "images", "import", "x.tar")

    assert [str(word) for word in argv[1:]] == [
        "--address",
        "/state/containerd.sock",
        "--namespace",
        "k8s.io",
        "images",
        "import",
        "x.tar",
    ]
