"""The port of what counts things in flight: slots that are taken and given back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """One slot that is taken.

    Attributes:
        key: Whose slots, and of what.
        name: Which of them; nobody else has the same.
    """

    key: str
    name: str


class Slots(Protocol):
    """Counts what is in flight.

    Where the count outlives the process, a slot lapses some time after it was last renewed: a server that is killed
    gives nothing back.
    """

    async def take(self, key: str, limit: int) -> Lease | None:
        """Take one of `limit` slots, None where all are taken."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give a slot back; nothing where it has lapsed."""
        ...

    async def renew(self, leases: Iterable[Lease]) -> None:
        """Keep slots from lapsing."""
        ...
