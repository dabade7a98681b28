"""Completing an upload whose server dies at every single step, and completing from several servers at once."""

import asyncio
import contextlib
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryomamba_apiserver.auth import Principal, Scope
from cryomamba_apiserver.errors import ApiError, GoneError
from cryomamba_apiserver.uploads.schemas import CompleteUpload, InitUpload
from cryomamba_apiserver.uploads.service import UploadLimits, UploadService
from cryomamba_apiserver.uploads.sessions import UploadRecords
from cryomamba_crds import keys
from cryomamba_crds.volumes import VolumeError
from support.dying_store import DyingStore, ServerDied

ADA = Principal("ada", frozenset({Scope.READ, Scope.WRITE}))
NOW = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)
LIMITS = UploadLimits(max_upload_size=10**9, ttl=timedelta(hours=2), max_open=10_000, quota=None)
STEPS = 20
"""More than an upload has."""


# A directory has one server.
SEVERAL_SERVERS = pytest.mark.parametrize("with_store", ["s3"], indirect=True)


def service(store) -> UploadService:
    return UploadService(store, lambda: NOW, LIMITS)


@pytest.fixture
def emd_3197() -> bytes:
    return (Path(__file__).parents[2] / "data" / "EMD-3197.map").read_bytes()


async def body(data: bytes):
    yield data


async def begun(uploads: UploadService, data: bytes) -> tuple[str, CompleteUpload]:
    session = await uploads.begin(
        "ada", InitUpload(filename="v.mrc", total_size=len(data), chunk_size=len(data), metadata={})
    )
    part = await uploads.put_part(ADA, session.upload_id, 0, len(data), body(data))
    return session.upload_id, CompleteUpload.model_validate({"parts": [{"part_number": 0, "etag": part.etag}]})


async def left_of(store, upload_id: str, file_id: str) -> list[str]:
    """Keys and unfinished uploads; the bucket is shared with other tests."""
    found = [key for prefix in ("uploads/", "files/", "owners/") for key in await store.list_keys(prefix)]
    found += [f"parts of {upload.key}" for upload in await store.list_uploads()]
    return [key for key in found if upload_id in key or file_id in key]


