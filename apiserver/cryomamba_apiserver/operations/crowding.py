"""Whether there is room for one more connection, and which idle one makes room for it."""

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address
from typing import Protocol, runtime_checkable

from cryomamba_apiserver.operations.bounds import CROWDED, FULL, Bounds, Refusal


@runtime_checkable
class Idler(Protocol):
    """A connection that may be idle."""

    idle_until: float | None
    """When it is closed for that, in seconds of the event loop's clock; None while it is not idle."""

    def give_way(self) -> None:
        """Close it."""


def too_many(
    connections: Iterable[object], peer: str, client: tuple[str, int] | None, bounds: Bounds
) -> Refusal | None:
    """Return why a connection is one too many, None where it is not or where an idle one could be closed for it.

    Args:
        connections: All that there are, this one included; each has a `peer`.
        peer: Whose this one is.
        client: Its address and port, None where it has none.
        bounds: How many there may be.
    """
    held = list(connections)
    if len(held) > bounds.max_connections_per_address and not _is_proxy(client, bounds):
        # Its own go first: nobody's connection is closed for somebody who has too many.
        own = [connection for connection in held if getattr(connection, "peer", None) == peer]
        if len(own) > bounds.max_connections_per_address:
            return None if _made_room(own) else CROWDED
    if len(held) > bounds.max_connections and not _made_room(held):
        return FULL
    return None


def _made_room(connections: Iterable[object]) -> bool:
    """Close the connection that has been idle for the longest; return whether there is one."""
    idle = [(until, place) for place in connections if isinstance(place, Idler) and (until := place.idle_until)]
    if not idle:
        return False
    # All are given the same time, so the one that has been idle for the longest is closed first anyway.
    min(idle, key=lambda each: each[0])[1].give_way()
    return True


def _is_proxy(client: tuple[str, int] | None, bounds: Bounds) -> bool:
    if client is None or not bounds.trusted_proxies:
        return False
    address = ip_address(client[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in bounds.trusted_proxies)
