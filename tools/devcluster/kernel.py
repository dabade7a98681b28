"""What a node leaves in the kernel and outside its folder: cgroups, mounts, settings, paths; and how it goes again."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from devcluster import commands, processes
from devcluster.errors import ClusterError
from devcluster.processes import Process

CGROUPS = Path("/sys/fs/cgroup")
CGROUP = "cryomamba"
SYSCTLS = Path("/proc/sys")
# kubelet's (ContainerManager.setupKernelTunables), and forwarding, which the bridge plugin switches on.
CHANGED_SYSCTLS = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
# Paths that kubelet, containerd's shims and CNI's library make, whatever their configuration says.
SHIM_SOCKETS = Path("/run/containerd")
NETWORK_RESULTS = Path("/var/lib/cni")
DEVICE_PLUGINS = Path("/var/lib/kubelet")
LOG_LINKS = Path("/var/log/containers")
OUTSIDE = (SHIM_SOCKETS, NETWORK_RESULTS, DEVICE_PLUGINS, LOG_LINKS)


def settings() -> dict[str, str]:
    """The settings that a node changes, as they are now."""
    files = {name: SYSCTLS / name for name in CHANGED_SYSCTLS}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def restore_settings(before: dict[str, str]) -> None:
    """Puts back the settings that differ."""
    for name, value in before.items():
        file = SYSCTLS / name
        if file.read_text().strip() != value:
            file.write_text(value)


def absent_paths() -> list[str]:
    """Those of the paths that the components make that are not there now."""
    return [str(path) for path in OUTSIDE if not path.exists()]


def remove_paths(absent: list[str], state: Path) -> None:
    """Removes what the components made outside the cluster's folder.

    Args:
        absent: Paths that were not there before the node: they go altogether, of others what is ours.
        state: The cluster's folder, not removed yet.
    """
    for path in OUTSIDE:
        if str(path) in absent:
            shutil.rmtree(path, ignore_errors=True)
    for link in LOG_LINKS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(state):
            link.unlink()
    # A result is named NETWORK-CONTAINER-INTERFACE; the bridge's network is only ours.
    for ours in NETWORK_RESULTS.glob(f"results/{CGROUP}-*"):
        for result in ours.parent.glob(f"*-{ours.name.split('-')[1]}-*"):
            result.unlink()
    for address in state.glob("containerd/state/*/k8s.io/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)


def hierarchies(root: Path = CGROUPS) -> list[Path]:
    """The cgroup hierarchies: one on version 2, one for each controller on version 1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in sorted(root.iterdir()) if not path.is_symlink() and (path / "cgroup.procs").exists()]


def make_cgroups() -> None:
    """Makes the cgroup in every hierarchy, below which kubelet puts all pods.

    Raises:
        ClusterError: This machine does not let us.
    """
    try:
        for hierarchy in hierarchies():
            (hierarchy / CGROUP).mkdir(exist_ok=True)
    except OSError as error:
        raise ClusterError(f"No cgroup can be made here: {error}", "Run it as root, not in a container.") from error


def _cgroups() -> Iterator[Path]:
    """Every cgroup of ours, the innermost first."""
    for hierarchy in hierarchies():
        top = hierarchy / CGROUP
        if top.exists():
            yield from sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
            yield top


def kill_pods() -> None:
    """Kills every process in our cgroups, however many start meanwhile.

    Raises:
        ClusterError: Some do not die.
    """
    if not processes.wait(lambda: not _kill_round(), processes.KILL_SECONDS):
        raise ClusterError(f"Processes in the cgroup {CGROUP} do not die.")


def _kill_round() -> set[int]:
    """Kills what is in our cgroups now; the ids that it met."""
    found = {pid for group in _cgroups() for pid in _members(group)}
    for process in filter(None, map(Process.of, found)):
        processes.stop(process, processes.KILL_SECONDS, signal.SIGKILL)
    return found


def _members(group: Path) -> set[int]:
    """The ids of a cgroup's processes; none when whoever made it has just removed it."""
    try:
        return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
    except FileNotFoundError:
        return set()


def remove_cgroups() -> None:
    """Removes our cgroups, which have to be empty."""
    for group in _cgroups():
        group.rmdir()


def mounts_below(folder: Path, table: str) -> list[str]:
    """Mount points in a folder, the innermost first.

    Args:
        folder: Its absolute path.
        table: Content of `/proc/self/mountinfo`, proc(5).
    """
    # The fifth field, with blanks written as \040 and so on.
    points = [line.split()[4].encode().decode("unicode_escape") for line in table.splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmounts everything that is mounted in a folder."""
    for point in mounts_below(folder, Path("/proc/self/mountinfo").read_text()):
        commands.run(["umount", "--lazy", point])