@pytest.mark.parametrize("done", [False, True], ids=["before it is done", "after it is done"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_server_that_dies_at_any_step_of_complete_loses_nothing(with_store, emd_3197, step, done):
    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        dying = service(DyingStore(store, step, done=done))
        try:
            answered = await dying.complete(ADA, upload_id, request)
        except ServerDied:
            answered = None
        restarted = service(store)
        reached = await restarted.details(ADA, upload_id)
        file = await restarted.complete(ADA, upload_id, request)
        return (
            answered,
            reached,
            file,
            await restarted.details(ADA, upload_id),
            await store.read(keys.file_volume(file.file_id)),
        )

    answered, reached, file, end, volume = with_store(story)

    assert volume == emd_3197
    assert file.checksum == "sha256:" + hashlib.sha256(emd_3197).hexdigest()
    assert answered in (None, file)
    assert reached.status in ("active", "completed")
    assert [(part.part_number, part.size) for part in reached.parts] == [(0, len(emd_3197))]
    assert (end.status, end.stage, end.file_id) == ("completed", "done", file.file_id)


@pytest.mark.parametrize("done", [False, True], ids=["before it is done", "after it is done"])
@pytest.mark.parametrize("step", range(STEPS))
def test_a_file_that_is_refused_is_refused_again_wherever_the_server_died(with_store, step, done):
    async def story(store):
        upload_id, request = await begun(service(store), b"not a volume" * 100)
        with pytest.raises((ServerDied, VolumeError)):
            await service(DyingStore(store, step, done=done)).complete(ADA, upload_id, request)
        with pytest.raises((VolumeError, ApiError)) as refused:
            await service(store).complete(ADA, upload_id, request)
        return refused.value.failure

    failure = with_store(story)

    assert failure.details == {"field": "format"}
    assert "neither MRC nor NIfTI" in failure.message


@pytest.mark.parametrize("done", [False, True], ids=["before it is done", "after it is done"])
@pytest.mark.parametrize("step", range(STEPS))
def test_giving_up_is_finished_by_a_second_call_wherever_the_server_died(with_store, emd_3197, step, done):
    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        with pytest.raises(ServerDied):  # after the object was put together
            await service(DyingStore(store, 4, done=False)).complete(ADA, upload_id, request)
        dying = service(DyingStore(store, step, done=done))
        try:
            await dying.abort(ADA, upload_id)
        except ServerDied:
            await service(store).abort(ADA, upload_id)
        with pytest.raises(GoneError):
            await service(store).complete(ADA, upload_id, request)
        session = await UploadRecords(store).session(upload_id)
        return upload_id, await left_of(store, upload_id, session.file_id)

    upload_id, left = with_store(story)

    assert set(left) <= {keys.upload_session(upload_id), keys.upload_parts(upload_id)}


@pytest.mark.parametrize("step", range(6))
def test_a_server_that_dies_while_an_upload_begins_has_answered_nothing_and_holds_no_place(with_store, step):
    request = InitUpload(filename="v.mrc", total_size=1000, chunk_size=1000, metadata={})
    owner = f"owner {step}"

    async def story(store):
        one_place = UploadLimits(max_upload_size=10**9, ttl=timedelta(hours=2), max_open=2, quota=None)
        with contextlib.suppress(ServerDied):
            await UploadService(DyingStore(store, step, done=True), lambda: NOW, one_place).begin(owner, request)
        return await UploadService(store, lambda: NOW, one_place).begin(owner, request)

    assert with_store(story).status == "active"


@SEVERAL_SERVERS
def test_two_servers_that_complete_one_upload_at_once_give_one_answer(with_store, emd_3197):
    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        return await asyncio.gather(*(service(store).complete(ADA, upload_id, request) for _ in range(4)))

    answers = with_store(story)

    assert len({answer.model_dump_json() for answer in answers}) == 1


@SEVERAL_SERVERS
def test_two_servers_that_refuse_one_file_at_once_give_one_answer(with_store):
    async def story(store):
        upload_id, request = await begun(service(store), b"nothing" * 500)
        return await asyncio.gather(
            *(service(store).complete(ADA, upload_id, request) for _ in range(4)), return_exceptions=True
        )

    answers = with_store(story)

    assert len({failing(answer).failure.model_dump_json() for answer in answers}) == 1


def failing(answer: object) -> VolumeError | ApiError:
    assert isinstance(answer, VolumeError | ApiError), answer
    return answer


@SEVERAL_SERVERS
def test_an_upload_that_is_given_up_while_another_server_completes_it_is_one_or_the_other(with_store, emd_3197):
    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        answers = await asyncio.gather(
            service(store).complete(ADA, upload_id, request),
            service(store).abort(ADA, upload_id),
            return_exceptions=True,
        )
        session = await UploadRecords(store).session(upload_id)
        files = [key for key in await left_of(store, upload_id, session.file_id) if key.startswith("files/")]
        return answers, files

    (completed, _), files = with_store(story)

    if isinstance(completed, ApiError):
        assert files == []
    else:
        assert files in ([], [keys.file_record(completed.file_id), keys.file_volume(completed.file_id)])


def test_an_upload_that_is_being_read_does_not_expire(with_store, emd_3197):
    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        almost = NOW + LIMITS.ttl - timedelta(seconds=1)
        with pytest.raises(ServerDied):
            await UploadService(DyingStore(store, 4, done=True), lambda: almost, LIMITS).complete(
                ADA, upload_id, request
            )
        later = UploadService(store, lambda: almost + timedelta(hours=1), LIMITS)
        return await later.complete(ADA, upload_id, request)

    assert with_store(story).size == len(emd_3197)


def test_the_event_loop_goes_on_while_a_volume_is_read(with_store, monkeypatch):
    """Eight volumes at once are more than the threads that read them; everything else must not wait for these."""
    import threading

    from cryomamba_apiserver.uploads import completion

    go_on = threading.Event()
    inspect = completion.inspect_volume

    def waiting(*args):
        assert go_on.wait(30)
        return inspect(*args)

    monkeypatch.setattr(completion, "inspect_volume", waiting)

    async def story(store):
        uploads = service(store)
        ready = [await begun(uploads, b"nothing" * 500) for _ in range(8)]
        tasks = [asyncio.create_task(uploads.complete(ADA, *upload)) for upload in ready]
        # The store's own calls take threads too: all of these get theirs while none of the volumes is read.
        for _ in range(20):
            await store.read(keys.upload_session(ready[0][0]))
        done = [task.done() for task in tasks]
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done

    assert with_store(story) == [False] * 8


def test_a_server_that_stops_does_not_read_to_the_end(with_store, emd_3197, monkeypatch):
    from cryomamba_apiserver.uploads import completion

    inspect = completion.inspect_volume

    async def story(store):
        uploads = service(store)
        upload_id, request = await begun(uploads, emd_3197)

        def stopping(*args):
            uploads._completion._stopped.set()
            return inspect(*args)

        monkeypatch.setattr(completion, "inspect_volume", stopping)
        with pytest.raises(ApiError) as stopped:
            await uploads.complete(ADA, upload_id, request)
        uploads.close()
        monkeypatch.undo()
        return stopped.value, await service(store).complete(ADA, upload_id, request)

    stopped, file = with_store(story)

    assert stopped.failure.code.http_status == 503
    assert stopped.failure.retryable
    assert file.size == len(emd_3197)


async def body_of(uploads: UploadService, principal: Principal, data: bytes) -> tuple[str, CompleteUpload]:
    session = await uploads.begin(
        principal.subject, InitUpload(filename="v.mrc", total_size=len(data), chunk_size=len(data), metadata={})
    )
    part = await uploads.put_part(principal, session.upload_id, 0, len(data), body(data))
    return session.upload_id, CompleteUpload.model_validate({"parts": [{"part_number": 0, "etag": part.etag}]})


def test_what_is_slow_to_read_keeps_its_own_owner_waiting_and_nobody_else(with_store, emd_3197, monkeypatch):
    import threading

    from cryomamba_apiserver.uploads import completion

    bob = Principal("bob", ADA.scopes)
    slow, go_on = b"nothing" * 500, threading.Event()
    inspect = completion.inspect_volume

    def waiting(stream, size, *args):
        assert size != len(slow) or go_on.wait(30)
        return inspect(stream, size, *args)

    monkeypatch.setattr(completion, "inspect_volume", waiting)

    async def story(store):
        uploads = service(store)
        ready = [await begun(uploads, slow) for _ in range(4)]
        tasks = [asyncio.create_task(uploads.complete(ADA, *upload)) for upload in ready]
        try:
            async with asyncio.timeout(30):
                while not all([await stage(store, upload_id) == "checking" for upload_id, _ in ready]):  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.01)
            return await asyncio.wait_for(uploads.complete(bob, *await body_of(uploads, bob, emd_3197)), 20)
        finally:
            go_on.set()
            await asyncio.gather(*tasks, return_exceptions=True)

    assert with_store(story).size == len(emd_3197)


async def stage(store, upload_id: str) -> str:
    return (await UploadRecords(store).session(upload_id)).stage


def test_closing_does_not_wait_for_a_read_under_way(with_store, monkeypatch):
    """The event loop closes the service; a store that is away may hold a read for minutes."""
    import threading

    from cryomamba_apiserver.uploads import completion

    reading, go_on, over = threading.Event(), threading.Event(), threading.Event()
    inspect = completion.inspect_volume

    def waiting(*args):
        reading.set()
        go_on.wait(5)
        over.set()
        return inspect(*args)

    monkeypatch.setattr(completion, "inspect_volume", waiting)

    async def story(store):
        uploads = service(store)
        task = asyncio.create_task(uploads.complete(ADA, *await begun(uploads, b"nothing" * 500)))
        await asyncio.to_thread(reading.wait, 30)
        uploads.close()
        waited = over.is_set()
        go_on.set()
        await asyncio.gather(task, return_exceptions=True)
        return waited

    assert not with_store(story)


def test_an_upload_that_is_being_read_counts_as_open_for_as_long_as_it_is(with_store, emd_3197):
    owner = f"ada of {secrets.token_hex(8)}"  # the bucket is shared with other tests
    ada = Principal(owner, ADA.scopes)

    async def story(store):
        upload_id, request = await body_of(service(store), ada, emd_3197)
        almost = NOW + LIMITS.ttl - timedelta(seconds=1)
        # It dies with the parts kept, and the session and its mark written anew.
        with pytest.raises(ServerDied):
            await UploadService(DyingStore(store, 4, done=True), lambda: almost, LIMITS).complete(
                ada, upload_id, request
            )
        opened = await UploadRecords(store).open_uploads(owner, almost + timedelta(hours=1))
        file = await UploadService(store, lambda: almost, LIMITS).complete(ada, upload_id, request)
        return [mark.upload_id for mark in opened] == [upload_id], await left_open(store, owner), file

    counted, left, file = with_store(story)

    assert counted
    assert left == []
    assert file.size == len(emd_3197)


async def left_open(store, owner: str) -> list[str]:
    return await store.list_keys(keys.owner_uploads_prefix(owner))


def test_a_file_whose_bytes_go_while_it_is_recorded_counts_no_more(with_store, emd_3197):
    class Losing:
        """A store that another server takes the volume from as soon as its record is written."""

        def __init__(self, store) -> None:
            self._store = store

        def __getattr__(self, name: str):
            return getattr(self._store, name)

        async def write(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            await self._store.write(key, data, if_absent=if_absent)
            if key.endswith("file.json"):
                await self._store.delete(key.replace("file.json", "volume"))

    async def story(store):
        upload_id, request = await begun(service(store), emd_3197)
        with pytest.raises(GoneError):
            await service(Losing(store)).complete(ADA, upload_id, request)
        file_id = (await UploadRecords(store).session(upload_id)).file_id
        return [key for key in await left_of(store, "no upload", file_id) if not key.startswith("uploads/")]

    assert with_store(story) == []
