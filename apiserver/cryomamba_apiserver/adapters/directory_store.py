"""An object store that is a directory: keys are paths, every write is whole or not at all.

An upload's parts go straight to their place in one file, so that finishing it is a rename and not a copy. Its id is
the key of its object and the name of its folder.
"""

import asyncio
import contextlib
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from cryomamba_apiserver.adapters.bodies import BLOCK, blocks, part_of, wrong_length
from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    ObjectStat,
    Part,
    PartConflictError,
    PendingUpload,
    StorageFullError,
    StoreUnavailableError,
)

_PAGE = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RESERVED_SHARE = 0.05
_MOST_RESERVED = 1 << 30


class DirectoryObjectStore:
    """Fulfils `ObjectStore` for one process on one machine.

    Args:
        root: Its folder.
        reserve: Bytes of the disk that uploads leave free, for jobs and records; None: 5 % of it, 1 GiB at most.
    """

    def __init__(self, root: Path, reserve: int | None = None) -> None:
        self._reserve = reserve
        self._objects = root / "objects"
        self._uploads = root / "uploads"
        self._parts_being_put: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self._objects.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """Folder below which an object's key is its path."""
        return self._objects

    async def check(self) -> None:  # noqa: D102 - the port says it
        for folder in (self._objects, self._uploads):
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise StoreUnavailableError(f"{folder} is not there or may not be written to")

    async def close(self) -> None:
        """There is nothing to give up."""

    async def read(self, key: str) -> bytes:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._read, key)

    async def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(_write_whole, self._path(key), data, if_absent=if_absent)

    async def write_file(self, key: str, source: BinaryIO) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(self._write_file, key, source)

    async def delete(self, key: str) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    async def delete_prefix(self, prefix: str) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(_remove_tree, self._path(prefix))

    async def list_keys(self, prefix: str) -> list[str]:  # noqa: D102 - the port says it
        return [stat.key async for stat in self.list_objects(prefix)]

    async def list_objects(self, prefix: str) -> AsyncIterator[ObjectStat]:  # noqa: D102 - the port says it
        found = _walk(self._path(prefix), prefix)
        while page := await asyncio.to_thread(list, itertools.islice(found, _PAGE)):
            for stat in page:
                yield stat

    async def stat(self, key: str) -> ObjectStat | None:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._stat, key)

    async def stream(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:  # noqa: D102 - the port says it
        file = await asyncio.to_thread(self.open, key)
        try:
            await asyncio.to_thread(file.seek, start)
            while start < stop:
                block = await asyncio.to_thread(file.read, min(BLOCK, stop - start))
                if not block:
                    raise ObjectMissingError(f"{key} became shorter while it was read")
                start += len(block)
                yield block
        finally:
            file.close()

    def open(self, key: str) -> BinaryIO:  # noqa: D102 - the port says it
        with _missing(key):
            return self._path(key).open("rb")

    async def free_bytes(self) -> int | None:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._room)

    def presigned_get(self, key: str, ttl: timedelta, filename: str) -> str | None:  # noqa: ARG002, D102 - no such thing
        return None

    async def create_upload(self, key: str, size: int) -> str:  # noqa: D102 - the port says it
        upload = f"{key}?{secrets.token_hex(16)}"
        await asyncio.to_thread(self._create_upload, upload, key, size)
        return upload

    async def list_uploads(self) -> list[PendingUpload]:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._list_uploads)

    async def put_part(  # noqa: D102 - the port says it
        self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]
    ) -> Part:
        # Two requests for one part must not write into the same place at once.
        lock = self._parts_being_put.setdefault((upload, number), asyncio.Lock())
        async with lock:
            held = (await self.parts(upload)).get(number)
            if held is not None:
                if await part_of(body, size) != held:
                    raise PartConflictError(f"part {number} is held with other bytes")
                return held
            return await self._store_part(upload, number, offset, size, body)

    async def parts(self, upload: str) -> Mapping[int, Part]:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._held, upload)

    async def finish_upload(self, upload: str, parts: Mapping[int, Part]) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(self._finish, upload, parts)

    async def abort_upload(self, upload: str) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(_remove_upload, self._folder(upload))

    def _room(self) -> int:
        """Return the bytes that uploads may still take."""
        disk = shutil.disk_usage(self._objects)
        reserve = min(_MOST_RESERVED, int(disk.total * _RESERVED_SHARE)) if self._reserve is None else self._reserve
        return max(0, disk.free - reserve)

    def _path(self, key: str) -> Path:
        path = self._objects / key
        if ".." in path.parts or not path.is_relative_to(self._objects):
            raise ValueError(f"{key!r} is not a key")
        return path

    def _folder(self, upload: str) -> Path:
        _, mark, name = upload.partition("?")
        if not mark or not name.isalnum():
            raise ObjectMissingError(upload)
        return self._uploads / name

    def _read(self, key: str) -> bytes:
        with _missing(key):
            return self._path(key).read_bytes()

    def _write_file(self, key: str, source: BinaryIO) -> None:
        with _whole(self._path(key)) as target:
            shutil.copyfileobj(source, target, BLOCK)

    def _stat(self, key: str) -> ObjectStat | None:
        path = self._path(key)
        try:
            return _described(key, path.stat()) if path.is_file() else None
        except FileNotFoundError:
            return None

    def _create_upload(self, upload: str, key: str, size: int) -> None:
        if size > self._room():
            raise StorageFullError("the disk of the data directory has no room but what is kept for jobs and records")
        folder = self._folder(upload)
        # The record first: what is listed can be aborted.
        _write_whole(folder / "upload.json", json.dumps({"id": upload, "key": key}).encode())
        (folder / "parts").mkdir()
        with _full(), (folder / "volume").open("wb") as volume:
            # Reserved now, so that a disk that is too small is told before anything is sent.
            try:
                os.posix_fallocate(volume.fileno(), 0, size)
            except OSError:
                _remove_upload(folder)
                raise
        if not self._room():  # of uploads that begin at once, each found the room that the others took
            _remove_upload(folder)
            raise StorageFullError("the disk of the data directory has no room but what is kept for jobs and records")

    def _list_uploads(self) -> list[PendingUpload]:
        found = []
        for record in self._uploads.glob("*/upload.json"):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                began = datetime.fromtimestamp(record.stat().st_mtime, UTC)
                found.append(PendingUpload(**json.loads(record.read_bytes()), created_at=began))
        return sorted(found, key=lambda upload: (upload.created_at, upload.id))

    def _held(self, upload: str) -> dict[int, Part]:
        folder = self._folder(upload)
        with _missing(upload):
            (folder / "volume").stat()  # gone once the upload is finished
            names = [path.name for path in (folder / "parts").iterdir()]
        # A part's record is written after its bytes, and its name says all there is to say.
        fields = (name.split("-") for name in names if not name.startswith("."))
        return {int(number): Part(etag=etag, size=int(size)) for number, size, etag in fields}

    async def _store_part(self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]) -> Part:
        folder = self._folder(upload)
        digest = hashlib.md5(usedforsecurity=False)
        received = 0
        with _missing(upload):
            volume = await asyncio.to_thread((folder / "volume").open, "r+b")
        try:
            await asyncio.to_thread(volume.seek, offset)
            async for block in blocks(body):
                received += len(block)
                if received > size:
                    break
                await asyncio.to_thread(_write_and_hash, volume, digest, block)
            if received != size:
                raise wrong_length(received, size)
            await asyncio.to_thread(_flush, volume)
        finally:
            await asyncio.to_thread(_close, volume)
        part = Part(etag=digest.hexdigest(), size=size)
        await asyncio.to_thread(self._record_part, upload, f"{number}-{size}-{part.etag}")
        return part

    def _record_part(self, upload: str, name: str) -> None:
        with _full(), _missing(upload):  # it may have been aborted meanwhile
            (self._folder(upload) / "parts" / name).touch()

    def _finish(self, upload: str, parts: Mapping[int, Part]) -> None:
        target = self._path(upload.partition("?")[0])
        try:
            held = self._held(upload)
        except ObjectMissingError:
            if not target.is_file():
                raise
        else:
            changed = [number for number, part in parts.items() if held.get(number) != part]
            if changed:
                raise PartConflictError(f"part {changed[0]} is not held, or with other bytes")
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._folder(upload) / "volume").rename(target)
        _remove_upload(self._folder(upload))


