"""What the page lets the store's user do suffices, and is no more than its own bucket. On a real MinIO."""

import asyncio
import json
import re
import secrets
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from minio import MinioAdmin
from minio.credentials import StaticProvider

from cryomamba_apiserver.adapters.s3_store import S3Connection, S3ObjectStore
from cryomamba_apiserver.ports.object_store import StoreUnavailableError
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.access import session_policy
from cryomamba_operator.settings import Settings
from cryomamba_operator.sts import SecurityTokenService
from support.helm import CHART
from support.s3 import new_bucket
from support.segmentation_jobs import segmentation_job

PAGE = (CHART.parents[1] / "docs" / "install.md").read_text()
PART = 5 << 20


@pytest.fixture(scope="module")
def user(minio: S3Connection, bucket: S3Connection) -> S3Connection:
    """The bucket, as the user of the page sees it."""
    (policy,) = re.findall(r"^cat > policy.json <<'END'$(.*?)^END$", PAGE, re.DOTALL | re.MULTILINE)
    name, secret = f"user-{secrets.token_hex(4)}", secrets.token_hex(20)
    parts = urlsplit(minio.endpoint)
    admin = MinioAdmin(
        endpoint=parts.netloc, credentials=StaticProvider(minio.access_key, minio.secret_key), secure=False
    )
    admin.policy_add(name, policy=json.loads(policy.replace(":::cryomamba", f":::{bucket.bucket}")))
    admin.user_add(name, secret)
    admin.attach_policy([name], user=name)
    return replace(bucket, access_key=name, secret_key=secret)


def test_the_server_can_do_all_that_it_does(user):
    async def scenario():
        store = S3ObjectStore(user)
        try:
            await store.check()
            await store.write("files/a/file.json", b"1", if_absent=True)
            upload = await store.create_upload("files/a/volume", PART + 1)
            parts = {}
            for number, data in ((1, b"x" * PART), (2, b"y")):
                parts[number] = await store.put_part(upload, number, (number - 1) * PART, len(data), _body(data))
            assert await store.parts(upload) == parts
            await store.finish_upload(upload, parts)
            given_up = await store.create_upload("files/b/volume", PART)
            assert [pending.id for pending in await store.list_uploads()] == [given_up]
            await store.abort_upload(given_up)
            assert await store.read("files/a/file.json") == b"1"
            assert await store.list_keys("files/") == ["files/a/file.json", "files/a/volume"]
            await store.delete_prefix("files/a/")
            return await store.list_keys("")
        finally:
            await store.close()

    assert asyncio.run(scenario()) == []


async def _body(data: bytes):
    yield data


def test_it_can_do_nothing_to_another_bucket(user, minio):
    async def scenario():
        store = S3ObjectStore(replace(user, bucket=new_bucket(minio).bucket))
        try:
            with pytest.raises(StoreUnavailableError):
                await store.write("x", b"1")
        finally:
            await store.close()

    asyncio.run(scenario())


def test_the_operator_gets_credentials_for_a_job_that_reach_its_own_prefix_only(user, tmp_path):
    for name, key in (("access_key", user.access_key), ("secret_key", user.secret_key)):
        (tmp_path / name).write_text(key)
    settings = Settings(
        image="runner:1",
        s3_endpoint=user.endpoint,
        s3_bucket=user.bucket,
        s3_access_key_file=tmp_path / "access_key",
        s3_secret_key_file=tmp_path / "secret_key",
    )
    manifest = segmentation_job("tomogram")
    manifest["metadata"] |= {"uid": "0123", "namespace": "lab"}
    record = SegmentationJob.model_validate(manifest)

    async def scenario():
        given = await SecurityTokenService(settings).assume(session_policy(record, user.bucket), "tomogram")
        keys = {"access_key": given.access_key, "secret_key": given.secret_key, "session_token": given.session_token}
        store = S3ObjectStore(replace(user, **keys))
        try:
            await store.write("jobs/0123/1/labels", b"1")
            with pytest.raises(StoreUnavailableError):
                await store.write("jobs/4567/1/labels", b"1")
        finally:
            await store.close()

    asyncio.run(scenario())
