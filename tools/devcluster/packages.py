"""The Debian packages that the cluster and the tests need, and their installation."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster import commands
from devcluster.errors import ClusterError

log = logging.getLogger(__name__)

# What has to be there, and the package that brings it.
CONTROL_PLANE = {
    "etcd": "etcd-server",
    "openssl": "openssl",
}
NODE = {
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "busybox": "busybox-static",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "runc": "runc",
}
# What tests start for themselves.
TESTS = {
    "/usr/include/stdio.h": "libc6-dev",
    "cc": "gcc",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
}
POLICY = Path("/usr/sbin/policy-rc.d")


def missing(wanted: dict[str, str], present: Callable[[str], bool]) -> dict[str, str]:
    """Those of the wanted programs that are not there, with their packages."""
    return {program: package for program, package in wanted.items() if not present(program)}


def is_present(program: str) -> bool:
    """Whether a program is on the PATH of the administrator; a path stands for itself, be it a program or not."""
    return Path(program).exists() if "/" in program else find(program) is not None


def find(program: str) -> str | None:
    """Where a program is; the folders of system programs are often not on a user's PATH."""
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")


def ensure(wanted: dict[str, str], *, root: bool) -> None:
    """Installs what is missing.

    Args:
        wanted: Programs and their packages.
        root: Whether this process may install packages.

    Raises:
        ClusterError: Something is missing and cannot be installed from here.
    """
    absent = missing(wanted, is_present)
    if not absent:
        return
    packages = sorted(set(absent.values()))
    if not root or not is_present("apt-get"):
        raise ClusterError(
            f"Missing: {', '.join(sorted(absent))}.",
            f"Install them; on Debian and Ubuntu: sudo apt-get install {' '.join(packages)}",
        )
    log.info("installing %s", " ".join(packages))
    with _services_stay_down():
        _apt_get(packages)
    absent = missing(wanted, is_present)
    if absent:
        raise ClusterError(f"Still missing after the installation of {' '.join(packages)}: {', '.join(absent)}.")


def _apt_get(packages: list[str]) -> None:
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--no-install-recommends"]
    if commands.attempt([*install, *packages]).returncode:
        # The lists may be absent or too old for what the mirror has.
        commands.run(["apt-get", "update"])
        commands.run([*install, *packages])


@contextmanager
def _services_stay_down() -> Iterator[None]:
    """Keeps Debian from starting the services of the packages: the cluster runs its own, with its own settings."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