@contextlib.contextmanager
def _missing(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ObjectMissingError(name) from None


@contextlib.contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError("the disk of the data directory is full") from error
        raise


@contextlib.contextmanager
def _whole(path: Path, *, if_absent: bool = False) -> Iterator[BinaryIO]:
    """Open a file that appears under its name only once it is complete and on disk."""
    with _full():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with temporary.open("xb") as target:
                yield target
                _flush(target)
            if if_absent:
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise ObjectExistsError(str(path.name)) from None
            else:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _write_whole(path: Path, data: bytes, *, if_absent: bool = False) -> None:
    with _whole(path, if_absent=if_absent) as target:
        target.write(data)


def _write_and_hash(volume: BinaryIO, digest: "hashlib._Hash", block: bytes) -> None:
    with _full():
        volume.write(block)
        digest.update(block)


def _flush(file: BinaryIO) -> None:
    with _full():
        file.flush()
        os.fsync(file.fileno())


def _close(file: BinaryIO) -> None:
    with _full():
        file.close()


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _remove_upload(folder: Path) -> None:
    """Remove the folder of an upload, its record last: what a kill leaves of it is still listed, and so removed."""
    (folder / "volume").unlink(missing_ok=True)
    _remove_tree(folder / "parts")
    _remove_tree(folder)


def _walk(folder: Path, prefix: str) -> Iterator[ObjectStat]:
    """Yield the objects below a folder in the order of their keys, holding one folder's names at a time."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name + "/" if entry.is_dir() else entry.name: entry for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(found):
        if name.endswith("/"):
            yield from _walk(folder / name, prefix + name)
        elif not name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                yield _described(prefix + name, found[name].stat())


def _described(key: str, stat: os.stat_result) -> ObjectStat:
    return ObjectStat(
        key=key,
        size=stat.st_size,
        modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
        etag=f"{stat.st_mtime_ns:x}-{stat.st_size:x}",
    )
