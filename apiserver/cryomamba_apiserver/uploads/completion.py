"""From parts to a file: put together, checked, recorded, so that it can stop anywhere and be asked for again.

What each step needs is written before the step is taken: the parts, then the stage `assembling`, then the object,
then the stage `checking`, then the file's record, then the session's end. Every step may be taken twice.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from cryomamba_apiserver.errors import GoneError, InvalidContentError, InvalidRequestError, UnavailableError
from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    ObjectStore,
    Part,
    PartConflictError,
)
from cryomamba_apiserver.uploads.inspect import Inspection, InspectionStoppedError, inspect_volume
from cryomamba_apiserver.uploads.schemas import CompleteUpload, FileCreated, FileRecord, UploadSession, VolumeMetadata
from cryomamba_apiserver.uploads.sessions import UploadRecords, ended_then_freed
from cryomamba_crds import keys
from cryomamba_crds.keys import StoredFile
from cryomamba_crds.volumes import VolumeError

_AT_ONCE = 2  # volumes read at once; each keeps a core busy, and the threads of everything else stay free
_SHOWN = 100
_BACK_SECONDS = 10


class _EndedElsewhereError(Exception):
    """Another request has ended the upload."""


class Completion:
    """Completes uploads of one object store."""

    def __init__(
        self, objects: ObjectStore, records: UploadRecords, now: Callable[[], datetime], ttl: timedelta, max_size: int
    ) -> None:
        """Take the store and its records, the clock, how long an upload may take, and a volume's most bytes."""
        self._max_size = max_size
        self._objects = objects
        self._records = records
        self._now = now
        self._ttl = ttl
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="inspect")
        self._stopped = threading.Event()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def close(self) -> None:
        """Stop reading volumes."""
        self._stopped.set()
        # Without waiting: this is the event loop, and a store that is away may hold a read for minutes.
        self._threads.shutdown(wait=False)

    @asynccontextmanager
    async def alone(self, upload_id: str) -> AsyncIterator[None]:
        """Let one request at a time end an upload. Requests to other servers are settled by what is recorded first."""
        lock = self._locks.setdefault(upload_id, asyncio.Lock())
        async with lock:
            yield

    async def complete(self, session: UploadSession, request: CompleteUpload) -> FileCreated:
        """Return the file, making it from wherever an earlier call stopped.

        Raises:
            InvalidRequestError: parts are missing or have other etags.
            GoneError: the upload was given up meanwhile.
            VolumeError: the file is no volume; the upload is then over and its bytes are dropped.
        """
        if ended := await self._ending(session):
            return ended
        held = await self._records.parts(session)
        _check_parts(session, request, held)
        try:
            if session.stage == "receiving":
                await self._records.keep_parts(session, held)
                session = await self._advance(session, "assembling")
            if session.stage == "assembling":
                await self._assemble(session, held)
                session = await self._advance(session, "checking")
            inspection = await self._inspect(session)
        except VolumeError as error:
            refused, failure = session, error.failure
            await ended_then_freed(lambda: self._records.refuse(refused, failure), lambda: self.drop(refused))
            raise
        except (ObjectMissingError, _EndedElsewhereError):
            return await self._ended_elsewhere(session)
        except InspectionStoppedError:
            raise UnavailableError(
                "The server stops; the file was not checked to its end.",
                hint="Call complete again when the server is back; nothing needs to be sent again.",
                headers={"Retry-After": str(_BACK_SECONDS)},
                details={"retry_after_seconds": _BACK_SECONDS},
            ) from None
        return await self._record(session, inspection)

    async def drop(self, session: UploadSession) -> None:
        """Free all that an upload holds."""
        await self._objects.abort_upload(session.multipart_id)
        # The record last: whoever writes one looks afterwards whether its volume is still there.
        await self._objects.delete(keys.file_volume(session.file_id))
        await self._objects.delete(keys.file_record(session.file_id))
        await self._objects.delete(keys.stored_file(session.owner, _stored(session)))

    async def _ending(self, session: UploadSession) -> FileCreated | None:
        """Return the file of an upload that is complete; raise what one was refused with."""
        if session.rejection:
            failure = session.rejection
            raise InvalidContentError(failure.message, hint=failure.hint, details=failure.details)
        if session.status == "completed":
            try:
                return (await self._records.file(session.file_id)).file
            except ObjectMissingError:
                raise GoneError(
                    f"File {session.file_id} was removed: files are kept for a time only.", hint="Upload it again."
                ) from None
        if session.status != "active":
            raise GoneError("The upload is over.", hint="Begin a new one with POST /v1/uploads/init.")
        return None

    async def _ended_elsewhere(self, session: UploadSession) -> FileCreated:
        """The bytes went while they were read: another server has refused the file, or it was given up."""
        session = await self._records.session(session.upload_id)
        if session.status == "active" and (refusal := await self._records.refusal(session.upload_id)):
            session = await self._records.refuse(session, refusal)
        if ended := await self._ending(session):
            return ended
        raise GoneError("The bytes of the upload are gone.", hint="Begin a new one with POST /v1/uploads/init.")

    async def _advance(self, session: UploadSession, stage: str) -> UploadSession:
        # Another server may have ended it while this one was busy; what is recorded first counts.
        if (await self._records.session(session.upload_id)).status != "active":
            raise _EndedElsewhereError
        # All bytes are here: the time to upload them must not run out while they are read.
        expires_at = max(session.expires_at, self._now() + self._ttl)
        return await self._records.extend(session, expires_at, stage=stage)

    async def _assemble(self, session: UploadSession, held: dict[int, Part]) -> None:
        try:
            await self._objects.finish_upload(session.multipart_id, held)
        except PartConflictError:
            # Only what came in between asking for the parts and writing them down.
            await self._records.save(session.model_copy(update={"stage": "receiving"}))
            raise InvalidRequestError(
                "A part changed while the upload was completed.",
                hint="GET /v1/uploads/{upload_id} lists the parts held; send what is missing, then complete again.",
                details={"field": "parts"},
            ) from None

    async def _inspect(self, session: UploadSession) -> Inspection:
        def read() -> Inspection:
            with self._objects.open(keys.file_volume(session.file_id)) as stream:
                return inspect_volume(stream, session.total_size, self._max_size, self._stopped.is_set)

        # One at a time for each owner: what is slow to read keeps its own owner waiting, and not everybody.
        async with self._reading.setdefault(session.owner, asyncio.Lock()):
            if self._stopped.is_set():  # while it waited
                raise InspectionStoppedError
            return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    async def _record(self, session: UploadSession, inspection: Inspection) -> FileCreated:
        """Write the file's record, or take the one that another server has written first."""
        record = self._file_record(session, inspection)
        ended = await self._ending(await self._records.session(session.upload_id))
        if ended:
            return ended
        await self._records.mark_file(session.owner, _stored(session))
        try:
            await self._objects.write(
                keys.file_record(session.file_id), record.model_dump_json().encode(), if_absent=True
            )
        except ObjectExistsError:
            record = await self._records.file(session.file_id)
        if await self._objects.stat(keys.file_volume(session.file_id)) is None:
            await self._objects.delete(keys.file_record(session.file_id))
            await self._objects.delete(keys.stored_file(session.owner, _stored(session)))
            return await self._ended_elsewhere(session)
        await self._records.end(session, "completed", stage="done")
        await self._objects.abort_upload(session.multipart_id)
        return record.file

    def _file_record(self, session: UploadSession, inspection: Inspection) -> FileRecord:
        return FileRecord(
            owner=session.owner,
            user_metadata=session.metadata,
            file=FileCreated(
                file_id=session.file_id,
                filename=session.filename,
                size=session.total_size,
                content_type=session.content_type,
                checksum=inspection.checksum,
                metadata=VolumeMetadata(filename=session.filename, **inspection.facts.model_dump()),
                created_at=self._now(),
            ),
        )


def _stored(session: UploadSession) -> StoredFile:
    """Return what the mark of an upload's file says."""
    return StoredFile(session.file_id, session.total_size)


def _check_parts(session: UploadSession, request: CompleteUpload, held: dict[int, Part]) -> None:
    named = {part.part_number: part.etag for part in request.parts}
    missing = [number for number in range(session.part_count) if number not in held]
    if missing:
        raise InvalidRequestError(
            f"{len(missing)} of {session.part_count} parts are missing, the first is part {missing[0]}.",
            hint="Upload the missing parts, then complete again.",
            details={"field": "parts", "missing": missing[:_SHOWN]},
        )
    wrong = [number for number, part in sorted(held.items()) if named.get(number) != part.etag]
    unknown = sorted(set(named) - set(held))
    if wrong or unknown or len(named) != len(request.parts):
        raise InvalidRequestError(
            "The list of parts does not agree with what was uploaded.",
            hint="Name every part once, with the etag that its upload was answered with.",
            details={"field": "parts", "wrong": wrong[:_SHOWN], "unknown": unknown[:_SHOWN]},
        )
