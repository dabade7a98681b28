"""Takes a cluster away, running or crashed, with everything that it left on the machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster import builds, kernel, network, processes
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record

# Bridge, cgroups and kernel settings are the machine's: of the clusters with a node, one at a time. The lock file holds
# the folder of the cluster that has them.
MACHINE = Path("/run/cryomamba-cluster")
STOP_SECONDS = 5.0
# kubelet before the pods, or it would start them again; who uses a server before the server.
BEFORE_PODS = ("coredns", "kube-proxy", "kube-scheduler", "kube-controller-manager", "kubelet")
AFTER_PODS = ("containerd",)
AFTER_SHIMS = ("kube-apiserver", "etcd")


@contextmanager
def machine(layout: Layout) -> Iterator[bool]:
    """Holds the lock of this machine (of this folder only, without root) while a cluster is changed.

    Yields:
        Whether bridge, cgroups and settings are this cluster's, or nobody's, to clean up.

    Raises:
        ClusterError: Another folder's cluster runs.
    """
    if os.geteuid() != 0:
        with builds.locked(layout.folder.with_name(f"{layout.folder.name}.lock")):
            yield False
        return
    with builds.locked(MACHINE):
        owner = _owner()
        if owner not in ("", str(layout.folder)):
            other = Layout(Path(owner))
            record = Record.read(other.record)
            if record is not None and any(process.is_alive() for process in record.processes.values()):
                raise ClusterError(f"A cluster runs already: {owner}", f"Stop it: down --state {owner}")
            clean(other, owns_machine=True)
        MACHINE.write_text(str(layout.folder))
        try:
            yield True
        finally:
            if not layout.record.exists():
                MACHINE.write_text("")


def down(layout: Layout) -> None:
    """Stops a cluster and removes everything but its logs; nothing when there is none."""
    if not layout.record.exists() and _owner() not in ("", str(layout.folder)):
        return
    with machine(layout) as owns_machine:
        clean(layout, owns_machine=owns_machine)


def _owner() -> str:
    return MACHINE.read_text() if MACHINE.exists() else ""


def clean(layout: Layout, *, owns_machine: bool) -> None:
    """Does `down` under a lock that is held already.

    One way for a running cluster and a crashed one: it asks nothing of the components.
    """
    record = Record.read(layout.record) or Record("local")
    _stop(record, BEFORE_PODS)
    if owns_machine:
        kernel.kill_pods()
    _stop(record, AFTER_PODS)
    for shim in processes.find("containerd-shim", str(layout.containerd_socket)):
        processes.stop(shim, STOP_SECONDS)
    _stop(record, AFTER_SHIMS)
    if owns_machine:
        kernel.unmount_below(layout.folder)
        if record.images:
            kernel.unmount_below(Path(record.images))
        network.remove()
        kernel.remove_cgroups()
        kernel.restore_settings(record.sysctls)
        kernel.remove_paths(record.absent, layout.folder)
    _remove_files(layout)


def _stop(record: Record, names: tuple[str, ...]) -> None:
    for name in names:
        if name in record.processes:
            processes.stop(record.processes[name], STOP_SECONDS)


def _remove_files(layout: Layout) -> None:
    """Removes the cluster's folder but for the logs; the record last, so that what fails can be done again."""
    if not layout.folder.exists():
        return
    kept = (layout.logs, layout.record)
    for entry in layout.folder.iterdir():
        if entry in kept:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    layout.record.unlink(missing_ok=True)
