"""What Kubernetes has told of jobs: the newest known state of each, found in many ways, in little memory."""

import asyncio
import bisect
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry
from cryomamba_apiserver.ports.job_store import JobStatus

if TYPE_CHECKING:
    from datetime import datetime

_GONE = 4096
"""How many of the jobs that are gone are remembered, so that late news does not bring them back."""


class Mirror:
    """The newest known states; what is older than what is known already changes nothing."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        # Jobs by age; a job's age never changes.
        self._by_age: list[tuple[datetime, str]] = []
        self._fingerprints: dict[str, set[str]] = defaultdict(set)
        self._retry_keys: dict[str, set[str]] = defaultdict(set)
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many jobs there are."""
        return len(self._entries)

    def get(self, name: str) -> Entry | None:
        """Return a job."""
        return self._entries.get(name)

    def oldest_first(self) -> Iterator[Entry]:
        """Yield all jobs by their creation."""
        for _, name in self._by_age:
            yield self._entries[name]

    def newest_first(self) -> Iterator[Entry]:
        """Yield all jobs by their creation, the other way round."""
        for _, name in reversed(self._by_age):
            yield self._entries[name]

    def with_fingerprint(self, fingerprint: str) -> list[Entry]:
        """Return the jobs of a fingerprint."""
        return [self._entries[name] for name in self._fingerprints.get(fingerprint, ())]

    def with_retry_key(self, digest: str) -> list[Entry]:
        """Return the jobs that were created under a key."""
        return [self._entries[name] for name in self._retry_keys.get(digest, ())]

    def queued(self) -> int:
        """Return how many jobs wait to run."""
        return sum(entry.status is JobStatus.QUEUED for entry in self._entries.values())

    def put(self, entry: Entry) -> None:
        """Take in a job as it was at some time."""
        known = self._entries.get(entry.name)
        if entry.uid in self._gone or (known is not None and known.version >= entry.version):
            return
        if known is not None:
            self._unlink(known)
        self._entries[entry.name] = entry
        bisect.insort(self._by_age, (entry.created, entry.name))
        if entry.fingerprint:
            self._fingerprints[entry.fingerprint].add(entry.name)
        if entry.retry_key:
            self._retry_keys[entry.retry_key].add(entry.name)
        self._ring(entry.name)

    def drop(self, name: str, uid: str) -> None:
        """Forget a job that is gone, unless another of its name is there already."""
        self._gone[uid] = None
        if len(self._gone) > _GONE:
            self._gone.popitem(last=False)
        known = self._entries.get(name)
        if known is not None and known.uid == uid:
            self._unlink(known)
            del self._entries[name]
            self._ring(name)

    def retain(self, uids: Collection[str], version: int) -> None:
        """Forget the jobs that a list of this version does not have, unless they are newer than it."""
        for entry in list(self._entries.values()):
            if entry.uid not in uids and entry.version <= version:
                self.drop(entry.name, entry.uid)

    def clear(self) -> None:
        """Forget everything, as if nothing had ever been told: Kubernetes was put back to an earlier time."""
        names = list(self._entries)
        self._entries.clear()
        self._by_age.clear()
        self._fingerprints.clear()
        self._retry_keys.clear()
        self._gone.clear()
        for name in names:
            self._ring(name)

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[asyncio.Event]:
        """Lend an event that is set whenever a job changes or goes."""
        bell = asyncio.Event()
        self._watchers.setdefault(name, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._watchers[name]
            bells.discard(bell)
            if not bells:
                del self._watchers[name]

    def _ring(self, name: str) -> None:
        for bell in self._watchers.get(name, ()):
            bell.set()

    def _unlink(self, entry: Entry) -> None:
        del self._by_age[bisect.bisect_left(self._by_age, (entry.created, entry.name))]
        for index, value in ((self._fingerprints, entry.fingerprint), (self._retry_keys, entry.retry_key)):
            if value:
                index[value].discard(entry.name)
                if not index[value]:
                    del index[value]
