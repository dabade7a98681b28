"""What every object store does, tried on each."""

import asyncio
import hashlib
import io
import os
import secrets
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    Part,
    PartConflictError,
)

MIB = 1 << 20
PART = 5 * MIB
"""The smallest that S3 takes for a part that is not the last."""


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def chunked(data: bytes, chunk: int = 1 << 16) -> AsyncIterator[bytes]:
    for start in range(0, len(data), chunk):
        yield data[start : start + chunk]


async def collect(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([block async for block in stream])


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def folder() -> str:
    """Return a prefix that no other test uses."""
    return f"tests/{secrets.token_hex(6)}/"


def test_a_store_that_works_passes_its_check(with_store):
    async def check(store):
        return await store.check()

    assert with_store(check) is None


def test_what_is_written_is_read(with_store):
    async def write_and_read(store):
        key = folder() + "file.json"
        await store.write(key, b"old")
        await store.write(key, b"content")
        return await store.read(key)

    assert with_store(write_and_read) == b"content"


def test_an_empty_object_is_an_object(with_store):
    async def write_and_read(store):
        key = folder() + "empty"
        await store.write(key, b"")
        with store.open(key) as file:
            opened = file.read()
        return await store.read(key), opened, await collect(store.stream(key, 0, 0)), (await store.stat(key)).size

    assert with_store(write_and_read) == (b"", b"", b"", 0)


def test_only_the_first_write_if_absent_counts(with_store):
    async def write_twice(store):
        key = folder() + "manifest.json"
        await store.write(key, b"first", if_absent=True)
        with pytest.raises(ObjectExistsError):
            await store.write(key, b"second", if_absent=True)
        return await store.read(key)

    assert with_store(write_twice) == b"first"


def test_of_many_writes_if_absent_at_once_exactly_one_counts(with_store):
    async def race(store):
        key = folder() + "manifest.json"
        written = await asyncio.gather(
            *(store.write(key, b"%d" % number, if_absent=True) for number in range(8)), return_exceptions=True
        )
        return written, await store.read(key)

    written, content = with_store(race)

    winners = [number for number, result in enumerate(written) if result is None]
    assert [b"%d" % number for number in winners] == [content]
    assert {type(result) for result in written if result is not None} == {ObjectExistsError}


def test_a_file_of_several_parts_is_written_whole(with_store):
    data = os.urandom(33 * MIB)

    async def write_and_read(store):
        key = folder() + "model.zip"
        await store.write_file(key, io.BytesIO(data))
        return await collect(store.stream(key, 0, len(data)))

    assert with_store(write_and_read) == data


def test_what_is_missing_is_told(with_store):
    async def ask(store):
        missing = folder() + "k"
        never = f"{missing}?{'0' * 32}"
        for call in (
            store.read(missing),
            store.parts(never),
            store.finish_upload(never, {0: Part("0" * 32, 2)}),
            store.put_part(never, 0, 0, 2, body(b"ab")),
            collect(store.stream(missing, 0, 1)),
            collect(store.stream(missing, 0, 0)),
        ):
            with pytest.raises(ObjectMissingError):
                await call
        with pytest.raises(ObjectMissingError):
            store.open(missing)
        return await store.stat(missing), await store.list_keys(missing + "/")

    assert with_store(ask) == (None, [])


def test_deleting_twice_is_no_error(with_store):
    async def delete(store):
        prefix = folder()
        await store.write(prefix + "a", b"x")
        await store.write(prefix + "b/c", b"x")
        await store.write(prefix.rstrip("/") + "-not-below", b"x")
        await store.delete(prefix + "a")
        await store.delete(prefix + "a")
        left = await store.list_keys(prefix)
        await store.delete_prefix(prefix)
        await store.delete_prefix(prefix)
        beside = await store.stat(prefix.rstrip("/") + "-not-below")
        return prefix, left, await store.list_keys(prefix), beside.size

    prefix, left, at_the_end, beside = with_store(delete)

    assert left == [prefix + "b/c"]
    assert (at_the_end, beside) == ([], 1)


def test_a_prefix_of_more_objects_than_fit_a_page_is_listed_and_deleted(with_store):
    async def fill(store):
        prefix = folder()
        names = [f"{prefix}{number:04}" for number in range(1005)]
        for start in range(0, len(names), 50):
            await asyncio.gather(*(store.write(name, b"x") for name in names[start : start + 50]))
        listed = await store.list_keys(prefix)
        await store.delete_prefix(prefix)
        return names, listed, await store.list_keys(prefix)

    names, listed, left = with_store(fill)

    assert listed == names
    assert left == []


def test_objects_are_listed_by_key_with_size_and_time(with_store):
    async def listing(store):
        prefix = folder()
        for name in ("b/x", "b-x", "a", "b.x", "b/a/deep"):
            await store.write(prefix + name, name.encode())
        return [(found.key.removeprefix(prefix), found.size, found) async for found in store.list_objects(prefix)]

    found = with_store(listing)

    assert [(name, size) for name, size, _ in found] == [("a", 1), ("b-x", 3), ("b.x", 3), ("b/a/deep", 8), ("b/x", 3)]
    assert all(abs(datetime.now(UTC) - stat.modified_at) < timedelta(minutes=5) for _, _, stat in found)


def test_an_object_that_changes_gets_another_etag(with_store):
    async def change(store):
        key = folder() + "k"
        await store.write(key, b"one")
        before, again = await store.stat(key), await store.stat(key)
        await store.write(key, b"two!")
        return before, again, await store.stat(key)

    before, again, after = with_store(change)

    assert before == again
    assert before.etag
    assert before.etag != after.etag
    assert (before.size, after.size) == (3, 4)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (10, 20), (99, 100), (0, 100), (50, 50)])
