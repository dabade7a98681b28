"""The jobs that were asked for last, as the table has them, so that looking at one costs no trip to the disk."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cryomamba_apiserver.ports.job_store import JobRecord

_MOST = 1024
"""Records; a few KB each."""
_FRESH_SECONDS = 5.0
"""How long a job may still be seen that the sweep, a process of its own, has removed; nobody else changes any."""


@dataclass(frozen=True, slots=True)
class _Known:
    record: JobRecord
    since: float


class RecentJobs:
    """Records by id, the least recently used dropped first. Sound where one process writes them.

    A record that was read never takes the place of one that was written since the reading began.
    """

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how many are held, and a clock in seconds."""
        self._most = most
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def get(self, job_id: str) -> JobRecord | None:
        """Return a job if it is held and was written or read only just now."""
        known = self._known.get(job_id)
        if known is None or self._clock() - known.since > _FRESH_SECONDS:
            return None
        self._known.move_to_end(job_id)
        return known.record

    def begin(self) -> float:
        """Return the mark of a reading that begins now, for `read`."""
        return self._clock()

    def read(self, record: JobRecord, begun: float) -> JobRecord:
        """Take note of a job that was read; return the newest that is known of it."""
        known = self._known.get(record.job_id)
        if known and known.since >= begun:
            return known.record
        self.written(record)
        return record

    def written(self, record: JobRecord) -> None:
        """Take note of a job that the table holds now."""
        self._known[record.job_id] = _Known(record, self._clock())
        self._known.move_to_end(record.job_id)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
