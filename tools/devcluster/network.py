"""The node's network: one bridge with an address of its own, no way out for pods, and the removal of all of it."""

import ipaddress
import json
import random
import re
import socket
from collections.abc import Sequence
from typing import Any

from devcluster import commands
from devcluster.errors import ClusterError

# Of the range that RFC 2544 sets aside for test networks: clouds, Docker and real clusters use others.
NETWORK = ipaddress.ip_network("198.19.0.0/16")
POD_NETWORK = ipaddress.ip_network("198.19.0.0/20")
SERVICE_NETWORK = ipaddress.ip_network("198.19.128.0/20")
# kubelet refuses a loopback address, so the node has the pods' gateway.
NODE_ADDRESS = str(POD_NETWORK[1])
API_SERVICE_ADDRESS = str(SERVICE_NETWORK[1])
DNS_SERVICE_ADDRESS = str(SERVICE_NETWORK[10])
LOOPBACK = "127.0.0.1"
BRIDGE = "cryomamba0"
# Without one of its own a bridge takes over that of its newest member, and pods lose their gateway for a while.
BRIDGE_MAC = "02:c7:0a:3b:a0:01"
# Below what Linux gives to outgoing connections (32768) and to node ports (30000): a client that keeps calling a
# stopped server on a port from there can end up connected to itself, and the server cannot come back.
PORTS = range(20000, 30000)
FAMILIES = ("iptables", "ip6tables")


def free_port(address: str, chance: random.Random, taken: Sequence[int] = ()) -> int:
    """A TCP port on which nobody listens.

    Args:
        address: Where to listen.
        chance: Which ports are tried.
        taken: Ports that are given away already.

    Raises:
        ClusterError: Every port is taken.
    """
    for port in chance.sample(PORTS, len(PORTS)):
        with socket.socket() as listener:
            # As Go's servers do: a port whose last connection is still closing counts as free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((address, port))
            except OSError:
                continue
        if port not in taken:
            return port
    raise ClusterError(f"No port from {PORTS.start} to {PORTS.stop - 1} is free on {address}.")


def clash(routes: Sequence[dict[str, Any]]) -> str | None:
    """The first route of the machine that leads into the cluster's network; None without one.

    Args:
        routes: What `ip -json route` prints.
    """
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        if ipaddress.ip_network(route["dst"], strict=False).overlaps(NETWORK):
            return f"{route['dst']} dev {route.get('dev', '-')}"
    return None


def make_bridge() -> None:
    """Makes the bridge with the node's address, to which the CNI plugin adds the pods.

    Raises:
        ClusterError: Another network of this machine has these addresses, or another Kubernetes its rules here.
    """
    other = clash(json.loads(commands.run(["ip", "-json", "-4", "route"])))
    if other is not None:
        raise ClusterError(
            f"The route {other} of this machine leads into {NETWORK}, the test cluster's network.",
            "Take that network down (often a VPN) while the cluster runs.",
        )
    if any("KUBE-" in _rules(family) for family in FAMILIES):
        raise ClusterError(
            "kube-proxy's rules are on this machine already: another Kubernetes runs or ran here.",
            "Use a machine of its own for the tests, or remove them with `kube-proxy --cleanup`.",
        )
    commands.run(["ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge"])
    commands.run(["ip", "address", "add", f"{NODE_ADDRESS}/{POD_NETWORK.prefixlen}", "dev", BRIDGE])
    commands.run(["ip", "link", "set", BRIDGE, "up"])
    # So that service addresses work from the machine itself, with or without a default route.
    commands.run(["ip", "route", "add", str(SERVICE_NETWORK), "dev", BRIDGE])


def bridge_exists() -> bool:
    """Whether the bridge is there."""
    try:
        return commands.attempt(["ip", "link", "show", BRIDGE]).returncode == 0
    except FileNotFoundError:
        return False  # no iproute2, no bridge


def remove() -> None:
    """Removes kube-proxy's rules and the bridge; the pods' ends went with their network namespaces."""
    if not bridge_exists():
        return
    for family in FAMILIES:
        rules = _rules(family)
        if "KUBE-" in rules:
            commands.run([f"{family}-restore", "--noflush"], standard_input=without_kubernetes(rules))
    commands.run(["ip", "link", "delete", BRIDGE])


def _rules(family: str) -> str:
    try:
        return commands.attempt([f"{family}-save"]).stdout
    except FileNotFoundError:
        return ""


def without_kubernetes(rules: str) -> str:
    """What `iptables-restore --noflush` has to read to remove kube-proxy's chains and the rules that lead to them.

    Args:
        rules: What `iptables-save` prints.
    """
    commands_of_tables = []
    for table, body in re.findall(r"^\*(\w+)\n(.*?)^COMMIT$", rules, re.MULTILINE | re.DOTALL):
        chains = re.findall(r"^:(KUBE-\S+)", body, re.MULTILINE)
        jumps = re.findall(r"^-A (?!KUBE-)(.*-j KUBE-.*)$", body, re.MULTILINE)
        lines = [f"-D {jump}" for jump in jumps]
        # All are emptied before the first is deleted, for they refer to each other.
        lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
        commands_of_tables.append("\n".join([f"*{table}", *lines, "COMMIT", ""]))
    return "".join(commands_of_tables)
