"""What only an S3 store does: its errors, its URLs, and its ways of being away."""

import asyncio
import io
import os
import secrets
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from cryomamba_apiserver.adapters.s3_store import S3Connection, S3ObjectStore
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_apiserver.ports.object_store import (
    ObjectMissingError,
    Part,
    PartConflictError,
    StorageFullError,
    StoreUnavailableError,
)
from support.s3 import new_bucket, own_minio

MIB = 1 << 20


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def collect(stream) -> bytes:
    return b"".join([block async for block in stream])


def with_store(connection: S3Connection, work):
    async def scenario():
        store = S3ObjectStore(connection)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(scenario())


def every_call(store: S3ObjectStore):
    """Yield a call of each method that asks the store for something."""
    upload = f"k?{secrets.token_hex(16)}"
    yield store.check
    yield lambda: store.read("k")
    yield lambda: store.write("k", b"x")
    yield lambda: store.write("k", b"x", if_absent=True)
    yield lambda: store.write_file("k", io.BytesIO(b"x"))
    yield lambda: store.delete("k")
    yield lambda: store.delete_prefix("k/")
    yield lambda: store.list_keys("k/")
    yield lambda: store.stat("k")
    yield lambda: collect(store.stream("k", 0, 1))
    yield lambda: asyncio.to_thread(store.open, "k")
    yield lambda: store.create_upload("k", 1)
    yield store.list_uploads
    yield lambda: store.put_part(upload, 0, 0, 1, body(b"x"))
    yield lambda: store.parts(upload)
    yield lambda: store.finish_upload(upload, {0: Part("0" * 32, 1)})
    yield lambda: store.abort_upload(upload)


async def messages(store: S3ObjectStore) -> set[str]:
    told = await asyncio.gather(*(call() for call in every_call(store)), return_exceptions=True)
    assert {type(error) for error in told} == {StoreUnavailableError}
    return {str(error) for error in told}


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_wrong_credentials_are_told_by_every_call_and_never_shown(bucket, wrong):
    connection = replace(bucket, **{wrong: "x-" + secrets.token_hex(10)})

    told = with_store(connection, messages)

    assert all("refuses our credentials" in text and bucket.bucket in text for text in told)
    secret = (bucket.access_key, bucket.secret_key, connection.access_key, connection.secret_key)
    assert not any(key in text + repr(connection) for key in secret for text in told)


def test_a_missing_bucket_is_told_by_every_call(bucket):
    connection = replace(bucket, bucket="not-there")

    assert with_store(connection, messages) == {f"there is no bucket not-there at {bucket.endpoint}"}


def test_a_store_that_is_away_is_told_and_is_used_again_when_it_is_back(tmp_path):
    data = os.urandom(2 * MIB)
    with own_minio(tmp_path) as server:
        connection = new_bucket(server.connection)

        async def through_an_outage(store):
            upload = await store.create_upload("volume", len(data))
            await store.write("k", data)
            server.stop()
            told = await messages(store)
            await asyncio.to_thread(server.start)
            part = await store.put_part(upload, 0, 0, len(data), body(data))
            await store.finish_upload(upload, {0: part})
            await store.check()
            return told, await store.read("volume"), await collect(store.stream("k", 0, len(data)))

        told, uploaded, before = with_store(connection, through_an_outage)

    assert all(text.startswith(f"the store at {connection.endpoint} does not answer (") for text in told)
    assert (uploaded, before) == (data, data)


def test_a_short_absence_is_waited_for(tmp_path):
    with own_minio(tmp_path) as server:
        connection = new_bucket(server.connection)

        async def during_a_restart(store):
            await store.write("k", b"content")
            server.stop()
            reading = asyncio.create_task(store.read("k"))
            await asyncio.to_thread(server.start)
            return await reading

        assert with_store(connection, during_a_restart) == b"content"