def test_a_range_is_streamed(with_store, start, stop):
    data = bytes(range(100))

    async def read_range(store):
        key = folder() + "k"
        await store.write(key, data)
        return await collect(store.stream(key, start, stop))

    assert with_store(read_range) == data[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(90, 101), (100, 101), (200, 300)])
def test_a_range_beyond_the_end_is_told(with_store, start, stop):
    async def read_range(store):
        key = folder() + "k"
        await store.write(key, bytes(100))
        with pytest.raises(ObjectMissingError, match="shorter"):
            await collect(store.stream(key, start, stop))

    with_store(read_range)


def test_a_download_that_is_given_up_leaves_the_store_usable(with_store):
    async def give_up(store):
        key = folder() + "k"
        await store.write_file(key, io.BytesIO(bytes(20 * MIB)))
        for _ in range(20):
            async with aclosing(store.stream(key, 0, 20 * MIB)) as stream:
                await anext(stream)
        return len(await collect(store.stream(key, 0, 20 * MIB)))

    assert with_store(give_up) == 20 * MIB


def test_an_object_is_opened_like_a_file(with_store):
    data = os.urandom(3 * MIB + 17)

    async def read_about(store):
        key = folder() + "volume"
        await store.write(key, data)

        def in_a_thread():
            with store.open(key) as file:
                head = file.read(1024)
                file.seek(2 * MIB)
                middle = file.read(100)
                file.seek(-5, io.SEEK_END)
                tail = file.read()
                beyond = file.read(10)
                file.seek(0)
                return head, middle, tail, beyond, file.read(), file.seekable(), file.writable()

        return await asyncio.to_thread(in_a_thread)

    head, middle, tail, beyond, whole, seekable, writable = with_store(read_about)

    assert (head, middle, tail, beyond) == (data[:1024], data[2 * MIB : 2 * MIB + 100], data[-5:], b"")
    assert whole == data
    assert (seekable, writable) == (True, False)


def test_parts_put_out_of_order_become_the_object(with_store):
    data = os.urandom(2 * PART + 1000)
    pieces = [data[:PART], data[PART : 2 * PART], data[2 * PART :]]

    async def upload(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, len(data))
        for number in (2, 0, 1):
            await store.put_part(upload, number, number * PART, len(pieces[number]), chunked(pieces[number]))
        held = await store.parts(upload)
        before = await store.stat(key)
        await store.finish_upload(upload, held)
        return held, before, await collect(store.stream(key, 0, len(data)))

    held, before, content = with_store(upload)

    assert held == {number: Part(md5(piece), len(piece)) for number, piece in enumerate(pieces)}
    assert before is None
    assert content == data


def test_finishing_twice_changes_nothing(with_store):
    async def finish_twice(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, 4)
        part = await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        await store.finish_upload(upload, {0: part})
        await store.finish_upload(upload, {0: part})
        with pytest.raises(ObjectMissingError):
            await store.parts(upload)
        with pytest.raises(ObjectMissingError):
            await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        await store.abort_upload(upload)
        return await store.read(key)

    assert with_store(finish_twice) == b"abcd"


def test_an_upload_whose_object_was_removed_cannot_be_finished_again(with_store):
    async def finish_after_delete(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, 4)
        part = await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        await store.finish_upload(upload, {0: part})
        await store.delete(key)
        with pytest.raises(ObjectMissingError):
            await store.finish_upload(upload, {0: part})

    with_store(finish_after_delete)


