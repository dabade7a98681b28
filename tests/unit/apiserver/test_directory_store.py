"""The object store that is a directory."""

import asyncio
import errno
import io

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    PartConflictError,
    StorageFullError,
)


@pytest.fixture
def store(tmp_path):
    return DirectoryObjectStore(tmp_path)


def run(work):
    return asyncio.run(work)


async def body(*chunks: bytes):
    for chunk in chunks:
        yield chunk


async def collect(stream) -> bytes:
    return b"".join([block async for block in stream])


def test_what_is_written_is_read(store):
    run(store.write("files/a/file.json", b"content"))

    assert run(store.read("files/a/file.json")) == b"content"
    assert run(store.list_keys("files/")) == ["files/a/file.json"]
    with store.open("files/a/file.json") as file:
        assert file.read() == b"content"


def test_only_the_first_write_if_absent_counts(store):
    run(store.write("k", b"first", if_absent=True))

    with pytest.raises(ObjectExistsError):
        run(store.write("k", b"second", if_absent=True))

    assert run(store.read("k")) == b"first"


def test_what_is_missing_is_told(store):
    for call in (store.read("k"), store.parts("u"), store.finish_upload("u")):
        with pytest.raises(ObjectMissingError):
            run(call)


def test_deleting_twice_is_no_error(store):
    run(store.write("jobs/u/1/a", b"x"))
    run(store.delete_prefix("jobs/u/"))
    run(store.delete_prefix("jobs/u/"))
    run(store.delete("jobs/u/1/a"))

    assert run(store.list_keys("jobs/")) == []


def test_a_range_is_streamed(store):
    run(store.write("k", bytes(range(100))))

    assert run(collect(store.stream("k", 10, 20))) == bytes(range(10, 20))


def test_a_key_never_leaves_the_directory(store):
    with pytest.raises(ValueError, match="is not a key"):
        run(store.read("files/../../secret"))


def test_parts_put_out_of_order_become_the_object(store):
    async def upload() -> bytes:
        upload = await store.create_upload("files/f/volume", 10)
        await store.put_part(upload, 1, 6, 4, body(b"6789"))
        await store.put_part(upload, 0, 0, 6, body(b"01", b"2345"))
        await store.finish_upload(upload)
        await store.finish_upload(upload)
        return await store.read("files/f/volume")

    assert run(upload()) == b"0123456789"


def test_a_part_that_breaks_off_is_not_held_and_can_be_put_again(store):
    async def upload():
        upload = await store.create_upload("k", 4)
        with pytest.raises(ValueError, match="2 bytes came, 4 were announced"):
            await store.put_part(upload, 0, 0, 4, body(b"ab"))
        held = dict(await store.parts(upload))
        return held, await store.put_part(upload, 0, 0, 4, body(b"abcd"))

    held, part = run(upload())

    assert held == {}
    assert part.size == 4


def test_a_part_that_is_too_long_does_not_spill_into_the_next(store):
    async def upload() -> bytes:
        upload = await store.create_upload("k", 8)
        await store.put_part(upload, 1, 4, 4, body(b"4567"))
        with pytest.raises(ValueError, match="were announced"):
            await store.put_part(upload, 0, 0, 4, body(b"0123XX"))
        await store.put_part(upload, 0, 0, 4, body(b"0123"))
        await store.finish_upload(upload)
        return await store.read("k")

    assert run(upload()) == b"01234567"


def test_of_two_requests_for_one_part_with_other_bytes_exactly_one_is_held(store):
    async def upload():
        upload = await store.create_upload("k", 4)
        results = await asyncio.gather(
            store.put_part(upload, 0, 0, 4, body(b"aaaa")),
            store.put_part(upload, 0, 0, 4, body(b"bbbb")),
            return_exceptions=True,
        )
        await store.finish_upload(upload)
        return results, await store.read("k")

    results, content = run(upload())

    assert sorted(type(result).__name__ for result in results) == ["Part", "PartConflictError"]
    assert content in (b"aaaa", b"bbbb")
    assert isinstance(results[0], PartConflictError) == (content == b"bbbb")


def test_a_full_disk_is_told_and_nothing_half_written_stays(store, monkeypatch, tmp_path):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.os.fsync", full)

    with pytest.raises(StorageFullError):
        run(store.write("k", b"x"))
    with pytest.raises(StorageFullError):
        run(store.write_file("k", io.BytesIO(b"x")))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_part_for_which_there_is_no_room_is_not_held(store, monkeypatch):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def upload():
        upload = await store.create_upload("k", 4)
        monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.os.fsync", full)
        with pytest.raises(StorageFullError):
            await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        return await store.parts(upload)

    assert run(upload()) == {}
