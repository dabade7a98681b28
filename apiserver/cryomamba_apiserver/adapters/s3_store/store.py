"""An object store in a bucket: control calls by minio-py in threads, the bytes of parts and downloads by aiohttp.

A part goes from the request into a presigned UploadPart as it comes; a chunk or two of it are in memory. Its etag is
S3's own: the MD5 of the bytes, which is what a part that is sent again is compared with. Where the store encrypts with
keys of a key server (SSE-KMS, SSE-C) its etags say nothing about the bytes. A part that is held there is never sent to
the store again, and the same bytes are refused like others are: PartConflictError, with the held part kept. A client
whose answer got lost finds the part, and the etag to complete with, in the list of parts.

What MinIO does differently from S3 shows in `S3Client.parts_between` and in `list_uploads`.
"""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import BinaryIO, ParamSpec, TypeVar, cast
from urllib.parse import quote
from weakref import WeakValueDictionary

import minio.datatypes
from minio.deleteobjects import DeleteObject

from cryomamba_apiserver.adapters.bodies import part_of
from cryomamba_apiserver.adapters.s3_store.client import S3Client, S3Connection
from cryomamba_apiserver.adapters.s3_store.known_parts import KnownParts
from cryomamba_apiserver.adapters.s3_store.reading import BUFFER, ObjectFile
from cryomamba_apiserver.adapters.s3_store.refusals import Place
from cryomamba_apiserver.adapters.s3_store.transfers import Transfers
from cryomamba_apiserver.ports.object_store import (
    ObjectMissingError,
    ObjectStat,
    Part,
    PartConflictError,
    PendingUpload,
    StoreUnavailableError,
)

_THREADS = 16
_PAGE = 1000
_FILE_PART = 16 << 20  # bytes held of a file that is being written
_LAST_PART = 10_000
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=7)  # that S3 lets a signature be valid

_P = ParamSpec("_P")
_T = TypeVar("_T")


