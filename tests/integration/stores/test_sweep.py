"""The sweep on both stores."""

from datetime import UTC, datetime, timedelta

from cryomamba_apiserver.auth import Principal, Scope
from cryomamba_apiserver.sweep.decide import Rules
from cryomamba_apiserver.sweep.run import Sweep
from cryomamba_apiserver.uploads.schemas import CompleteUpload, InitUpload
from cryomamba_apiserver.uploads.service import UploadLimits, UploadService
from cryomamba_crds import keys
from support.volume_files import mrc

ADA = Principal("ada", frozenset({Scope.READ, Scope.WRITE}))
RULES = Rules(margin=timedelta(minutes=5), grace=timedelta(days=1))
LIMITS = UploadLimits(max_upload_size=10**9, ttl=timedelta(hours=2), max_open=100, quota=None)


class NoJobs:
    async def all(self):
        return []

    async def forget(self, job_ids):
        assert not list(job_ids)


async def body(data: bytes):
    yield data


def test_what_expired_is_freed_and_what_was_completed_stays(with_store):
    async def story(store):
        time = datetime.now(UTC)
        uploads = UploadService(store, lambda: time, LIMITS)
        data = mrc()
        request = InitUpload(filename="v.mrc", total_size=len(data), chunk_size=len(data), metadata={})
        left, done = [await uploads.begin("ada", request) for _ in range(2)]
        for session in (left, done):
            part = await uploads.put_part(ADA, session.upload_id, 0, len(data), body(data))
        named = CompleteUpload.model_validate({"parts": [{"part_number": 0, "etag": part.etag}]})
        file = await uploads.complete(ADA, done.upload_id, named)
        await store.write(keys.file_volume("file_bbbbbbbbbbbb"), b"no record")
        await store.create_upload(keys.file_volume("file_cccccccccccc"), 1000)  # no session

        time += timedelta(hours=3)
        await Sweep(store, NoJobs(), RULES, lambda: time).run()
        soon = await uploads.details(ADA, left.upload_id), await store.list_uploads()
        time += timedelta(days=3)
        for _ in range(2):
            await Sweep(store, NoJobs(), RULES, lambda: time).run()
        everything = [
            key
            for prefix in (keys.uploads_prefix(), keys.files_prefix(), keys.owners_prefix())
            for key in await store.list_keys(prefix)
        ]
        return file.file_id, soon, await store.list_uploads(), everything

    file_id, (expired, pending), at_the_end, everything = with_store(story)

    assert (expired.status, expired.parts) == ("expired", [])
    assert [upload.key for upload in pending] == [keys.file_volume("file_cccccccccccc")]
    assert at_the_end == []
    assert [key for key in everything if not key.startswith("owners/")] == [
        keys.file_record(file_id),
        keys.file_volume(file_id),
    ]
    assert len(everything) == 3
