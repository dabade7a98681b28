"""Bodies of the GPU endpoint."""

from typing import Any

from pydantic import BaseModel

from cryomamba_apiserver.gpus.census import GpuCensus, PlacedGpu
from cryomamba_apiserver.wire import Timestamp


class NodeUnavailable(BaseModel):
    """A node whose GPUs are not told, or not all of them."""

    node: str | None
    reason: str


class GpuStatus(BaseModel):
    """One GPU now: memory in MiB, utilization in percent, temperature in °C, power in W.

    What a card does not tell is null. On a cluster there is also where the GPU is.
    """

    id: int
    name: str
    memory_used: int | None
    memory_total: int | None
    memory_free: int | None
    utilization: int | None
    temperature: int | None
    power_usage: int | None
    power_limit: int | None
    node: str | None = None
    index: int | None = None


class GpuStatusList(BaseModel):
    """All GPUs; none is an empty list, not an error."""

    gpus: list[GpuStatus]
    timestamp: Timestamp
    unavailable_nodes: list[NodeUnavailable] = []


def unavailable_nodes(census: GpuCensus) -> list[NodeUnavailable]:
    """Return what could not be asked, in the form of an answer."""
    return [NodeUnavailable(node=entry.node, reason=entry.reason) for entry in census.unavailable]


def place(placed: PlacedGpu) -> dict[str, Any]:
    """Return the fields that say where a GPU is; none for one of this machine."""
    return {} if placed.node is None else {"node": placed.node, "index": placed.gpu.index}
