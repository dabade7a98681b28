"""Uploads and files: begun, filled part by part, judged, kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from weakref import WeakValueDictionary

from cryomamba_apiserver.auth import Principal
from cryomamba_apiserver.errors import (
    ConflictError,
    GoneError,
    InvalidContentError,
    InvalidRequestError,
    NotFoundError,
    StorageExhaustedError,
    TooLargeError,
)
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore, Part, PartConflictError
from cryomamba_apiserver.uploads.inspect import Inspection, inspect_volume
from cryomamba_apiserver.uploads.schemas import (
    MAX_CHUNK_SIZE,
    MAX_PARTS,
    MIN_CHUNK_SIZE,
    CompleteUpload,
    FileCreated,
    FileRecord,
    InitUpload,
    UploadSession,
)
from cryomamba_crds import keys
from cryomamba_crds.failures import FailureError
from cryomamba_crds.ids import is_file_id, is_upload_id, new_file_id, new_upload_id


class UploadService:
    """Decides about uploads; everything it knows is in the object store."""

    def __init__(
        self, objects: ObjectStore, now: Callable[[], datetime], *, max_upload_size: int, ttl: timedelta
    ) -> None:
        self._objects = objects
        self._now = now
        self._max_upload_size = max_upload_size
        self._ttl = ttl
        # Two requests to complete one upload must not both finish, or drop, its parts.
        self._completing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def begin(self, owner: str, request: InitUpload) -> UploadSession:
        """Open a session; raise InvalidRequestError, TooLargeError, StorageExhaustedError."""
        self._check_sizes(request)
        free = await self._objects.free_bytes()
        if free is not None and free < request.total_size:
            raise StorageExhaustedError(
                f"The server has {free} bytes of storage left, the file has {request.total_size}.",
                hint="Ask whoever runs the server to free some space.",
                details={"free_bytes": free},
            )
        now = self._now()
        file_id = new_file_id()
        session = UploadSession(
            upload_id=new_upload_id(),
            owner=owner,
            multipart_id=await self._objects.create_upload(keys.file_volume(file_id), request.total_size),
            file_id=file_id,
            status="active",
            created_at=now,
            expires_at=now + self._ttl,
            **request.model_dump(),
        )
        await self._save(session)
        return session

    async def put_part(
        self, principal: Principal, upload_id: str, number: int, declared: int | None, body: AsyncIterator[bytes]
    ) -> Part:
        """Take one part in; raise InvalidRequestError, NotFoundError, GoneError, ConflictError."""
        session = await self._session(principal, upload_id)
        if session.status != "active":
            raise ConflictError(
                "The upload is complete; no part can be added.", hint="Begin a new upload for another file."
            )
        if not 0 <= number < session.part_count:
            raise InvalidRequestError(
                f"There is no part {number}: the file comes in {session.part_count}.",
                hint=f"Use a part number from 0 to {session.part_count - 1}.",
                details={"field": "part_number"},
            )
        expected = session.part_size(number)
        if declared != expected:
            raise InvalidRequestError(
                f"Part {number} has {expected} bytes, the request announces {declared}.",
                hint="Send every part with its exact Content-Length; only the last may be shorter than chunk_size.",
                details={"field": "Content-Length", "expected": expected},
            )
        try:
            return await self._objects.put_part(
                session.multipart_id, number, number * session.chunk_size, expected, body
            )
        except PartConflictError:
            raise ConflictError(
                f"Part {number} was uploaded already, with other bytes.",
                hint="Begin a new upload if the file has changed.",
                details={"part_number": number},
            ) from None
        except ObjectMissingError:
            raise _no_upload(upload_id) from None
        except ValueError as error:
            raise InvalidRequestError(f"Part {number} is not held: {error}.", hint="Send the part again.") from None

    async def complete(self, principal: Principal, upload_id: str, request: CompleteUpload) -> FileCreated:
        """Turn the parts into a file that jobs can use; the same call again gives the same answer.

        Raises:
            InvalidRequestError: parts are missing or have other etags.
            NotFoundError: no such upload.
            GoneError: it has expired.
            VolumeError: the file is no volume; the upload is then over and its bytes are dropped.
        """
        lock = self._completing.setdefault(upload_id, asyncio.Lock())
        async with lock:
            return await self._complete(principal, upload_id, request)

    async def _complete(self, principal: Principal, upload_id: str, request: CompleteUpload) -> FileCreated:
        session = await self._session(principal, upload_id)
        if session.status == "completed":
            return (await self.file(principal, session.file_id)).file
        if session.rejection:
            raise InvalidContentError(
                session.rejection.message, hint=session.rejection.hint, details=session.rejection.details
            )
        _check_parts(session, request, dict(await self._objects.parts(session.multipart_id)))
        await self._objects.finish_upload(session.multipart_id)
        try:
            inspection = await asyncio.to_thread(self._inspect, session)
        except FailureError as error:
            rejected = {"status": "rejected", "rejection": error.failure}
            await self._save(session.model_copy(update=rejected))
            await self._objects.delete(keys.file_volume(session.file_id))
            await self._objects.abort_upload(session.multipart_id)
            raise
        record = self._file_record(session, inspection)
        await self._objects.write(keys.file_record(session.file_id), record.model_dump_json().encode())
        await self._save(session.model_copy(update={"status": "completed"}))
        await self._objects.abort_upload(session.multipart_id)
        return record.file

    async def file(self, principal: Principal, file_id: str) -> FileRecord:
        """Return a file's record; raise NotFoundError."""
        if not is_file_id(file_id):
            raise _no_file(file_id)
        try:
            record = FileRecord.model_validate_json(await self._objects.read(keys.file_record(file_id)))
        except ObjectMissingError:
            raise _no_file(file_id) from None
        if not principal.may_see(record.owner):
            raise _no_file(file_id)
        return record

    def _check_sizes(self, request: InitUpload) -> None:
        if request.total_size > self._max_upload_size:
            raise TooLargeError(
                f"The file has {request.total_size} bytes, the server takes at most {self._max_upload_size}.",
                hint="Crop or bin the volume.",
                details={"max_upload_size": self._max_upload_size},
            )
        smallest = min(MIN_CHUNK_SIZE, request.total_size)  # a file of one part may be smaller
        if not smallest <= request.chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidRequestError(
                f"chunk_size is {request.chunk_size} bytes.",
                hint=f"Choose a chunk_size from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE} bytes.",
                details={"field": "chunk_size", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
            )
        if request.total_size > request.chunk_size * MAX_PARTS:
            raise InvalidRequestError(
                f"The file would come in more than {MAX_PARTS} parts.",
                hint=f"Choose a chunk_size of at least {-(-request.total_size // MAX_PARTS)} bytes.",
                details={"field": "chunk_size"},
            )

    async def _session(self, principal: Principal, upload_id: str) -> UploadSession:
        if not is_upload_id(upload_id):
            raise _no_upload(upload_id)
        try:
            session = UploadSession.model_validate_json(await self._objects.read(keys.upload_session(upload_id)))
        except ObjectMissingError:
            raise _no_upload(upload_id) from None
        if not principal.may_see(session.owner):
            raise _no_upload(upload_id)
        if session.status == "active" and session.expires_at <= self._now():
            raise GoneError("The upload has expired.", hint="Begin a new one.")
        return session

    async def _save(self, session: UploadSession) -> None:
        await self._objects.write(keys.upload_session(session.upload_id), session.model_dump_json().encode())

    def _inspect(self, session: UploadSession) -> Inspection:
        with self._objects.open(keys.file_volume(session.file_id)) as stream:
            return inspect_volume(stream, session.total_size)

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
                metadata=inspection.metadata,
                created_at=self._now(),
            ),
        )


def _check_parts(session: UploadSession, request: CompleteUpload, held: dict[int, Part]) -> None:
    named = {part.part_number: part.etag for part in request.parts}
    missing = [number for number in range(session.part_count) if number not in held]
    if missing:
        raise InvalidRequestError(
            f"{len(missing)} of {session.part_count} parts are missing, the first is part {missing[0]}.",
            hint="Upload the missing parts, then complete again.",
            details={"field": "parts", "missing": missing[:100]},
        )
    wrong = [number for number, part in sorted(held.items()) if named.get(number) != part.etag]
    unknown = sorted(set(named) - set(held))
    if wrong or unknown or len(named) != len(request.parts):
        raise InvalidRequestError(
            "The list of parts does not agree with what was uploaded.",
            hint="Name every part once, with the etag that its upload was answered with.",
            details={"field": "parts", "wrong": wrong[:100], "unknown": unknown[:100]},
        )


def _no_upload(upload_id: str) -> NotFoundError:
    return NotFoundError(f"There is no upload {upload_id}.", hint="Begin a new one with POST /v1/uploads/init.")


def _no_file(file_id: str) -> NotFoundError:
    return NotFoundError(f"There is no file {file_id}.", hint="Upload the volume first; see POST /v1/uploads/init.")
