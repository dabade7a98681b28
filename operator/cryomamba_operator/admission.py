"""Keeps at most so many Kubernetes Jobs in existence, and their order; the scheduler keeps none."""

from collections import Counter
from datetime import datetime

from cryomamba_crds.ids import Key
from cryomamba_crds.order import Candidate, choose


class Admission:
    """Who has a place, who waits for one, and whose turn it is.

    A place is held from the moment it is granted until its Job has ended or is gone. All that is known here can be had
    from records and Jobs again, so a restart loses nothing.

    Args:
        limit: How many places there are. It can change (`resize`) as GPUs come and go.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Key, Candidate] = {}
        self._held: dict[Key, str] = {}
        self._by_owner: Counter[str] = Counter()
        self._blocked: dict[Key, datetime] = {}

    @property
    def held(self) -> int:
        """How many places are taken."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many records wait for a place."""
        return len(self._waiting)

    def resize(self, limit: int) -> None:
        """Set how many places there are; who has one keeps it."""
        self._limit = limit

    def want(self, candidate: Candidate) -> None:
        """Let a record without a Job wait for a place, unless it has one."""
        if candidate.key not in self._held:
            self._waiting[candidate.key] = candidate

    def hold(self, key: Key, owner: str) -> None:
        """Give a place to a record that has a Job, whether or not one is free."""
        self._waiting.pop(key, None)
        self._blocked.pop(key, None)
        if key not in self._held:
            self._held[key] = owner
            self._by_owner[owner] += 1

    def leave(self, key: Key) -> None:
        """Take a record out: it has ended or is gone."""
        self._waiting.pop(key, None)
        self._blocked.pop(key, None)
        self._free(key)

    def block(self, candidate: Candidate, until: datetime) -> None:
        """Let a record that cannot have a Job now (its name is taken) wait without holding up the others."""
        self._free(candidate.key)
        self._waiting[candidate.key] = candidate
        self._blocked[candidate.key] = until

    def has_place(self, key: Key) -> bool:
        """Whether a record may have a Job."""
        return key in self._held

    def blocked_until(self, key: Key, now: datetime) -> datetime | None:
        """Return when a blocked record may ask for a place again; None where it may."""
        until = self._blocked.get(key)
        return until if until is not None and until > now else None

    def settle(self, now: datetime) -> list[Key]:
        """Give the free places to those whose turn it is, and return who got one."""
        free = self._limit - len(self._held)
        if free <= 0 or not self._waiting:
            return []
        self._blocked = {key: until for key, until in self._blocked.items() if until > now}
        ready = (candidate for key, candidate in self._waiting.items() if key not in self._blocked)
        granted = choose(ready, self._by_owner, free)
        for candidate in granted:
            self.hold(candidate.key, candidate.owner)
        return [candidate.key for candidate in granted]

    def _free(self, key: Key) -> None:
        owner = self._held.pop(key, None)
        if owner is not None:
            self._by_owner[owner] -= 1
            if not self._by_owner[owner]:
                del self._by_owner[owner]