def test_parts_other_than_those_held_are_not_put_together(with_store):
    async def finish(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, 4)
        part = await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        with pytest.raises(PartConflictError):
            await store.finish_upload(upload, {0: Part(md5(b"other"), 4)})
        with pytest.raises(PartConflictError):
            await store.finish_upload(upload, {0: part, 1: part})
        held = await store.parts(upload)
        await store.finish_upload(upload, {0: part})
        return held, await store.read(key)

    held, content = with_store(finish)

    assert held == {0: Part(md5(b"abcd"), 4)}
    assert content == b"abcd"


def test_the_same_bytes_again_give_the_same_part(with_store):
    data = os.urandom(PART)

    async def put_twice(store):
        upload = await store.create_upload(folder() + "volume", PART)
        first = await store.put_part(upload, 0, 0, PART, chunked(data))
        second = await store.put_part(upload, 0, 0, PART, chunked(data, 12345))
        return first, second, await store.parts(upload)

    first, second, held = with_store(put_twice)

    assert first == second == Part(md5(data), PART)
    assert held == {0: first}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 0, 1)])
def test_other_bytes_are_refused_and_the_part_stays_whatever_was_put_around_it(with_store, order):
    pieces = [os.urandom(4) for _ in range(4)]

    async def put_others(store):
        upload = await store.create_upload(folder() + "volume", 16)
        for number in order:
            await store.put_part(upload, number, 4 * number, 4, body(pieces[number]))
            for done in order[: order.index(number) + 1]:
                with pytest.raises(PartConflictError):
                    await store.put_part(upload, done, 4 * done, 4, body(b"else"))
        return await store.parts(upload)

    assert with_store(put_others) == {number: Part(md5(piece), 4) for number, piece in enumerate(pieces)}


def test_of_two_requests_for_one_part_with_other_bytes_exactly_one_is_held(with_store):
    async def race(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, 4)
        results = await asyncio.gather(
            store.put_part(upload, 0, 0, 4, body(b"aaaa")),
            store.put_part(upload, 0, 0, 4, body(b"bbbb")),
            return_exceptions=True,
        )
        await store.finish_upload(upload, await store.parts(upload))
        return results, await store.read(key)

    results, content = with_store(race)

    assert sorted(type(result).__name__ for result in results) == ["Part", "PartConflictError"]
    assert isinstance(results[0], PartConflictError) == (content == b"bbbb")


def test_two_requests_for_one_part_with_the_same_bytes_both_succeed(with_store):
    async def race(store):
        upload = await store.create_upload(folder() + "volume", 4)
        return await asyncio.gather(*(store.put_part(upload, 0, 0, 4, body(b"aaaa")) for _ in range(4)))

    assert set(with_store(race)) == {Part(md5(b"aaaa"), 4)}


@pytest.mark.parametrize(
    ("chunks", "came"), [((b"ab",), 2), ((b"abcd", b"ef"), 6), ((b"abcdef",), 6), ((), 0), ((b"", b"abc", b""), 3)]
)
def test_a_part_of_another_length_is_not_held_and_can_be_put_again(with_store, chunks, came):
    async def upload(store):
        upload = await store.create_upload(folder() + "volume", 4)
        with pytest.raises(ValueError, match=f"{came} bytes came, 4 were announced"):
            await store.put_part(upload, 0, 0, 4, body(*chunks))
        held = dict(await store.parts(upload))
        return held, await store.put_part(upload, 0, 0, 4, body(b"abcd"))

    assert with_store(upload) == ({}, Part(md5(b"abcd"), 4))


def test_a_part_that_is_too_long_does_not_spill_into_the_next(with_store):
    first, second = os.urandom(PART), os.urandom(100)

    async def upload(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, PART + 100)
        await store.put_part(upload, 1, PART, 100, body(second))
        with pytest.raises(ValueError, match="were announced"):
            await store.put_part(upload, 0, 0, PART, body(first, b"XX"))
        await store.put_part(upload, 0, 0, PART, body(first))
        await store.finish_upload(upload, await store.parts(upload))
        return await collect(store.stream(key, 0, PART + 100))

    assert with_store(upload) == first + second


def test_a_body_that_fails_leaves_nothing_and_its_error_is_told(with_store):
    class ClientLeftError(Exception):
        pass

    async def breaking_off():
        yield bytes(MIB)
        yield bytes(MIB)
        raise ClientLeftError

    async def upload(store):
        upload = await store.create_upload(folder() + "volume", PART)
        with pytest.raises(ClientLeftError):
            await store.put_part(upload, 0, 0, PART, breaking_off())
        return await store.parts(upload)

    assert with_store(upload) == {}


