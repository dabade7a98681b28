"""Feeds the sockets that watch a job: one watch a job, each message encoded once, only the newest kept."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import datetime

from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.jobs import present
from cryomamba_apiserver.ports.job_store import JobRecord, JobStore
from cryomamba_apiserver.ports.object_store import ObjectStore


class LiveJobs:
    """The jobs that somebody watches, each fed by one task."""

    def __init__(self, jobs: JobStore, objects: ObjectStore, signer: LinkSigner, now: Callable[[], datetime]) -> None:
        self._jobs = jobs
        self._objects = objects
        self._signer = signer
        self._now = now
        self._feeds: dict[str, _Feed] = {}
        self.closed = False
        """Whether the server is stopping; the sockets are then closed with a code that says so."""

    async def close(self) -> None:
        """End all feeds, and with them the sockets."""
        self.closed = True
        for feed in list(self._feeds.values()):
            await feed.stop()

    async def messages(self, job_id: str) -> AsyncGenerator[str, None]:
        """Yield a job's newest messages at once, then each change, until the last one.

        A reader that is slow skips messages that newer ones have replaced.
        """
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = _Feed(self, job_id)
        feed.readers += 1
        try:
            async for message in feed.read():
                yield message
        finally:
            feed.readers -= 1
            if not feed.readers:
                self._feeds.pop(job_id, None)
                await feed.stop()

    async def watch(self, job_id: str) -> AsyncIterator[tuple[str, str]]:
        """Yield (kind, encoded message) for each change of a job."""
        progress, preview = None, 0
        async for record in self._jobs.watch(job_id):
            if record.progress and record.progress != progress:
                progress = record.progress
                yield "progress", present.progress_message(record, progress)
            if record.preview and record.preview.sequence != preview:
                preview = record.preview.sequence
                yield "preview", await self._preview_message(record)
            if record.status.finished:
                yield "final", present.final_message(record, self._signer, self._now())

    async def _preview_message(self, record: JobRecord) -> str:
        if record.preview is None:
            raise ValueError("the job has no preview")
        return present.preview_message(record, record.preview, await self._objects.read(record.preview.key))


class _Feed:
    """The newest message of each kind of one job, numbered in the order in which they came."""

    def __init__(self, jobs: LiveJobs, job_id: str) -> None:
        self.readers = 0
        self._newest: dict[str, tuple[int, str]] = {}
        self._count = 0
        self._changed = asyncio.Condition()
        self._ended = False
        self._task = asyncio.create_task(self._fill(jobs.watch(job_id)), name=f"feed of {job_id}")

    async def read(self) -> AsyncIterator[str]:
        seen = 0
        while True:
            async with self._changed:
                while self._count == seen and not self._ended:
                    await self._changed.wait()
                news = sorted(item for item in self._newest.values() if item[0] > seen)
            for number, message in news:
                seen = number
                yield message
            if not news:
                if not self._task.cancelled():
                    await self._task  # raises what went wrong, if that is why there is nothing more
                return

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _fill(self, messages: AsyncIterator[tuple[str, str]]) -> None:
        try:
            async for kind, message in messages:
                async with self._changed:
                    self._count += 1
                    self._newest[kind] = (self._count, message)
                    self._changed.notify_all()
        finally:
            async with self._changed:
                self._ended = True
                self._changed.notify_all()
