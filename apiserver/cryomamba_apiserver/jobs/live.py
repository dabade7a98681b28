"""Feeds the sockets that watch a job: one watch a job, each message encoded once, only the newest kept."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from datetime import datetime

from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.jobs import present
from cryomamba_apiserver.jobs.mailbox import Mailbox, Message, WriteFrame
from cryomamba_apiserver.ports.job_store import JobRecord, JobStore
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore, StoreUnavailableError

_log = logging.getLogger(__name__)
_TURN_BYTES = 8 << 20
"""How much is written to sockets in one turn of the event loop."""


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

    async def messages(self, job_id: str, write: WriteFrame | None = None) -> AsyncGenerator[Message, None]:
        """Yield a job's newest messages at once, then each change, until the last one.

        A reader that is slow skips messages that newer ones have replaced. What `write` takes while the reader waits
        is not yielded any more.
        """
        if self.closed:
            return
        feed = self._feeds.get(job_id)
        if feed is None:
            feed = self._feeds[job_id] = _Feed(self, job_id)
        try:
            with feed.read_by(Mailbox(write)) as mailbox:
                async for message in mailbox.messages():
                    yield message
            await feed.outcome()
        finally:
            if not feed.mailboxes and self._feeds.get(job_id) is feed:
                del self._feeds[job_id]
                await feed.stop()

    async def watch(self, job_id: str) -> AsyncIterator[Message]:
        """Yield a message for each change of a job."""
        progress, preview = None, (0, 0)
        async for record in self._jobs.watch(job_id):
            if record.progress and record.progress != progress:
                progress = record.progress
                yield Message("progress", present.progress_message(record, progress))
            if record.preview and (record.attempt, record.preview.sequence) != preview:
                preview = record.attempt, record.preview.sequence  # each attempt counts from 1
                if message := await self._preview(record):
                    yield message
            if record.status.finished:
                yield Message("final", present.final_message(record, self._signer, self._now()))

    async def _preview(self, record: JobRecord) -> Message | None:
        if record.preview is None:
            raise ValueError("the job has no preview")
        try:
            png = await self._objects.read(record.preview.key)
        except ObjectMissingError:
            return None  # a later preview, another attempt or the end of the job has taken its place
        except StoreUnavailableError as error:
            _log.warning("a preview of job %s cannot be read and is left out: %s", record.job_id, error)
            return None  # progress and the end need no store; there may be a later preview
        # In a thread: a picture of a large volume keeps the encoder busy for longer than others should wait.
        return Message("preview", await asyncio.to_thread(present.preview_message, record, record.preview, png))


class _Feed:
    """The newest message of each kind of one job, and the mailboxes that it brings them to."""

    def __init__(self, jobs: LiveJobs, job_id: str) -> None:
        self.mailboxes: set[Mailbox] = set()
        self._newest: dict[str, Message] = {}
        self._ended = False
        self._task = asyncio.create_task(self._fill(jobs.watch(job_id)), name=f"feed of {job_id}")

    @contextlib.contextmanager
    def read_by(self, mailbox: Mailbox) -> Iterator[Mailbox]:
        """Bring a mailbox what is the newest now and all that comes."""
        for message in self._newest.values():
            mailbox.put(message)
        if self._ended:
            mailbox.end()
        self.mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            self.mailboxes.remove(mailbox)

    async def outcome(self) -> None:
        """Raise what went wrong, if that is why there is nothing more."""
        if not self._task.cancelled():
            await self._task

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _fill(self, messages: AsyncIterator[Message]) -> None:
        try:
            async for message in messages:
                self._newest.pop(message.kind, None)
                self._newest[message.kind] = message
                await self._bring(message)
        finally:
            self._ended = True
            for mailbox in self.mailboxes:
                mailbox.end()

    async def _bring(self, message: Message) -> None:
        """Bring a message to all mailboxes that are there now; who comes later finds it among the newest."""
        written = 0
        for mailbox in list(self.mailboxes):
            mailbox.put(message)
            written += len(message.text)
            if written >= _TURN_BYTES:
                written = 0
                await asyncio.sleep(0)