def test_a_request_that_is_cancelled_leaves_nothing(with_store):
    async def upload(store):
        upload = await store.create_upload(folder() + "volume", PART)
        under_way = asyncio.Event()

        async def stalling():
            yield bytes(MIB)
            yield bytes(MIB)
            under_way.set()
            await asyncio.Event().wait()

        putting = asyncio.create_task(store.put_part(upload, 0, 0, PART, stalling()))
        await under_way.wait()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        held = dict(await store.parts(upload))
        return held, await store.put_part(upload, 0, 0, 4, body(b"abcd"))

    assert with_store(upload) == ({}, Part(md5(b"abcd"), 4))


def test_an_aborted_upload_is_gone_with_its_parts(with_store):
    async def abort(store):
        key = folder() + "volume"
        upload = await store.create_upload(key, 4)
        await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        await store.abort_upload(upload)
        await store.abort_upload(upload)
        for call in (store.parts(upload), store.put_part(upload, 0, 0, 4, body(b"abcd"))):
            with pytest.raises(ObjectMissingError):
                await call
        return await store.stat(key), [found.key for found in await store.list_uploads() if found.key == key]

    assert with_store(abort) == (None, [])


def test_a_part_that_comes_to_its_end_after_its_upload_was_aborted_is_told(with_store):
    async def abort(store):
        upload = await store.create_upload(folder() + "volume", 4)

        async def slow():
            yield b"ab"
            await store.abort_upload(upload)
            yield b"cd"

        with pytest.raises(ObjectMissingError):
            await store.put_part(upload, 0, 0, 4, slow())

    with_store(abort)


def test_uploads_under_way_are_listed_until_they_end(with_store):
    async def begin(store):
        prefix = folder()
        ids = [await store.create_upload(f"{prefix}{name}", 4) for name in ("a", "b", "c")]
        part = await store.put_part(ids[0], 0, 0, 4, body(b"abcd"))
        listed = [found for found in await store.list_uploads() if found.key.startswith(prefix)]
        await store.finish_upload(ids[0], {0: part})
        await store.abort_upload(ids[1])
        left = [found.id for found in await store.list_uploads() if found.key.startswith(prefix)]
        return prefix, ids, listed, left

    prefix, ids, listed, left = with_store(begin)

    assert {(found.id, found.key) for found in listed} == {
        (id_, prefix + name) for id_, name in zip(ids, "abc", strict=True)
    }
    assert all(abs(datetime.now(UTC) - found.created_at) < timedelta(minutes=5) for found in listed)
    assert left == [ids[2]]


def test_another_process_goes_on_where_the_first_stopped(with_store):
    """What is known about an upload is in the store: a second store object stands for the next process."""
    pieces = [os.urandom(PART), os.urandom(PART), os.urandom(9)]

    async def begin(store):
        upload = await store.create_upload(folder() + "volume", 2 * PART + 9)
        await store.put_part(upload, 1, PART, PART, body(pieces[1]))
        return upload

    async def go_on(store):
        with pytest.raises(PartConflictError):
            await store.put_part(upload, 1, PART, PART, body(os.urandom(PART)))
        await store.put_part(upload, 1, PART, PART, body(pieces[1]))
        await store.put_part(upload, 2, 2 * PART, 9, body(pieces[2]))
        await store.put_part(upload, 0, 0, PART, body(pieces[0]))
        await store.finish_upload(upload, await store.parts(upload))
        return await store.read(upload.partition("?")[0])

    upload = with_store(begin)

    assert with_store(go_on) == b"".join(pieces)


def test_a_big_part_goes_through_without_being_held(with_store):
    size = 64 * MIB
    chunk = os.urandom(1 << 16)

    async def endless():
        for _ in range(size // len(chunk)):
            yield chunk

    async def put(store):
        upload = await store.create_upload(folder() + "volume", 5 * size)
        await store.put_part(upload, 0, 0, size, endless())  # connections, threads and imports are there
        tracemalloc.start()
        try:
            parts = await asyncio.gather(*(store.put_part(upload, n, n * size, size, endless()) for n in range(1, 5)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await store.abort_upload(upload)
        return parts, peak

    parts, peak = with_store(put)

    assert {part.size for part in parts} == {size}
    assert peak < 16 * MIB  # of 256


def test_a_big_object_is_streamed_and_opened_without_being_held(with_store):
    data = os.urandom(48 * MIB)

    async def download(store):
        key = folder() + "volume"
        await store.write_file(key, io.BytesIO(data))
        streamed, read = hashlib.sha256(), hashlib.sha256()

        def read_all():
            with store.open(key) as file:
                while block := file.read(1 << 18):
                    read.update(block)

        tracemalloc.start()
        try:
            async for block in store.stream(key, 0, len(data)):
                streamed.update(block)
            await asyncio.to_thread(read_all)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return streamed.digest(), read.digest(), peak

    streamed, read, peak = with_store(download)

    assert streamed == read == hashlib.sha256(data).digest()
    assert peak < 8 * MIB
