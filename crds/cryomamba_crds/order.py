"""In which order jobs get a place: by priority, then fairly among owners, then by age. Pure.

The operator gives places by it, and the API server tells a job's place in the queue by it.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryomamba_crds.ids import Key

SUBMITTED_ANNOTATION = "cryomamba.io/submitted-at"
"""When the API server took a job in, ISO 8601 to the microsecond."""
_WITHIN_A_SECOND = timedelta(microseconds=999_999)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that waits for a place."""

    key: Key
    owner: str
    priority: int
    created: datetime

    @property
    def age(self) -> tuple[datetime, Key]:
        """Sorts the oldest first; names decide between those that were created at the same time."""
        return self.created, self.key


def created_at(metadata: Mapping[str, Any]) -> datetime:
    """Return when a resource was created, by its metadata as Kubernetes gives it.

    Kubernetes counts whole seconds. Within one, the API server's own clock tells; what it says beyond that second, or
    somebody else in its place, is not believed.
    """
    second = datetime.fromisoformat(metadata["creationTimestamp"])
    try:
        submitted = datetime.fromisoformat(metadata.get("annotations", {})[SUBMITTED_ANNOTATION])
        return min(max(submitted, second), second + _WITHIN_A_SECOND)
    except (KeyError, TypeError, ValueError):  # there is none, or it has no time zone, or it is no time
        return second


def choose(waiting: Iterable[Candidate], places_held: Mapping[str, int], places: int) -> list[Candidate]:
    """Return who gets the free places, first come first.

    Among the candidates of the highest priority, the next place goes to the owner who holds the fewest, counting those
    just given; between equals, to whoever has waited longest.

    Args:
        waiting: Who wants a place.
        places_held: How many places each owner has; absent owners have none.
        places: How many are free.
    """
    by_priority: dict[int, dict[str, deque[Candidate]]] = defaultdict(lambda: defaultdict(deque))
    for candidate in sorted(waiting, key=lambda candidate: candidate.age):
        by_priority[candidate.priority][candidate.owner].append(candidate)
    held = dict(places_held)
    chosen: list[Candidate] = []
    for priority in sorted(by_priority, reverse=True):
        queues = by_priority[priority]
        heap = [(held.get(owner, 0), queue[0].age, owner) for owner, queue in queues.items()]
        heapq.heapify(heap)
        while heap and len(chosen) < places:
            _, _, owner = heapq.heappop(heap)
            chosen.append(queues[owner].popleft())
            held[owner] = held.get(owner, 0) + 1
            if queues[owner]:
                heapq.heappush(heap, (held[owner], queues[owner][0].age, owner))
    return chosen
