"""Records of uploads in the object store: sessions, what they were completed with, and what each owner has there.

What an owner has is counted by marks: empty objects below a prefix of the owner's own, whose keys say size and
expiry. Counting is one listing of what this owner has open, however many uploads of others there are or have been.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal

from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    ObjectStore,
    Part,
    StorageFullError,
)
from cryomamba_apiserver.uploads.schemas import FileRecord, HeldPart, HeldParts, UploadSession
from cryomamba_crds import keys
from cryomamba_crds.failures import Failure
from cryomamba_crds.keys import OpenUpload, StoredFile

Ending = Literal["completed", "rejected", "aborted", "expired"]


class UploadRecords:
    """Reads and writes the records of one object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def session(self, upload_id: str) -> UploadSession:
        """Return a session; raise ObjectMissingError."""
        return UploadSession.model_validate_json(await self._objects.read(keys.upload_session(upload_id)))

    async def save(self, session: UploadSession) -> UploadSession:
        """Write a session and return it."""
        await self._objects.write(keys.upload_session(session.upload_id), session.model_dump_json().encode())
        return session

    async def end(self, session: UploadSession, ending: Ending, **changes: object) -> UploadSession:
        """Write how a session has ended; it then counts as open no more."""
        ended = await self.save(session.model_copy(update={"status": ending, **changes}))
        if session.mark:
            await self._objects.delete(session.mark)
        return ended

    async def extend(self, session: UploadSession, expires_at: datetime, **changes: object) -> UploadSession:
        """Write a session that ends later, by its mark too: it counts as open for as long as it is."""
        mark = await self.mark_open(
            session.owner, OpenUpload(session.upload_id, session.total_size, int(expires_at.timestamp()))
        )
        extended = await self.save(session.model_copy(update={"expires_at": expires_at, "mark": mark, **changes}))
        if session.mark and session.mark != mark:
            await self._objects.delete(session.mark)
        return extended

    async def refuse(self, session: UploadSession, refusal: Failure) -> UploadSession:
        """Write why a file was refused, apart from the session, which another server may be about to write."""
        key = keys.upload_refusal(session.upload_id)
        with contextlib.suppress(ObjectExistsError):
            await self._objects.write(key, refusal.model_dump_json().encode(), if_absent=True)
        return await self.end(session, "rejected", rejection=refusal, stage="done")

    async def refusal(self, upload_id: str) -> Failure | None:
        """Return why a file was refused, None where it was not."""
        try:
            return Failure.model_validate_json(await self._objects.read(keys.upload_refusal(upload_id)))
        except ObjectMissingError:
            return None

    async def parts(self, session: UploadSession) -> dict[int, Part]:
        """Return the parts held, or those that the upload was completed with; none once the store dropped them."""
        try:
            if session.stage == "receiving":
                return dict(await self._objects.parts(session.multipart_id))
            kept = HeldParts.model_validate_json(await self._objects.read(keys.upload_parts(session.upload_id)))
        except ObjectMissingError:
            return {}
        return {part.part_number: Part(etag=part.etag, size=part.size) for part in kept.parts}

    async def keep_parts(self, session: UploadSession, parts: Mapping[int, Part]) -> None:
        """Write down the parts before the store puts them together and forgets them."""
        kept = HeldParts(
            parts=[HeldPart(part_number=number, size=part.size, etag=part.etag) for number, part in parts.items()]
        )
        await self._objects.write(keys.upload_parts(session.upload_id), kept.model_dump_json().encode())

    async def file(self, file_id: str) -> FileRecord:
        """Return a file's record; raise ObjectMissingError."""
        return FileRecord.model_validate_json(await self._objects.read(keys.file_record(file_id)))

    async def mark_open(self, owner: str, mark: OpenUpload) -> str:
        """Count an upload as open and return the mark's key."""
        key = keys.open_upload(owner, mark)
        await self._objects.write(key, b"")
        return key

    async def mark_file(self, owner: str, mark: StoredFile) -> None:
        """Count a file as its owner's."""
        await self._objects.write(keys.stored_file(owner, mark), b"")

    async def open_uploads(self, owner: str, now: datetime) -> list[OpenUpload]:
        """Return what an owner has open, the first to expire first."""
        found = [keys.read_owner_mark(key) for key in await self._objects.list_keys(keys.owner_uploads_prefix(owner))]
        opened = sorted(
            (mark for mark in found if isinstance(mark, OpenUpload) and expiry(mark) > now),
            key=lambda mark: mark.expires,
        )
        # One whose time is being extended has two marks for a moment; the later counts.
        latest = {mark.upload_id: mark for mark in opened}
        return sorted(latest.values(), key=lambda mark: mark.expires)

    async def stored_bytes(self, owner: str) -> int:
        """Return the bytes of an owner's files."""
        found = await self._objects.list_keys(keys.owner_files_prefix(owner))
        return sum(keys.read_owner_mark(key).size for key in found)


async def ended_then_freed(
    end: Callable[[], Awaitable[UploadSession]], free: Callable[[], Awaitable[None]]
) -> UploadSession:
    """Write how an upload has ended, then free what it holds; where the store is too full to write, first free it.

    Raises:
        StorageFullError: there is no room even so; all that can be freed is free.
    """
    try:
        ended = await end()
    except StorageFullError:
        await free()
        return await end()
    await free()
    return ended


def expiry(mark: OpenUpload) -> datetime:
    """Return when an open upload ends by itself."""
    return datetime.fromtimestamp(mark.expires, UTC)
