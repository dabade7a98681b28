"""An object store that is a directory: keys are paths, every write is whole or not at all.

An upload's parts go straight to their place in one file, so that finishing it is a rename and not a copy.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    Part,
    PartConflictError,
    StorageFullError,
)

_BLOCK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DirectoryObjectStore:
    """Fulfils `ObjectStore` for one process on one machine."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._uploads = root / "uploads"
        self._parts_being_put: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self._objects.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        """Folder below which an object's key is its path."""
        return self._objects

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
        return await asyncio.to_thread(self._list, prefix)

    async def stream(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:  # noqa: D102 - the port says it
        file = await asyncio.to_thread(self.open, key)
        try:
            await asyncio.to_thread(file.seek, start)
            while start < stop:
                block = await asyncio.to_thread(file.read, min(_BLOCK, stop - start))
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
        return shutil.disk_usage(self._objects).free

    async def create_upload(self, key: str, size: int) -> str:  # noqa: D102 - the port says it
        upload = secrets.token_hex(16)
        await asyncio.to_thread(self._create_upload, upload, key, size)
        return upload

    async def put_part(  # noqa: D102 - the port says it
        self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]
    ) -> Part:
        # Two requests for one part must not write into the same place at once.
        lock = self._parts_being_put.setdefault((upload, number), asyncio.Lock())
        async with lock:
            held = (await self.parts(upload)).get(number)
            if held is not None:
                sent = await _digest(body, size)
                if sent != held:
                    raise PartConflictError(f"part {number} is held with other bytes")
                return held
            return await self._store_part(upload, number, offset, size, body)

    async def parts(self, upload: str) -> Mapping[int, Part]:  # noqa: D102 - the port says it
        return await asyncio.to_thread(self._held, upload)

    async def finish_upload(self, upload: str) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(self._finish, upload)

    async def abort_upload(self, upload: str) -> None:  # noqa: D102 - the port says it
        await asyncio.to_thread(_remove_tree, self._uploads / upload)

    def _path(self, key: str) -> Path:
        path = self._objects / key
        if ".." in path.parts:
            raise ValueError(f"{key!r} is not a key")
        return path

    def _read(self, key: str) -> bytes:
        with _missing(key):
            return self._path(key).read_bytes()

    def _write_file(self, key: str, source: BinaryIO) -> None:
        with _whole(self._path(key)) as target:
            shutil.copyfileobj(source, target, _BLOCK)

    def _list(self, prefix: str) -> list[str]:
        base = self._path(prefix)
        return sorted(
            str(path.relative_to(self._objects))
            for path in base.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )

    def _create_upload(self, upload: str, key: str, size: int) -> None:
        folder = self._uploads / upload
        (folder / "parts").mkdir(parents=True)
        with (folder / "volume").open("wb") as volume, _full():
            # Reserved now, so that a disk that is too small is told before anything is sent.
            os.posix_fallocate(volume.fileno(), 0, size)
        _write_whole(folder / "upload.json", json.dumps({"key": key}).encode())

    def _held(self, upload: str) -> dict[int, Part]:
        folder = self._uploads / upload / "parts"
        with _missing(upload):
            names = [path.name for path in folder.iterdir()]
        # A part's record is written after its bytes, and its name says all there is to say.
        fields = (name.split("-") for name in names if not name.startswith("."))
        return {int(number): Part(etag=etag, size=int(size)) for number, size, etag in fields}

    async def _store_part(self, upload: str, number: int, offset: int, size: int, body: AsyncIterator[bytes]) -> Part:
        folder = self._uploads / upload
        digest = hashlib.md5(usedforsecurity=False)
        received = 0
        with _missing(upload):
            volume = await asyncio.to_thread((folder / "volume").open, "r+b")
        try:
            await asyncio.to_thread(volume.seek, offset)
            async for block in _blocks(body):
                received += len(block)
                if received > size:
                    break
                await asyncio.to_thread(_write_and_hash, volume, digest, block)
            if received != size:
                raise ValueError(f"{received} bytes came, {size} were announced")
            await asyncio.to_thread(_flush, volume)
        finally:
            await asyncio.to_thread(_close, volume)
        part = Part(etag=digest.hexdigest(), size=size)
        with _full():
            (folder / "parts" / f"{number}-{size}-{part.etag}").touch()
        return part

    def _finish(self, upload: str) -> None:
        folder = self._uploads / upload
        with _missing(upload):
            key = json.loads((folder / "upload.json").read_bytes())["key"]
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # an earlier call got this far
            (folder / "volume").rename(target)


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


async def _blocks(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather the small chunks of a request into blocks worth a trip to a thread."""
    gathered = bytearray()
    async for chunk in body:
        gathered += chunk
        if len(gathered) >= _BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _digest(body: AsyncIterator[bytes], size: int) -> Part:
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    async for block in _blocks(body):
        received += len(block)
        await asyncio.to_thread(digest.update, block)
    if received != size:
        raise ValueError(f"{received} bytes came, {size} were announced")
    return Part(etag=digest.hexdigest(), size=received)
