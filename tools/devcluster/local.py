"""The cluster as plain processes on this machine: starting it, and stopping and starting single components."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from devcluster import (
    certificates,
    cleanup,
    components,
    configuration,
    network,
    node,
    node_images,
    packages,
    processes,
    product,
    running,
)
from devcluster.buildah import Buildah
from devcluster.components import Component
from devcluster.errors import ClusterError
from devcluster.pins import Tool
from devcluster.state import Layout, Record

BACKEND = "local"
STOP_SECONDS = 5.0
SERVER_NAMES = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    f"kubernetes.default.svc.{configuration.DOMAIN}",
    "localhost",
]
SERVER_ADDRESSES = [network.NODE_ADDRESS, network.LOOPBACK, network.API_SERVICE_ADDRESS]

Binaries = Callable[[Tool], Path]


def up(layout: Layout, tools: dict[str, Tool], binaries: Binaries, images: Path, *, with_node: bool) -> Path:
    """Starts what of the cluster does not run and returns the administrator's kubeconfig.

    What is left of a crashed cluster, or one with a dead component, is removed first. Cleans up when it fails.

    Args:
        layout: Its files.
        tools: The pinned tools.
        binaries: Gives the folder of a tool's binaries.
        images: Folder in which a node's images outlive the cluster.
        with_node: Whether pods shall run; without, etcd, API server and controller manager are enough.

    Raises:
        ClusterError: Something is missing on this machine or does not come up.
    """
    root = os.geteuid() == 0
    if with_node and not root:
        raise ClusterError(
            "A node that runs pods needs root or Docker, and there is neither.",
            "Start Docker (https://docs.docker.com/engine/install/) or run this as root. The control plane alone, for "
            "tests without pods, needs neither: up --control-plane",
        )
    if with_node:
        layout.require_sockets()
    with cleanup.machine(layout) as owns_machine:
        # The kubeconfig comes when the cluster can be used; without it, whatever is there crashed on the way.
        record = Record.read(layout.record) if layout.kubeconfig.exists() else None
        if record is not None and _satisfies(layout, record, with_node=with_node):
            return layout.kubeconfig
        packages.ensure(packages.CONTROL_PLANE | (packages.NODE if root else {}), root=root)
        kubernetes = str(binaries(tools["kubernetes"]))
        coredns = str(binaries(tools["coredns"])) if with_node else ""
        if record is None or record.with_node or not _satisfies(layout, record, with_node=False):
            cleanup.clean(layout, owns_machine=owns_machine)
            record = None
        try:
            if record is None:
                record = _start_control_plane(layout, kubernetes, root=root)
            if with_node:
                node.start(layout, record, coredns, images)
        except BaseException:
            cleanup.clean(layout, owns_machine=owns_machine)
            raise
    return layout.kubeconfig


def _satisfies(layout: Layout, record: Record, *, with_node: bool) -> bool:
    """Whether what runs is enough: a cluster with a node is for tests of the control plane, too."""
    if with_node and not record.with_node:
        return False
    wanted = components.control_plane(layout, record) + (components.node(layout, record) if with_node else [])
    return all(running.serves(component, record) for component in wanted)


def _start_control_plane(layout: Layout, kubernetes: str, *, root: bool) -> Record:
    layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (layout.configuration, layout.logs):
        folder.mkdir(exist_ok=True)
    for old in layout.logs.iterdir():
        old.unlink()
    # With root it is where a node can find it, whether there is to be one or not, so that a node can be added.
    address = network.NODE_ADDRESS if root else network.LOOPBACK
    record = Record(BACKEND, address=address, binaries={"kubernetes": kubernetes})
    record.write(layout.record)
    if root:
        network.make_bridge()
    running.give_ports(record, components.CONTROL_PLANE_PORTS)
    record.write(layout.record)
    pki = layout.certificates
    certificates.make_all(pki, SERVER_ADDRESSES, SERVER_NAMES)
    for identity in certificates.CLIENTS:
        kubeconfig = pki / f"{identity.file}.kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(certificates.kubeconfig(pki, identity, running.server_url(record)))
    for component in components.control_plane(layout, record):
        running.start(component, layout, record)
        running.wait_for(component, layout, record)
    (pki / "admin.kubeconfig").rename(layout.kubeconfig)
    return record


def load_image(layout: Layout, archive: Path) -> str:
    """Puts the images of a docker or OCI archive on the node; what containerd said, with their names.

    Raises:
        ClusterError: No node runs, or this is no such archive.
    """
    if not _running(layout).with_node:
        raise ClusterError("Only a control plane runs here, and no node that could take an image.", "Start it: up")
    return node.load_image(layout, archive)


def load_product(layout: Layout, builder: Buildah, folder: Path) -> dict[str, str]:
    """Puts the product's images on the node, built if need be; their names and tags.

    Args:
        layout: The cluster's files.
        builder: What builds and keeps them.
        folder: The builder's, for files on the way.

    Raises:
        ClusterError: No node runs, a build fails, or containerd refuses an image.
    """
    if not _running(layout).with_node:
        raise ClusterError("Only a control plane runs here, and no node that could take an image.", "Start it: up")
    references = product.references(builder)
    if not node_images.missing(layout, references.values()):
        return references
    with product.session(builder, folder) as place:
        references = product.build(builder, place)
        absent = node_images.missing(layout, references.values())
        node_images.load(layout, builder, absent, place)
        node_images.remember(layout, references.values())
    return references


def stop_component(layout: Layout, name: str, first: signal.Signals) -> None:
    """Ends one component and waits until it is gone; nothing when it does not run.

    Raises:
        ClusterError: The cluster has no such component.
    """
    with cleanup.machine(layout):
        record = _running(layout)
        _named(layout, record, name)
        processes.stop(record.processes[name], STOP_SECONDS, first)


def start_component(layout: Layout, name: str) -> None:
    """Starts a stopped component as it was and waits until it serves; nothing when it runs.

    Raises:
        ClusterError: The cluster has no such component, or it does not come up.
    """
    with cleanup.machine(layout):
        record = _running(layout)
        component = _named(layout, record, name)
        if record.processes[name].is_alive():
            return
        began = datetime.now(UTC)
        running.start(component, layout, record)
        running.wait_for(component, layout, record)
        if name == "kubelet":
            node.give_gpus(layout, record, began)


def _running(layout: Layout) -> Record:
    record = Record.read(layout.record)
    if record is None:
        raise ClusterError("No cluster runs here.", "Start one: up")
    return record


def _named(layout: Layout, record: Record, name: str) -> Component:
    parts = components.control_plane(layout, record) + (components.node(layout, record) if record.with_node else [])
    known = {part.name: part for part in parts}
    if name not in known:
        raise ClusterError(f"The cluster has no component {name}.", f"It has: {', '.join(known)}.")
    return known[name]
