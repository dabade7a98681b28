"""The components of the cluster: their command lines and how each tells that it is up."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devcluster import api, commands, packages
from devcluster.configuration import NODE
from devcluster.network import LOOPBACK, SERVICE_NETWORK
from devcluster.state import Layout, Record

DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
NODE_PATH = f"/api/v1/nodes/{NODE}"
CONTROL_PLANE_PORTS = ("etcd", "etcd-peer", "kube-apiserver", "kube-controller-manager")
NODE_PORTS = ("kube-scheduler", "kubelet", "kube-proxy", "kube-proxy-metrics", "coredns", "coredns-ready")
# A node misses a few of its reports, 4 s apart, before its pods are given up.
NODE_GRACE = "16s"
EVICTION_SECONDS = "5"


@dataclass(frozen=True)
class Component:
    """A process of the cluster.

    Attributes:
        name: As in its log's name and on the command line of `stop-component`.
        argv: Its command line.
        is_up: Whether it serves; may raise OSError while it does not.
        seconds: How long it may take until then.
    """

    name: str
    argv: tuple[str | Path, ...]
    is_up: Callable[[], bool]
    seconds: float = 60.0


def control_plane(layout: Layout, record: Record) -> list[Component]:
    """etcd, API server and controller manager, in the order in which they start."""
    pki, port, address = layout.certificates, record.ports, record.address
    kubernetes = Path(record.binaries["kubernetes"])
    client = api.Api(address, pki)
    etcd = f"https://{LOOPBACK}:{port['etcd']}"
    local = api.Api(LOOPBACK, pki)
    return [
        Component(
            "etcd",
            (
                packages.find("etcd") or "etcd",
                f"--data-dir={layout.folder}/etcd",
                # Its data go with the cluster, so it need not wait for the disk.
                "--unsafe-no-fsync",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=https://{LOOPBACK}:{port['etcd-peer']}",
                f"--initial-advertise-peer-urls=https://{LOOPBACK}:{port['etcd-peer']}",
                f"--initial-cluster=default=https://{LOOPBACK}:{port['etcd-peer']}",
                *(
                    f"--{kind}{flag}"
                    for kind in ("", "peer-")
                    for flag in (
                        f"cert-file={pki}/server.crt",
                        f"key-file={pki}/server.key",
                        f"trusted-ca-file={pki}/ca.crt",
                        "client-cert-auth",
                    )
                ),
            ),
            lambda: local.request(port["etcd"], "/health").ok,
        ),
        Component(
            "kube-apiserver",
            (
                kubernetes / "kube-apiserver",
                f"--bind-address={address}",
                f"--advertise-address={address}",
                f"--secure-port={port['kube-apiserver']}",
                f"--etcd-servers={etcd}",
                f"--etcd-cafile={pki}/ca.crt",
                f"--etcd-certfile={pki}/kube-apiserver.crt",
                f"--etcd-keyfile={pki}/kube-apiserver.key",
                f"--tls-cert-file={pki}/server.crt",
                f"--tls-private-key-file={pki}/server.key",
                f"--client-ca-file={pki}/ca.crt",
                f"--kubelet-certificate-authority={pki}/ca.crt",
                f"--kubelet-client-certificate={pki}/kube-apiserver.crt",
                f"--kubelet-client-key={pki}/kube-apiserver.key",
                "--kubelet-preferred-address-types=InternalIP",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                f"--service-account-key-file={pki}/accounts.key",
                f"--service-account-signing-key-file={pki}/accounts.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--allow-privileged=true",
                f"--default-not-ready-toleration-seconds={EVICTION_SECONDS}",
                f"--default-unreachable-toleration-seconds={EVICTION_SECONDS}",
            ),
            lambda: client.request(port["kube-apiserver"], "/readyz").ok,
        ),
        Component(
            "kube-controller-manager",
            (
                kubernetes / "kube-controller-manager",
                f"--kubeconfig={pki}/kube-controller-manager.kubeconfig",
                "--leader-elect=false",
                *_served(record, pki, "kube-controller-manager"),
                f"--service-account-private-key-file={pki}/accounts.key",
                f"--root-ca-file={pki}/ca.crt",
                "--use-service-account-credentials",
                f"--flex-volume-plugin-dir={layout.folder}/volume-plugins",
                f"--node-monitor-grace-period={NODE_GRACE}",
                "--node-monitor-period=2s",
            ),
            # Until it has made a namespace's account, no pod can be created there.
            lambda: (
                client.request(port["kube-controller-manager"], "/healthz").ok
                and client.request(port["kube-apiserver"], DEFAULT_ACCOUNT).ok
            ),
        ),
    ]


def node(layout: Layout, record: Record) -> list[Component]:
    """What a cluster that runs pods has besides, in the order in which they start."""
    pki, port = layout.certificates, record.ports
    kubernetes = Path(record.binaries["kubernetes"])
    client = api.Api(record.address, pki)
    return [
        Component(
            "containerd",
            (packages.find("containerd") or "containerd", "--config", layout.configuration / "containerd.toml"),
            lambda: _containerd_answers(layout),
        ),
        Component(
            "kube-scheduler",
            (
                kubernetes / "kube-scheduler",
                f"--kubeconfig={pki}/kube-scheduler.kubeconfig",
                "--leader-elect=false",
                *_served(record, pki, "kube-scheduler"),
            ),
            lambda: client.request(port["kube-scheduler"], "/readyz").ok,
        ),
        Component(
            "kubelet",
            (
                kubernetes / "kubelet",
                f"--config={layout.configuration}/kubelet.json",
                f"--kubeconfig={pki}/kubelet.kubeconfig",
                f"--root-dir={layout.folder}/kubelet",
                f"--hostname-override={NODE}",
                f"--node-ip={record.address}",
            ),
            lambda: (
                client.request(port["kubelet"], "/healthz").ok
                and is_ready(client.request(port["kube-apiserver"], NODE_PATH))
            ),
        ),
        Component(
            "kube-proxy",
            (kubernetes / "kube-proxy", f"--config={layout.configuration}/kube-proxy.json"),
            lambda: api.plain(record.address, port["kube-proxy"], "/healthz").ok,
        ),
        Component(
            "coredns",
            (Path(record.binaries["coredns"]) / "coredns", "-conf", layout.configuration / "Corefile"),
            lambda: api.plain(record.address, port["coredns-ready"], "/ready").ok,
        ),
    ]


def _served(record: Record, pki: Path, name: str) -> tuple[str, ...]:
    return (
        f"--bind-address={record.address}",
        f"--secure-port={record.ports[name]}",
        f"--tls-cert-file={pki}/server.crt",
        f"--tls-private-key-file={pki}/server.key",
    )


def is_ready(answer: api.Answer) -> bool:
    """Whether the answer is a Node that says of itself that it is ready."""
    conditions = answer.json()["status"].get("conditions", []) if answer.ok else []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def ctr(layout: Layout, *arguments: str | Path) -> list[str | Path]:
    """The command line of containerd's client."""
    program = packages.find("ctr") or "ctr"
    return [program, "--address", layout.containerd_socket, "--namespace", "k8s.io", *arguments]


def _containerd_answers(layout: Layout) -> bool:
    return commands.attempt(ctr(layout, "version")).returncode == 0