class S3ObjectStore:
    """Fulfils `ObjectStore`; any number of processes may use one bucket."""

    def __init__(self, connection: S3Connection) -> None:
        self._bucket = connection.bucket
        self._place = Place(connection.endpoint, connection.bucket)
        self._client = S3Client(connection)
        self._once = S3Client(connection, retries=False)
        self._public = connection.public_endpoint and S3Client(connection, endpoint=connection.public_endpoint)
        self._transfers = Transfers(self._client, self._place, connection.tls())
        # Threads of its own: control calls must not wait for what else the process does in threads.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="s3")
        self._known = KnownParts()
        self._parts_being_put: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()

    async def check(self) -> None:  # noqa: D102 - the port says it
        # A list and not a HEAD: what a HEAD refuses comes without a reason.
        await self._call(self._bucket, self._client.first, "")

    async def close(self) -> None:  # noqa: D102 - the port says it
        await self._transfers.close()
        self._threads.shutdown(wait=False)
        self._client.close()
        self._once.close()

    async def read(self, key: str) -> bytes:  # noqa: D102 - the port says it
        return await self._call(key, self._client.read_whole, key)

    async def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:  # noqa: D102 - the port says it
        if if_absent:
            await self._call(key, self._once.put_if_absent, key, data)
        else:
            await self._call(key, self._client.put_object, self._bucket, key, io.BytesIO(data), len(data))

    async def write_file(self, key: str, source: BinaryIO) -> None:  # noqa: D102 - the port says it
        await self._call(key, self._write_file, key, source)

    async def delete(self, key: str) -> None:  # noqa: D102 - the port says it
        await self._call(key, self._client.remove_object, self._bucket, key)

    async def delete_prefix(self, prefix: str) -> None:  # noqa: D102 - the port says it
        await self._call(prefix, self._delete_prefix, prefix)

    async def list_keys(self, prefix: str) -> list[str]:  # noqa: D102 - the port says it
        return [stat.key async for stat in self.list_objects(prefix)]

    async def list_objects(self, prefix: str) -> AsyncIterator[ObjectStat]:  # noqa: D102 - the port says it
        listed = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
        while page := await self._call(prefix, list, itertools.islice(listed, _PAGE)):
            for found in page:
                yield _stat(found)

    async def stat(self, key: str) -> ObjectStat | None:  # noqa: D102 - the port says it
        return await self._call(key, self._stat, key)

    async def stream(self, key: str, start: int, stop: int) -> AsyncIterator[bytes]:  # noqa: D102 - the port says it
        if start >= stop:
            if await self.stat(key) is None:
                raise ObjectMissingError(key)
            return
        async with aclosing(self._transfers.download(key, start, stop)) as download:
            async for chunk in download:
                yield chunk

    def open(self, key: str) -> BinaryIO:  # noqa: D102 - the port says it
        with self._place.errors_about(key):
            stat = self._stat(key)
        if stat is None:
            raise ObjectMissingError(key)
        return io.BufferedReader(ObjectFile(self._client, self._place, stat), BUFFER)

    async def free_bytes(self) -> int | None:  # noqa: D102 - the port says it
        return None

    def presigned_get(self, key: str, ttl: timedelta, filename: str) -> str | None:  # noqa: D102 - the port says it
        if not self._public:
            return None
        return self._public.get_presigned_url(
            "GET",
            self._bucket,
            key,
            expires=min(max(ttl, _SHORTEST), _LONGEST),
            response_headers={
                "response-content-type": "application/octet-stream",
                "response-content-disposition": attachment(filename),
            },
        )

    async def create_upload(self, key: str, size: int) -> str:  # noqa: ARG002, D102 - S3 reserves nothing; the port
        return f"{key}?{await self._call(key, self._client.create_upload, key)}"

    async def list_uploads(self) -> list[PendingUpload]:
        """As the port says; MinIO forgets to list, but not to drop after a day, what was begun before it restarted."""
        return await self._call(self._bucket, self._list_uploads)

    async def put_part(  # noqa: D102 - the port says it
        self,
        upload: str,
        number: int,
        offset: int,  # noqa: ARG002 - S3 wants the number only
        size: int,
        body: AsyncIterator[bytes],
    ) -> Part:
        key, upload_id = _key_and_id(upload)
        # S3 would take the second of two requests for one part as its new content. Where the two come to two servers
        # it still does: `finish_upload` then notices that the etag is not the one that its caller was told.
        lock = self._parts_being_put.setdefault((upload, number), asyncio.Lock())
        async with lock:
            held = await self._held(upload, number)
            if held is not None:
                if await part_of(body, size) != held:
                    raise PartConflictError(f"part {number} is held with other bytes")
                return held
            part = await self._transfers.upload_part(key, upload_id, number, size, body)
            self._known.add(upload, number)
            return part

    async def parts(self, upload: str) -> Mapping[int, Part]:  # noqa: D102 - the port says it
        return await self._parts_between(upload, None, _LAST_PART - 1)

    async def finish_upload(self, upload: str, parts: Mapping[int, Part]) -> None:  # noqa: D102 - the port says it
        key, upload_id = _key_and_id(upload)
        wanted = [minio.datatypes.Part(number + 1, part.etag) for number, part in sorted(parts.items())]
        try:
            etag = await self._call(key, self._client.finish_upload, key, upload_id, wanted)
        except ObjectMissingError:
            if await self.stat(key) is None:
                raise
        else:
            if etag is None:
                raise StoreUnavailableError(f"the store at {self._place.endpoint} could not put the parts together")
        self._known.forget(upload)

    async def abort_upload(self, upload: str) -> None:  # noqa: D102 - the port says it
        key, upload_id = _key_and_id(upload)
        with suppress(ObjectMissingError):
            await self._call(key, self._client.abort_upload, key, upload_id)
        self._known.forget(upload)

    def _write_file(self, key: str, source: BinaryIO) -> None:
        start = source.tell()
        length = source.seek(0, io.SEEK_END) - start
        source.seek(start)
        # One part at a time: those in flight are in memory.
        self._client.put_object(self._bucket, key, source, length, part_size=_FILE_PART, num_parallel_uploads=1)

    def _delete_prefix(self, prefix: str) -> None:
        listed = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
        names = (DeleteObject(cast("str", found.object_name)) for found in listed)
        for error in self._client.remove_objects(self._bucket, names):
            raise self._place.refusal(error.code, 0, prefix)

    def _stat(self, key: str) -> ObjectStat | None:
        try:
            return _stat(self._client.stat_object(self._bucket, key))
        except minio.error.S3Error as error:
            if error.code != "NoSuchKey":
                raise
            # So is an answer to a HEAD where the bucket is missing.
            self._client.first(key)
            return None

    def _list_uploads(self) -> list[PendingUpload]:
        found: list[PendingUpload] = []
        after: str | None = None
        while True:
            page = self._client.uploads_after(after)
            found += [
                PendingUpload(f"{upload.object_name}?{upload.upload_id}", upload.object_name, upload.initiated_time)
                for upload in page.uploads
                if upload.initiated_time is not None
            ]
            after = page.next_key_marker
            if not page.is_truncated or not after:
                return sorted(found, key=lambda upload: (upload.created_at, upload.id))

    async def _held(self, upload: str, number: int) -> Part | None:
        before = self._known.last_before(upload, number)
        return (await self._parts_between(upload, before, number)).get(number)

    async def _parts_between(self, upload: str, after: int | None, last: int) -> dict[int, Part]:
        """Return the parts held in (after, last], 0-based; `after` is a part that is held, or None."""
        key, upload_id = _key_and_id(upload)
        first = 0 if after is None else after + 1
        listed = await self._call(upload, self._client.parts_between, key, upload_id, first, last + 1)
        for part in listed:
            self._known.add(upload, part.part_number - 1)
        return {part.part_number - 1: Part(etag=part.etag, size=part.size or 0) for part in listed}

    async def _call(self, name: str, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do a control call about `name` in a thread; raise the port's errors."""

        def call() -> _T:
            with self._place.errors_about(name):
                return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def attachment(filename: str) -> str:
    """Return the Content-Disposition that saves a download under a name (RFC 6266)."""
    plain = "".join(
        letter if letter.isascii() and letter.isprintable() and letter not in '"\\%' else "_" for letter in filename
    )
    return f'attachment; filename="{plain}"' + (
        "" if plain == filename else f"; filename*=UTF-8''{quote(filename, '')}"
    )


def _key_and_id(upload: str) -> tuple[str, str]:
    key, mark, upload_id = upload.partition("?")
    if not mark:
        raise ObjectMissingError(upload)
    return key, upload_id


def _stat(found: minio.datatypes.Object) -> ObjectStat:
    if found.object_name is None or found.size is None or found.last_modified is None:
        raise StoreUnavailableError("the store lists an object without its name, size or time")
    return ObjectStat(found.object_name, found.size, found.last_modified, found.etag or None)
