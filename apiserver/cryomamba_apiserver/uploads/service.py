"""Uploads: begun, filled part by part, looked at, given up. Files: looked up."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryomamba_apiserver.auth import Principal
from cryomamba_apiserver.errors import (
    ConflictError,
    GoneError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    StorageExhaustedError,
    TooLargeError,
)
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore, Part, PartConflictError
from cryomamba_apiserver.settings import UploadSettings
from cryomamba_apiserver.uploads.completion import Completion
from cryomamba_apiserver.uploads.schemas import (
    MAX_CHUNK_SIZE,
    MAX_PARTS,
    MIN_CHUNK_SIZE,
    CompleteUpload,
    FileCreated,
    FileRecord,
    HeldPart,
    InitUpload,
    UploadDetails,
    UploadSession,
)
from cryomamba_apiserver.uploads.sessions import UploadRecords, ended_then_freed, expiry
from cryomamba_crds import keys
from cryomamba_crds.ids import is_file_id, is_upload_id, new_file_id, new_upload_id
from cryomamba_crds.keys import OpenUpload

_SHOWN = 20


@dataclass(frozen=True)
class UploadLimits:
    """How much may be uploaded, and for how long."""

    max_upload_size: int
    """Bytes of one file."""
    ttl: timedelta
    """How long an upload may take."""
    max_open: int
    """Uploads that one owner may have open at once."""
    quota: int | None
    """Bytes that one owner's files and open uploads may take together; None: as much as there is room."""


def upload_limits(settings: UploadSettings) -> UploadLimits:
    """Return the limits that the settings name."""
    return UploadLimits(
        max_upload_size=settings.max_upload_size,
        ttl=timedelta(seconds=settings.upload_ttl_seconds),
        max_open=settings.max_open_uploads,
        quota=settings.storage_quota,
    )


