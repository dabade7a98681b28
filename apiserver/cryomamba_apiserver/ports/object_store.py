"""The port to everything big: volumes, models, artifacts, and the uploads under way."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class ObjectMissingError(LookupError):
    """There is no object of this key, or no upload of this id."""


class ObjectExistsError(Exception):
    """The object was to be written only if absent, and it is there."""


class PartConflictError(Exception):
    """The part is held already, with other bytes."""


class StorageFullError(Exception):
    """The store has no room left for what is being written."""


@dataclass(frozen=True)
class Part:
    """One part of an upload that the store holds."""

    etag: str
    """MD5 of its bytes, in hexadecimal, as S3 has it."""
    size: int
    """In bytes."""


class ObjectStore(Protocol):
    """Objects by key, and uploads in parts. Keys come from `cryomamba_crds.keys` and nowhere else."""

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
        """Return the sorted keys below a prefix."""

    def stream(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes [start, stop) of an object in blocks of bounded size."""

    def open(self, key: str) -> BinaryIO:
        """Open an object for seeking and reading, in a thread of the caller's; raise ObjectMissingError."""

    async def free_bytes(self) -> int | None:
        """Return the room that is left, None where the store does not tell."""

    async def create_upload(self, key: str, size: int) -> str:
        """Begin an upload of `size` bytes to `key`; return the id by which its parts are put."""

    async def put_part(self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]) -> Part:
        """Store one part (0-based) that begins at `offset` of the object.

        The same bytes again change nothing.

        Raises:
            ObjectMissingError: no such upload.
            PartConflictError: the part is held with other bytes, which stay.
            StorageFullError: no room; the part is not held.
            ValueError: the body is not `size` bytes long; the part is not held.
        """

    async def parts(self, upload: str) -> Mapping[int, Part]:
        """Return the parts held; raise ObjectMissingError."""

    async def finish_upload(self, upload: str) -> None:
        """Turn the parts into the object; a second call changes nothing."""

    async def abort_upload(self, upload: str) -> None:
        """Drop an upload and its parts; one that is not there is no error."""
