"""Tells those who watch a job its newest state."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from cryomamba_apiserver.ports.job_store import JobRecord


@dataclass
class _Watched:
    """The newest state of a job that somebody watches, and the bell that rings when it changes."""

    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    record: JobRecord | None = None
    watchers: int = 0

    async def newer_than(self, seen: JobRecord) -> JobRecord:
        """Wait for a state that differs from the one seen last."""
        async with self.changed:
            while self.record is None or self.record == seen:
                await self.changed.wait()
            return self.record


class Watchers:
    """The jobs that are watched; a state that nobody waits for is forgotten at once."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    async def show(self, record: JobRecord) -> None:
        """Hand a job's newest state to whoever watches it."""
        if watched := self._watched.get(record.job_id):
            async with watched.changed:
                watched.record = record
                watched.changed.notify_all()

    async def watch(self, job_id: str, read: Callable[[str], Awaitable[JobRecord]]) -> AsyncIterator[JobRecord]:
        """Yield a job's state, by `read` at first, then whenever it changes, until it has ended."""
        watched = self._watched.setdefault(job_id, _Watched())
        watched.watchers += 1
        try:
            record = watched.record or await read(job_id)
            yield record
            while not record.status.finished:
                record = await watched.newer_than(record)
                yield record
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(job_id, None)
