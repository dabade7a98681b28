"""A disk that is full: uploads leave a reserve, and what frees room works without any."""

import asyncio
import errno
from datetime import timedelta
from typing import NamedTuple

import pytest
import typer

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.job_references import LocalJobReferences
from cryomamba_apiserver.commands.serve import _check_room
from cryomamba_apiserver.ports.object_store import StorageFullError, StoreUnavailableError
from cryomamba_apiserver.sweep.decide import Rules
from cryomamba_apiserver.sweep.run import Sweep
from cryomamba_apiserver.tokens.secret import load_or_create_secret
from cryomamba_crds import keys

GIB = 1024**3
RULES = Rules(margin=timedelta(minutes=5), grace=timedelta(days=1))


class Disk(NamedTuple):
    """As `shutil.disk_usage` returns it."""

    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch):
    """Sets what the disk is said to have free; of several numbers the last is said from then on."""

    def set_free(*free: int, total: int = 100 * GIB) -> None:
        left = list(free)

        def usage(_: object) -> Disk:
            return Disk(total, 0, left.pop(0) if len(left) > 1 else left[0])

        monkeypatch.setattr("cryomamba_apiserver.adapters.directory_store.shutil.disk_usage", usage)

    return set_free


@pytest.fixture
def full_until_freed(monkeypatch):
    """Lets nothing be written for as long as there is an upload that holds bytes."""
    write = DirectoryObjectStore.write

    async def refusing(store: DirectoryObjectStore, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if any(store._uploads.iterdir()):
            raise StorageFullError("full")
        await write(store, key, data, if_absent=if_absent)

    def begin() -> None:
        monkeypatch.setattr(DirectoryObjectStore, "write", refusing)

    return begin


def begin(client) -> dict[str, str]:
    return client.post(
        "/v1/uploads/init", json={"filename": "v.mrc", "total_size": 1000, "chunk_size": 5 * 1024**2}
    ).json()


def folders(context) -> list[str]:
    return [path.name for path in context.objects._uploads.iterdir()]


def test_an_upload_leaves_the_reserve_free(tmp_path, disk):
    store = DirectoryObjectStore(tmp_path, reserve=1_000_000)
    disk(5_000_000)

    with pytest.raises(StorageFullError):
        asyncio.run(store.create_upload("k", 4_000_001))
    asyncio.run(store.create_upload("k", 3_999_999))

    assert asyncio.run(store.free_bytes()) == 4_000_000
    assert len(asyncio.run(store.list_uploads())) == 1


@pytest.mark.parametrize(("total", "reserve"), [(4 * GIB, GIB // 5), (100 * GIB, GIB)])
def test_the_reserve_is_a_share_of_the_disk_unless_a_setting_says_otherwise(tmp_path, disk, total, reserve):
    disk(2 * GIB, total=total)

    assert asyncio.run(DirectoryObjectStore(tmp_path).free_bytes()) == pytest.approx(2 * GIB - reserve, abs=1)


def test_of_uploads_that_begin_at_once_none_takes_the_reserve(tmp_path, disk):
    store = DirectoryObjectStore(tmp_path, reserve=1_000_000)
    disk(5_000_000, 900_000)  # another has taken its room in between

    with pytest.raises(StorageFullError):
        asyncio.run(store.create_upload("k", 4096))

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_init_is_refused_where_only_the_reserve_is_left(ada, disk):
    disk(GIB + 999)

    answer = ada.post("/v1/uploads/init", json={"filename": "v.mrc", "total_size": 1000, "chunk_size": 5 * 1024**2})

    assert answer.status_code == 507
    assert answer.json()["error"]["details"]["free_bytes"] == 999


def test_the_server_says_that_its_store_is_full_and_is_ready_for_everything_else(server, disk):
    disk(1000)

    answer = server.get("/readyz")

    assert answer.status_code == 200
    assert "storage" in answer.json()["degraded"]


def test_an_upload_is_given_up_on_a_full_disk(ada, context, full_until_freed):
    begun = begin(ada)
    full_until_freed()

    answer = ada.delete(f"/v1/uploads/{begun['upload_id']}")

    assert answer.status_code == 204
    assert folders(context) == []
    assert ada.get(f"/v1/uploads/{begun['upload_id']}").status_code == 410


def test_a_sweep_frees_a_full_disk(ada, context, clock, tmp_path, full_until_freed):
    begun = [begin(ada) for _ in range(20)]
    clock.forward(timedelta(hours=3))
    full_until_freed()
    jobs = LocalJobReferences(tmp_path / "data" / "jobs.sqlite")

    for _ in range(2):  # where several are freed at once, the first may find no room yet
        asyncio.run(Sweep(context.objects, jobs, RULES, clock, tmp_path / "data").run())

    assert folders(context) == []
    statuses = [ada.get(f"/v1/uploads/{upload['upload_id']}").json()["status"] for upload in begun]
    assert statuses == ["expired"] * 20


def test_what_a_sweep_cannot_remove_is_told_and_keeps_nothing_else(ada, context, clock, tmp_path, monkeypatch, caplog):
    stuck, free = keys.file_volume("file_aaaaaaaaaaaa"), keys.file_volume("file_bbbbbbbbbbbb")
    for key in (stuck, free):
        asyncio.run(context.objects.write(key, b"no record"))
    begin(ada)
    clock.forward(timedelta(days=2))
    delete = DirectoryObjectStore.delete

    async def failing(store: DirectoryObjectStore, key: str) -> None:
        if key == stuck:
            raise PermissionError("not yours")
        await delete(store, key)

    monkeypatch.setattr(DirectoryObjectStore, "delete", failing)
    jobs = LocalJobReferences(tmp_path / "data" / "jobs.sqlite")
    swept = asyncio.run(Sweep(context.objects, jobs, RULES, clock, tmp_path / "data").run())

    assert (swept.failed, swept.uploads) == (1, 1)
    assert stuck in caplog.text
    assert asyncio.run(context.objects.list_keys("files/")) == [stuck]


def test_a_store_that_is_away_ends_a_sweep_at_once(ada, context, clock, tmp_path, monkeypatch):
    begin(ada)
    clock.forward(timedelta(days=2))

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(DirectoryObjectStore, "abort_upload", away)
    jobs = LocalJobReferences(tmp_path / "data" / "jobs.sqlite")

    with pytest.raises(StoreUnavailableError):
        asyncio.run(Sweep(context.objects, jobs, RULES, clock, tmp_path / "data").run())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_secret_of_tokens_is_read_on_a_full_disk(tmp_path, monkeypatch):
    made = load_or_create_secret(tmp_path)
    monkeypatch.setattr("cryomamba_apiserver.tokens.secret.os.open", full)

    assert load_or_create_secret(tmp_path) == made


def test_a_server_that_starts_on_a_full_disk_says_what_to_do(tmp_path, monkeypatch, capsys):
    _check_room(tmp_path)
    monkeypatch.setattr("cryomamba_apiserver.commands.serve.os.posix_fallocate", full)

    with pytest.raises(typer.Exit) as ended:
        _check_room(tmp_path)

    assert ended.value.exit_code == 1
    assert "full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
