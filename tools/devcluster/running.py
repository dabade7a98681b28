"""Starting single components and telling whether they serve; what control plane and node have in common."""

import random

from devcluster import network, processes
from devcluster.components import Component
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def server_url(record: Record) -> str:
    """The API server's."""
    return f"https://{record.address}:{record.ports['kube-apiserver']}"


def give_ports(record: Record, names: tuple[str, ...]) -> None:
    """Gives every listener a port that is free now; a component that starts again keeps its own."""
    for name in names:
        address = network.LOOPBACK if name.startswith("etcd") else record.address
        record.ports[name] = network.free_port(address, random.SystemRandom(), tuple(record.ports.values()))


def start(component: Component, layout: Layout, record: Record) -> None:
    """Starts a component and puts it on record."""
    # Nothing of this run's environment: proxies and credentials are not for a test cluster.
    environment = {"PATH": SYSTEM_PATH, "HOME": str(layout.folder)}
    log = layout.log(component.name)
    record.processes[component.name] = processes.start(component.argv, log, layout.folder, environment)
    record.write(layout.record)


def wait_for(component: Component, layout: Layout, record: Record) -> None:
    """Waits until a component that was started serves.

    Raises:
        ClusterError: It ended, or took too long; with the end of its log.
    """
    process = record.processes[component.name]
    processes.wait(lambda: is_up(component) or not process.is_alive(), component.seconds)
    if process.is_alive() and is_up(component):
        return
    reason = f"did not come up within {component.seconds:.0f} s" if process.is_alive() else "ended"
    log = layout.log(component.name)
    raise ClusterError(f"{component.name} {reason}. The end of {log}:\n{processes.tail(log)}")


def is_up(component: Component) -> bool:
    """Whether a component serves."""
    try:
        return component.is_up()
    except OSError:
        return False


def serves(component: Component, record: Record) -> bool:
    """Whether the component that is on record runs and serves."""
    process = record.processes.get(component.name)
    return process is not None and process.is_alive() and is_up(component)
