"""What the API tells of GPUs: those of this machine, or of all nodes that answered, and which did not."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from cryomamba_apiserver.gpus.service import Gpu, GpuInventory


@dataclass(frozen=True)
class PlacedGpu:
    """A GPU and where it is."""

    id: int
    """The index on this machine; on a cluster a running number over nodes and indices."""
    gpu: Gpu
    node: str | None = None
    """None: this machine."""


@dataclass(frozen=True)
class UnavailableNode:
    """A node whose GPUs are not told, or not all of them."""

    node: str | None
    """None: this machine, or it is not known which nodes there are."""
    reason: str


@dataclass(frozen=True)
class GpuCensus:
    """All GPUs that could be asked, and what could not."""

    cuda_version: str | None
    """The newest CUDA that the driver takes; on a cluster, the oldest of those: what runs wherever a job comes to."""
    gpus: tuple[PlacedGpu, ...]
    unavailable: tuple[UnavailableNode, ...] = ()


GpuSource = Callable[[], Awaitable[GpuCensus]]
"""Asks for the GPUs; names what does not answer, and neither fails nor waits for it."""


def of_this_machine(inventory: GpuInventory) -> GpuCensus:
    """Return the census of one machine."""
    return GpuCensus(
        cuda_version=inventory.cuda_version,
        gpus=tuple(PlacedGpu(gpu.index, gpu) for gpu in inventory.gpus),
        unavailable=_problems(None, inventory),
    )


def of_nodes(answers: Mapping[str, GpuInventory], silent: Mapping[str, str]) -> GpuCensus:
    """Return the census of a cluster.

    Args:
        answers: By node, what its agent says.
        silent: By node, why it says nothing.
    """
    placed = [(node, gpu) for node in sorted(answers) for gpu in sorted(answers[node].gpus, key=lambda gpu: gpu.index)]
    unavailable = [UnavailableNode(node, reason) for node, reason in silent.items()]
    unavailable += [problem for node, inventory in answers.items() for problem in _problems(node, inventory)]
    versions = [inventory.cuda_version for inventory in answers.values() if inventory.gpus and inventory.cuda_version]
    return GpuCensus(
        cuda_version=min(versions, key=_parts, default=None),
        gpus=tuple(PlacedGpu(number, gpu, node) for number, (node, gpu) in enumerate(placed)),
        unavailable=tuple(sorted(unavailable, key=lambda entry: entry.node or "")),
    )


def _problems(node: str | None, inventory: GpuInventory) -> tuple[UnavailableNode, ...]:
    return (UnavailableNode(node, "; ".join(inventory.problems)),) if inventory.problems else ()


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
