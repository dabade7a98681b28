"""The node of the cluster: from a control plane that serves to a node that takes pods."""

import json
from datetime import UTC, datetime
from pathlib import Path

from devcluster import (
    api,
    certificates,
    commands,
    components,
    configuration,
    images,
    kernel,
    node_images,
    processes,
    running,
)
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record

GPU_SECONDS = 20.0
STOP_SECONDS = 5.0


def start(layout: Layout, record: Record, coredns: str, images_folder: Path) -> None:
    """Starts the node's components and waits until it takes pods.

    Args:
        layout: The cluster's files.
        record: What runs; on disk after every step.
        coredns: Folder of CoreDNS' binary.
        images_folder: containerd's root, in which the product's images outlive the cluster.

    Raises:
        ClusterError: This machine does not let us, or a component does not come up.
    """
    record.binaries["coredns"] = coredns
    record.with_node = True
    record.sysctls = kernel.settings()
    record.images = str(images_folder)
    record.absent = kernel.absent_paths()
    running.give_ports(record, components.NODE_PORTS)
    record.write(layout.record)
    kernel.make_cgroups()
    _write_configuration(layout, record)
    client = api.Api(record.address, layout.certificates)
    for path, content in configuration.dns_objects(certificates.DNS.user, record.ports["coredns"]).items():
        _require(client.request(record.ports["kube-apiserver"], path, "POST", content), path)
    began = datetime.now(UTC)
    containerd, *others = components.node(layout, record)
    node_images.remove_leftovers(images_folder)
    running.start(containerd, layout, record)
    running.wait_for(containerd, layout, record)
    if node_images.forget_containers(layout):
        # Kubernetes' part of it reads what there is when it starts.
        processes.stop(record.processes[containerd.name], STOP_SECONDS)
        running.start(containerd, layout, record)
        running.wait_for(containerd, layout, record)
    node_images.tidy(layout, images_folder)
    pause = layout.folder / "pause.tar"
    images.busybox_archive(pause, configuration.PAUSE_IMAGE, ["/bin/sleep", "2147483647"])
    load_image(layout, pause)
    for component in others:
        running.start(component, layout, record)
    for component in others:
        running.wait_for(component, layout, record)
    give_gpus(layout, record, began)


def _write_configuration(layout: Layout, record: Record) -> None:
    folder, pki, port = layout.configuration, layout.certificates, record.ports
    networks, socket = folder / "cni", layout.containerd_socket
    networks.mkdir()
    kubelet = configuration.kubelet(layout.folder, socket, pki, port["kubelet"], kernel.CGROUP)
    proxy = configuration.proxy(pki / "kube-proxy.kubeconfig", port["kube-proxy-metrics"], port["kube-proxy"])
    server, kubeconfig = running.server_url(record), pki / "coredns.kubeconfig"
    for file, content in {
        networks / "10-cryomamba.conflist": configuration.cni(layout.folder / "leases"),
        folder / "containerd.toml": configuration.containerd(
            Path(record.images), layout.folder / "containerd", socket, networks
        ),
        folder / "kubelet.json": json.dumps(kubelet, indent=1),
        folder / "kube-proxy.json": json.dumps(proxy, indent=1),
        folder / "Corefile": configuration.corefile(kubeconfig, server, port["coredns"], port["coredns-ready"]),
    }.items():
        file.write_text(content)


def load_image(layout: Layout, archive: Path) -> str:
    """Puts the images of a docker or OCI archive on the node; what containerd said, with their names.

    Raises:
        ClusterError: The node does not run, or this is no such archive.
    """
    return commands.run(components.ctr(layout, "images", "import", archive))


def give_gpus(layout: Layout, record: Record, began: datetime) -> None:
    """Gives the node its made-up GPUs, once the kubelet that was started after `began` has reported.

    On its start kubelet takes away what no device plugin vouches for, so an earlier patch would be lost.

    Raises:
        ClusterError: kubelet does not report, or the API server refuses.
    """
    client, port = api.Api(record.address, layout.certificates), record.ports["kube-apiserver"]
    if not processes.wait(lambda: _reported(client.request(port, components.NODE_PATH).json(), began), GPU_SECONDS):
        raise ClusterError("kubelet does not report the node's state.")
    path = f"{components.NODE_PATH}/status"
    _require(client.request(port, path, "PATCH", configuration.gpu_patch(), "application/json-patch+json"), path)


def _reported(node: configuration.Manifest, began: datetime) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(datetime.fromisoformat(condition["lastHeartbeatTime"]) > began for condition in conditions)


def _require(answer: api.Answer, path: str) -> None:
    if not answer.ok:
        raise ClusterError(f"kube-apiserver refuses {path}: {answer.body.decode(errors='replace')}")