def test_a_store_that_goes_away_during_a_part_is_told_and_the_part_is_not_held(tmp_path):
    with own_minio(tmp_path) as server:
        connection = new_bucket(server.connection)

        async def interrupted(store):
            upload = await store.create_upload("volume", 64 * MIB)

            async def stopping():
                yield bytes(MIB)
                server.stop()
                for _ in range(63):
                    yield bytes(MIB)

            with pytest.raises(StoreUnavailableError, match="does not answer"):
                await store.put_part(upload, 0, 0, 64 * MIB, stopping())
            await asyncio.to_thread(server.start)
            return await store.parts(upload)

        assert with_store(connection, interrupted) == {}


def test_an_object_that_changes_while_it_is_open_is_told(bucket):
    async def change(store):
        await store.write_file("changing", io.BytesIO(bytes(4 * MIB)))

        def read_on():
            with store.open("changing") as file:
                file.read(1)
                asyncio.run_coroutine_threadsafe(store.write("changing", b"1" * 4 * MIB), loop).result()
                file.seek(3 * MIB)
                with pytest.raises(ObjectMissingError, match="changed while it was read"):
                    file.read()

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(read_on)

    with_store(bucket, change)


def test_reading_on_is_one_download(bucket, monkeypatch):
    asked = []
    get_object = S3Client.get_object

    def counting(self, *args, **kwargs):
        asked.append(kwargs["offset"])
        return get_object(self, *args, **kwargs)

    monkeypatch.setattr(S3Client, "get_object", counting)

    async def read_through(store):
        await store.write_file("long", io.BytesIO(bytes(8 * MIB)))

        def read_all():
            with store.open("long") as file:
                while file.read(100_000):
                    pass
                file.seek(0)
                return file.read(10)

        return await asyncio.to_thread(read_all)

    assert with_store(bucket, read_through) == bytes(10)
    assert asked == [0, 0]


def test_clients_download_by_a_signed_url_of_the_public_endpoint(bucket):
    public = bucket.endpoint.replace("127.0.0.1", "localhost")

    async def sign(store):
        await store.write("files/artifact", b"labels")
        return store.presigned_get("files/artifact", timedelta(minutes=5), 'mem"brané.mrc')

    url = with_store(replace(bucket, public_endpoint=public), sign)
    answer = httpx.get(url, headers={"Range": "bytes=1-3"})

    assert url.startswith(public + "/")
    assert (answer.status_code, answer.content) == (206, b"abe")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    disposition = "attachment; filename=\"mem_bran_.mrc\"; filename*=UTF-8''mem%22bran%C3%A9.mrc"
    assert answer.headers["Content-Disposition"] == disposition
    assert httpx.get(url.replace("files/artifact", "files/other")).status_code == 403
    assert httpx.get(url.partition("?")[0]).status_code == 403


def test_a_link_in_its_last_second_is_signed_for_a_second(bucket):
    async def sign(store):
        return store.presigned_get("k", timedelta(milliseconds=1), "k")

    assert "X-Amz-Expires=1&" in with_store(replace(bucket, public_endpoint=bucket.endpoint), sign)


def test_without_a_public_endpoint_there_is_no_url(bucket):
    async def sign(store):
        return store.presigned_get("k", timedelta(minutes=5), "k")

    assert with_store(bucket, sign) is None


def test_a_bucket_in_the_hosts_name_is_addressed_so(bucket):
    connection = replace(bucket, path_style=False, public_endpoint="https://s3.example.org")

    async def sign(store):
        return store.presigned_get("k", timedelta(minutes=5), "k")

    assert with_store(connection, sign).startswith(f"https://{bucket.bucket}.s3.example.org/k?")


