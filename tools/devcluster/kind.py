"""The cluster as kind's, where Docker answers: the same commands on a node in a container."""

import json
import signal
from collections.abc import Iterable
from pathlib import Path

from devcluster import builds, commands, configuration
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record

BACKEND = "kind"
NAME = "cryomamba-test"
CONTAINER = f"{NAME}-control-plane"
SECONDS = "120s"
UNITS = ("kubelet", "containerd")
STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
MANIFESTS = "/etc/kubernetes/manifests"
KUBECTL = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf")


def docker_answers() -> bool:
    """Whether there is a Docker that this user may use."""
    try:
        return commands.attempt(["docker", "info"]).returncode == 0
    except FileNotFoundError:
        return False


def up(layout: Layout, binaries: Path) -> Path:
    """Creates the cluster unless it serves; the administrator's kubeconfig.

    Raises:
        ClusterError: Docker or kind says no.
    """
    with builds.locked(_lock(layout)):
        if layout.kubeconfig.exists() and _in_node(*KUBECTL, "get", "--raw", "/readyz", may_fail=True):
            return layout.kubeconfig
        _delete(layout)
        layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # kind's copy has to be there to delete the cluster when its cache folder is gone.
        Record(BACKEND, with_node=True, binaries={BACKEND: str(binaries)}).write(layout.record)
        unfinished = layout.folder / "kubeconfig.unfinished"
        kind = binaries / "kind"
        commands.run([kind, "create", "cluster", "--name", NAME, "--wait", SECONDS, "--kubeconfig", unfinished])
        _give_gpus()
        unfinished.rename(layout.kubeconfig)
    return layout.kubeconfig


def down(layout: Layout) -> None:
    """Deletes the cluster; nothing when there is none."""
    with builds.locked(_lock(layout)):
        _delete(layout)


def _lock(layout: Layout) -> Path:
    return layout.folder.with_name(f"{layout.folder.name}.lock")


def _delete(layout: Layout) -> None:
    layout.kubeconfig.unlink(missing_ok=True)
    record = Record.read(layout.record)
    if record is not None:
        commands.run([Path(record.binaries[BACKEND]) / "kind", "delete", "cluster", "--name", NAME])
        layout.record.unlink()


def load_image(layout: Layout, archive: Path) -> str:
    """Puts the images of a docker or OCI archive on the node.

    Raises:
        ClusterError: No cluster runs, or this is no such archive.
    """
    record = Record.read(layout.record)
    if record is None:
        raise ClusterError("No cluster runs here.", "Start one: up")
    return commands.run(
        [Path(record.binaries[BACKEND]) / "kind", "load", "image-archive", "--name", NAME, archive],
    )


def load_images(layout: Layout, references: Iterable[str]) -> None:
    """Puts images that Docker has on the node, unless they are there.

    Raises:
        ClusterError: No cluster runs, or Docker has no such image.
    """
    record = Record.read(layout.record)
    if record is None:
        raise ClusterError("No cluster runs here.", "Start one: up")
    commands.run([Path(record.binaries[BACKEND]) / "kind", "load", "docker-image", "--name", NAME, *references])


def stop_component(layout: Layout, name: str, first: signal.Signals) -> None:
    """Ends one component of the node and keeps it from coming back.

    Raises:
        ClusterError: There is no such component, or it stays.
    """
    with builds.locked(_lock(layout)):
        if name in UNITS:
            _in_node("systemctl", "stop", name)
            return
        _check(name)
        _in_node("sh", "-c", f"! test -e {MANIFESTS}/{name}.yaml || mv {MANIFESTS}/{name}.yaml /etc/kubernetes/")
        _in_node("pkill", f"-{first.value}", "-x", name[:15], may_fail=True)
        _in_node("timeout", "60", "sh", "-c", f"while pgrep -x {name[:15]}; do sleep 0.2; done")


def start_component(layout: Layout, name: str) -> None:
    """Lets a stopped component come back and waits until the API server says that all is well.

    Raises:
        ClusterError: There is no such component, or it does not come back.
    """
    with builds.locked(_lock(layout)):
        if name in UNITS:
            _in_node("systemctl", "start", name)
        else:
            _check(name)
            _in_node(
                "sh", "-c", f"! test -e /etc/kubernetes/{name}.yaml || mv /etc/kubernetes/{name}.yaml {MANIFESTS}/"
            )
        ready = " ".join([*KUBECTL, "get", "--raw", "/readyz"])
        _in_node("timeout", "60", "sh", "-c", f"until pgrep -x {name[:15]} && {ready}; do sleep 0.2; done")
        if name == "kubelet":
            _give_gpus()


def _check(name: str) -> None:
    if name not in STATIC_PODS:
        raise ClusterError(f"The cluster has no component {name}.", f"It has: {', '.join(UNITS + STATIC_PODS)}.")


def _give_gpus() -> None:
    # kubelet takes them away when it starts; its first report of the new state follows within seconds.
    patch = json.dumps(configuration.gpu_patch())
    _in_node(*KUBECTL, "wait", f"node/{CONTAINER}", "--for=condition=Ready", f"--timeout={SECONDS}")
    _in_node(*KUBECTL, "patch", "node", CONTAINER, "--subresource=status", "--type=json", "-p", patch)


def _in_node(*words: str, may_fail: bool = False) -> bool:
    argv = ["docker", "exec", CONTAINER, *words]
    if may_fail:
        return commands.attempt(argv).returncode == 0
    commands.run(argv)
    return True
