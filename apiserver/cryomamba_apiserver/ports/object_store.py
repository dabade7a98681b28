"""The port to everything big: volumes, models, artifacts, and the uploads under way."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol


class ObjectMissingError(LookupError):
    """There is no object of this key, or no upload of this id."""


class ObjectExistsError(Exception):
    """The object was to be written only if absent, and it is there."""


class PartConflictError(Exception):
    """The part is held already, with other bytes."""


class StorageFullError(Exception):
    """The store has no room left for what is being written."""


class StoreUnavailableError(Exception):
    """The store cannot be used: away, its bucket missing, our credentials refused. Says which, and no secret."""


@dataclass(frozen=True)
class Part:
    """One part of an upload that the store holds."""

    etag: str
    """MD5 of its bytes, in hexadecimal, as S3 has it. A store that encrypts may have something else here."""
    size: int
    """In bytes."""


@dataclass(frozen=True)
class ObjectStat:
    """What is known of an object without reading it."""

    key: str
    size: int
    """In bytes."""
    modified_at: datetime
    """In UTC."""
    etag: str | None
    """Changes when the object does, without quotes."""


@dataclass(frozen=True)
class PendingUpload:
    """An upload that is neither finished nor aborted."""

    id: str
    """As `create_upload` returned it."""
    key: str
    created_at: datetime
    """In UTC."""


class ObjectStore(Protocol):
    """Objects by key, and uploads in parts. Keys come from `cryomamba_crds.keys` and nowhere else.

    Every method raises StoreUnavailableError where the store cannot be used.
    """

    async def check(self) -> None:
        """Return if the store can be used now."""

    async def close(self) -> None:
        """Give up connections; nothing is called afterwards."""

    async def read(self, key: str) -> bytes:
        """Return a small object whole; raise ObjectMissingError."""

    async def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write a small object whole or not at all; raise ObjectExistsError, StorageFullError."""

    async def write_file(self, key: str, source: BinaryIO) -> None:
        """Write an object of any size from a file, whole or not at all; raise StorageFullError."""

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    async def delete_prefix(self, prefix: str) -> None:
        """Remove all objects below a prefix that ends with a slash."""

    async def list_keys(self, prefix: str) -> list[str]:
        """Return the sorted keys below a prefix that ends with a slash."""

    def list_objects(self, prefix: str) -> AsyncIterator[ObjectStat]:
        """Yield the objects below a prefix that ends with a slash, by key, without holding them all.

        Objects that appear or go meanwhile may be missing or there.
        """

    async def stat(self, key: str) -> ObjectStat | None:
        """Return what is known of an object, None where there is none."""

    def stream(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) of an object in blocks of bounded size; raise ObjectMissingError.

        Also raised where the object ends before `stop`. To be closed (`aclose`) where it is not read to its end.
        """

    def open(self, key: str) -> BinaryIO:
        """Open an object for seeking and reading, in a thread of the caller's; raise ObjectMissingError."""

    async def free_bytes(self) -> int | None:
        """Return the room that is left, None where the store does not tell."""

    def presigned_get(self, key: str, ttl: timedelta, filename: str) -> str | None:
        """Return a URL by which anybody can download the object under a name for a time; a secret.

        None where clients cannot reach the store. Whether there is such an object is not looked up.
        """

    async def create_upload(self, key: str, size: int) -> str:
        """Begin an upload of `size` bytes to `key`; return the id by which its parts are put; raise StorageFullError.

        A key is uploaded to once.
        """

    async def list_uploads(self) -> list[PendingUpload]:
        """Return the uploads that are neither finished nor aborted, the oldest first."""

    async def put_part(self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]) -> Part:
        """Store one part (0-based) that begins at `offset` of the object.

        The same bytes again change nothing.

        Raises:
            ObjectMissingError: no such upload, or it is finished.
            PartConflictError: the part is held with other bytes, which stay.
            StorageFullError: no room; the part is not held.
            ValueError: the body is not `size` bytes long; the part is not held.
        """

    async def parts(self, upload: str) -> Mapping[int, Part]:
        """Return the parts held; raise ObjectMissingError, also once the upload is finished."""

    async def finish_upload(self, upload: str, parts: Mapping[int, Part]) -> None:
        """Turn the parts into the object; once that is done, the call changes nothing, whatever its parts.

        Args:
            upload: Its id.
            parts: All of them, as `parts` returned them: one that changed since is noticed.

        Raises:
            ObjectMissingError: no such upload, and no object under its key.
            PartConflictError: a part is not held, or has another etag.
        """

    async def abort_upload(self, upload: str) -> None:
        """Drop an upload and its parts; one that is not there, or is finished, is no error."""