@pytest.fixture
def certificates(tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    names = ["-subj", "/CN=minio", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", folder / "private.key", "-out", folder / "public.crt"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)
    return folder


def test_over_tls_only_a_certificate_of_the_ca_file_is_trusted(tmp_path, certificates):
    data = os.urandom(100_000)
    with own_minio(tmp_path, certificates=certificates) as server:
        trusting = new_bucket(replace(server.connection, ca_file=certificates / "public.crt"))

        async def use(store):
            upload = await store.create_upload("volume", len(data))
            part = await store.put_part(upload, 0, 0, len(data), body(data))
            await store.finish_upload(upload, {0: part})
            return await collect(store.stream("volume", 0, len(data)))

        assert with_store(trusting, use) == data
        told = with_store(replace(trusting, ca_file=None), messages)

    assert told == {f"the TLS certificate of the store at {trusting.endpoint} is not trusted"}


def test_where_etags_are_no_md5_a_part_is_never_replaced(tmp_path):
    """With encryption the store's etag says nothing about the bytes, so the same ones are refused like others are."""
    key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    kms = {"MINIO_KMS_SECRET_KEY": f"test:{key}", "MINIO_KMS_AUTO_ENCRYPTION": "on"}
    with own_minio(tmp_path, environment=kms) as server:
        connection = new_bucket(server.connection)

        async def put_again(store):
            upload = await store.create_upload("volume", 4)
            first = await store.put_part(upload, 0, 0, 4, body(b"abcd"))
            again = await asyncio.gather(store.put_part(upload, 0, 0, 4, body(b"abcd")), return_exceptions=True)
            with pytest.raises(PartConflictError):
                await store.put_part(upload, 0, 0, 4, body(b"else"))
            held = await store.parts(upload)
            await store.finish_upload(upload, {0: first})
            return first, again[0], held, await store.read("volume")

        first, again, held, content = with_store(connection, put_again)

    assert held == {0: first}
    assert isinstance(again, PartConflictError)
    assert content == b"abcd"


def test_of_two_servers_that_take_one_part_at_once_only_the_last_ones_answer_completes(bucket):
    async def race(one):
        other = S3ObjectStore(bucket)
        upload = await one.create_upload("raced", 4)
        told = {}

        async def late():  # asked for once the first server has looked the part up
            told["other"] = await other.put_part(upload, 0, 0, 4, body(b"bbbb"))
            yield b"aaaa"

        told["one"] = await one.put_part(upload, 0, 0, 4, late())
        with pytest.raises(PartConflictError):
            await other.finish_upload(upload, {0: told["other"]})
        await one.finish_upload(upload, {0: told["one"]})
        await other.close()
        return await one.read("raced")

    assert with_store(bucket, race) == b"aaaa"


def test_a_bucket_over_its_quota_is_full(bucket):
    """MinIO applies a quota after minutes only, so its answer is given in its place; the rest is real."""
    place = S3ObjectStore(bucket)._place

    full = [
        place.refusal("XMinioStorageFull", 507, "k"),
        place.refusal("XMinioAdminBucketQuotaExceeded", 400, "k"),
        place.refusal("QuotaExceeded", 403, "k"),
        place.refusal(None, 507, "k"),
    ]

    assert {type(error) for error in full} == {StorageFullError}
    assert not any(bucket.secret_key in str(error) for error in full)


def test_what_is_no_s3_store_is_told(tmp_path):
    async def ask():
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        store = S3ObjectStore(S3Connection(f"http://{host}:{port}", "bucket", "access", "secret"))
        async with server:
            for call in (store.check(), store.parts("k?id"), store.list_keys("k/"), store.list_uploads()):
                with pytest.raises(StoreUnavailableError, match="is not an S3 store"):
                    await call
        await store.close()

    asyncio.run(ask())


def test_the_pool_of_connections_is_bounded(bucket):
    async def look(store):
        await collect(store.stream("k", 0, 1)) if await store.stat("k") else await store.write("k", b"x")
        return store._transfers._connections().connector.limit, store._client._http.connection_pool_kw["maxsize"]

    connections, idle = with_store(bucket, look)

    assert 0 < connections <= 256
    assert 0 < idle <= 64
