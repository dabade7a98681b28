"""What only the object store that is a directory does; what every store does is tried in tests/integration/stores."""

import asyncio
import errno
import io

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.ports.object_store import ObjectMissingError, StorageFullError, StoreUnavailableError


@pytest.fixture
def store(tmp_path):
    return DirectoryObjectStore(tmp_path)


def run(work):
    return asyncio.run(work)


async def body(*chunks: bytes):
    for chunk in chunks:
        yield chunk


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("key", ["files/../../secret", "/etc/passwd", ".."])
def test_a_key_never_leaves_the_directory(store, key):
    with pytest.raises(ValueError, match="is not a key"):
        run(store.read(key))


@pytest.mark.parametrize("upload", ["k", "k?", "k?..", "k?../../x", "k?a/b"])
def test_an_id_of_an_upload_never_leaves_the_directory(store, upload):
    with pytest.raises(ObjectMissingError):
        run(store.abort_upload(upload))


def test_a_full_disk_is_told_and_nothing_half_written_stays(store, monkeypatch, tmp_path):
    monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.os.fsync", full)

    with pytest.raises(StorageFullError):
        run(store.write("k", b"x"))
    with pytest.raises(StorageFullError):
        run(store.write_file("k", io.BytesIO(b"x")))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_upload_for_which_there_is_no_room_is_told_before_it_begins(store, monkeypatch, tmp_path):
    monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.os.posix_fallocate", full)

    with pytest.raises(StorageFullError):
        run(store.create_upload("k", 1000))

    assert run(store.list_uploads()) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_part_for_which_there_is_no_room_is_not_held(store, monkeypatch):
    async def upload():
        upload = await store.create_upload("k", 4)
        monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.os.fsync", full)
        with pytest.raises(StorageFullError):
            await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        return await store.parts(upload)

    assert run(upload()) == {}


def test_an_upload_takes_no_more_room_than_it_has_reserved(store, tmp_path):
    async def upload():
        upload = await store.create_upload("k", 5 << 20)
        reserved = used(tmp_path)
        await store.put_part(upload, 0, 0, 5 << 20, body(bytes(5 << 20)))
        return reserved, used(tmp_path)

    reserved, at_the_end = run(upload())

    assert reserved >= 5 << 20
    assert at_the_end - reserved < 100_000


def used(folder) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def test_finishing_goes_on_after_a_stop_between_its_two_steps(store, monkeypatch):
    """The object is there, and the folder of its upload is there still."""

    async def upload():
        upload = await store.create_upload("k", 4)
        parts = {0: await store.put_part(upload, 0, 0, 4, body(b"abcd"))}
        with monkeypatch.context() as stopped:
            stopped.setattr("cryomamba_apiserver.adapters.directory_store.shutil.rmtree", full)
            with pytest.raises(OSError, match="No space"):
                await store.finish_upload(upload, parts)
        with pytest.raises(ObjectMissingError):
            await store.parts(upload)
        await store.finish_upload(upload, parts)
        return await store.read("k"), await store.list_uploads()

    assert run(upload()) == (b"abcd", [])


def test_a_directory_that_is_gone_fails_the_check(store, tmp_path):
    (tmp_path / "objects").rename(tmp_path / "elsewhere")

    with pytest.raises(StoreUnavailableError, match="objects is not there"):
        run(store.check())


def test_an_abort_that_is_killed_leaves_an_upload_that_is_listed_and_aborted_again(store, monkeypatch, tmp_path):
    """Wherever it is killed: what the sweep is shown it can free."""

    async def abort():
        upload = await store.create_upload("k", 4)
        await store.put_part(upload, 0, 0, 4, body(b"abcd"))
        with monkeypatch.context() as killed:
            killed.setattr("cryomamba_apiserver.adapters.directory_store.shutil.rmtree", full)
            with pytest.raises(OSError, match="No space"):
                await store.abort_upload(upload)
        (left,) = (tmp_path / "uploads").iterdir()
        assert not (left / "volume").exists()
        listed = [pending.id for pending in await store.list_uploads()]
        await store.abort_upload(upload)
        return listed == [upload], list((tmp_path / "uploads").iterdir())

    assert run(abort()) == (True, [])