class UploadService:
    """Decides about uploads; everything it knows is in the object store."""

    def __init__(self, objects: ObjectStore, now: Callable[[], datetime], limits: UploadLimits) -> None:
        self._objects = objects
        self._now = now
        self._limits = limits
        self._records = UploadRecords(objects)
        self._completion = Completion(objects, self._records, now, limits.ttl, limits.max_upload_size)

    def close(self) -> None:
        """Let go of the threads; uploads that are being checked are checked again when `complete` is repeated."""
        self._completion.close()

    async def begin(self, owner: str, request: InitUpload) -> UploadSession:
        """Open a session.

        Raises:
            InvalidRequestError: the parts would be too small, too large or too many.
            TooLargeError: the file is.
            RateLimitedError: the owner has as many open as may be.
            StorageExhaustedError: there is no room, or the owner has used all that is theirs.
        """
        self._check_sizes(request)
        await self._check_room(request)
        now = self._now()
        expires_at = now + self._limits.ttl
        upload_id, file_id = new_upload_id(), new_file_id()
        # Counted first and looked at second: of requests at once, on however many servers, none slips past the limit.
        mark = await self._records.mark_open(
            owner, OpenUpload(upload_id, request.total_size, int(expires_at.timestamp()))
        )
        multipart_id = None
        try:
            await self._check_owner(owner, request, now)
            multipart_id = await self._objects.create_upload(keys.file_volume(file_id), request.total_size)
            return await self._records.save(
                UploadSession(
                    upload_id=upload_id,
                    owner=owner,
                    multipart_id=multipart_id,
                    file_id=file_id,
                    status="active",
                    mark=mark,
                    created_at=now,
                    expires_at=expires_at,
                    **request.model_dump(),
                )
            )
        except Exception:
            await self._objects.delete(mark)
            if multipart_id is not None:
                await self._objects.abort_upload(multipart_id)
            raise

    async def put_part(
        self, principal: Principal, upload_id: str, number: int, declared: int | None, body: AsyncIterator[bytes]
    ) -> Part:
        """Take one part in; raise InvalidRequestError, NotFoundError, GoneError, ConflictError."""
        session = await self._usable(principal, upload_id)
        if session.status != "active" or session.stage != "receiving":
            raise ConflictError(
                "The upload has all its parts; none can be added.",
                hint="Begin a new upload for another file, or call complete again if it was interrupted.",
            )
        if not 0 <= number < session.part_count:
            raise InvalidRequestError(
                f"There is no part {_short(number)}: the file comes in {session.part_count}.",
                hint=f"Use a part number from 0 to {session.part_count - 1}.",
                details={"field": "part_number"},
            )
        expected = session.part_size(number)
        if declared != expected:
            raise InvalidRequestError(
                f"Part {number} has {expected} bytes, the request announces {_short(declared)}.",
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

    async def details(self, principal: Principal, upload_id: str) -> UploadDetails:
        """Return how far an upload has come; raise NotFoundError, GoneError for one that was given up."""
        session = await self._session(principal, upload_id)
        if session.status == "aborted":
            raise _aborted()
        held = await self._records.parts(session)
        status = "completed" if session.status == "rejected" else session.status
        return UploadDetails(
            **session.model_dump(include={"upload_id", "filename", "total_size", "chunk_size", "content_type"}),
            status="expired" if self._expired(session) else status,
            created_at=session.created_at,
            expires_at=session.expires_at,
            stage=session.stage,
            parts=[
                HeldPart(part_number=number, size=part.size, etag=part.etag) for number, part in sorted(held.items())
            ],
            file_id=session.file_id if session.status == "completed" else None,
            error=session.rejection,
        )

    async def complete(self, principal: Principal, upload_id: str, request: CompleteUpload) -> FileCreated:
        """Turn the parts into a file that jobs can use; the same call again gives the same answer.

        Raises:
            InvalidRequestError: parts are missing or have other etags.
            NotFoundError: no such upload.
            GoneError: it has expired, or was given up.
            VolumeError: the file is no volume; the upload is then over and its bytes are dropped.
        """
        async with self._completion.alone(upload_id):
            return await self._completion.complete(await self._usable(principal, upload_id), request)

    async def abort(self, principal: Principal, upload_id: str) -> None:
        """Give an upload up and free what it holds; again is no error.

        Raises:
            NotFoundError: no such upload.
            GoneError: it has expired.
            ConflictError: it is complete, and there is a file.
        """
        async with self._completion.alone(upload_id):
            session = await self._session(principal, upload_id)
            if self._expired(session):
                raise _expired()
            if session.status == "completed":
                raise ConflictError(
                    "The upload is complete; it cannot be given up any more.",
                    hint=f"Its file is {session.file_id}.",
                    details={"file_id": session.file_id},
                )
            await ended_then_freed(
                lambda: self._records.end(session, "aborted"), lambda: self._completion.drop(session)
            )

    async def file(self, principal: Principal, file_id: str) -> FileRecord:
        """Return a file's record; raise NotFoundError."""
        if not is_file_id(file_id):
            raise _no_file(file_id)
        try:
            record = await self._records.file(file_id)
        except ObjectMissingError:
            raise _no_file(file_id) from None
        if not principal.may_see(record.owner):
            raise _no_file(file_id)
        return record

    def _check_sizes(self, request: InitUpload) -> None:
        if request.total_size > self._limits.max_upload_size:
            raise TooLargeError(
                f"The file has {request.total_size} bytes, the server takes at most {self._limits.max_upload_size}.",
                hint="Crop or bin the volume.",
                details={"max_upload_size": self._limits.max_upload_size},
            )
        smallest = min(MIN_CHUNK_SIZE, request.total_size)  # a file of one part may be smaller
        if not smallest <= request.chunk_size <= MAX_CHUNK_SIZE:
            raise InvalidRequestError(
                f"chunk_size is {_short(request.chunk_size)} bytes.",
                hint=f"Choose a chunk_size from {MIN_CHUNK_SIZE} to {MAX_CHUNK_SIZE} bytes.",
                details={"field": "chunk_size", "minimum": MIN_CHUNK_SIZE, "maximum": MAX_CHUNK_SIZE},
            )
        if request.total_size > request.chunk_size * MAX_PARTS:
            raise InvalidRequestError(
                f"The file would come in more than {MAX_PARTS} parts.",
                hint=f"Choose a chunk_size of at least {-(-request.total_size // MAX_PARTS)} bytes.",
                details={"field": "chunk_size"},
            )

    async def _check_room(self, request: InitUpload) -> None:
        free = await self._objects.free_bytes()
        if free is not None and free < request.total_size:
            raise StorageExhaustedError(
                f"The server has {free} bytes of storage left, the file has {request.total_size}.",
                hint="Ask whoever runs the server to free some space.",
                details={"free_bytes": free},
            )

    async def _check_owner(self, owner: str, request: InitUpload, now: datetime) -> None:
        """Refuse an upload, counted already, that is more than its owner may have."""
        opened = await self._records.open_uploads(owner, now)
        if len(opened) > self._limits.max_open:
            wait = max(1, int((expiry(opened[0]) - now).total_seconds()))
            raise RateLimitedError(
                f"You have {self._limits.max_open} uploads open, as many as one user may have.",
                hint="Complete them, or give up those that you don't need with DELETE /v1/uploads/{upload_id}.",
                headers={"Retry-After": str(wait)},
                details={
                    "limit": self._limits.max_open,
                    "window_seconds": int(self._limits.ttl.total_seconds()),
                    "retry_after_seconds": wait,
                    "open_uploads": [mark.upload_id for mark in opened[:_SHOWN]],
                },
            )
        if self._limits.quota is None:
            return
        used = sum(mark.size for mark in opened) + await self._records.stored_bytes(owner)
        if used > self._limits.quota:
            raise StorageExhaustedError(
                f"With this file of {request.total_size} bytes you would have {used} bytes on the server, "
                f"more than your {self._limits.quota}.",
                hint="Give up uploads that you don't need, or ask whoever runs the server for more room.",
                details={"quota_bytes": self._limits.quota, "used_bytes": used - request.total_size},
            )

    async def _usable(self, principal: Principal, upload_id: str) -> UploadSession:
        session = await self._session(principal, upload_id)
        if session.status == "aborted":
            raise _aborted()
        if self._expired(session):
            raise _expired()
        return session

    async def _session(self, principal: Principal, upload_id: str) -> UploadSession:
        if not is_upload_id(upload_id):
            raise _no_upload(upload_id)
        try:
            session = await self._records.session(upload_id)
        except ObjectMissingError:
            raise _no_upload(upload_id) from None
        if not principal.may_see(session.owner):
            raise _no_upload(upload_id)
        return session

    def _expired(self, session: UploadSession) -> bool:
        return session.status == "expired" or (session.status == "active" and session.expires_at <= self._now())


def _short(number: int | None) -> str:
    """A number for a message; one of a thousand digits has no place there."""
    largest = 10**20
    return "no length" if number is None else str(number) if -largest < number < largest else "far too many"


def _expired() -> GoneError:
    return GoneError("The upload has expired.", hint="Begin a new one with POST /v1/uploads/init.")


def _aborted() -> GoneError:
    return GoneError("The upload was given up.", hint="Begin a new one with POST /v1/uploads/init.")


def _no_upload(upload_id: str) -> NotFoundError:
    return NotFoundError(f"There is no upload {upload_id[:64]}.", hint="Begin a new one with POST /v1/uploads/init.")


def _no_file(file_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no file {file_id[:64]}.", hint="Upload the volume first; see POST /v1/uploads/init."
    )
