"""What a runner's storage does, tried on each."""

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE, DirectoryStore, S3Store
from cryomamba_inference.storage import open_storage
from support.s3 import own_minio

MIB = 1 << 20


def s3_store(connection, **changes) -> S3Store:
    return S3Store(**{"endpoint": connection.endpoint, "bucket": connection.bucket, **changes})


def environment(connection) -> dict[str, str]:
    return {ACCESS_KEY_VARIABLE: connection.access_key, SECRET_KEY_VARIABLE: connection.secret_key}


@pytest.fixture(params=["directory", "s3"])
def storage(request, tmp_path):
    if request.param == "directory":
        return open_storage(DirectoryStore(root=str(tmp_path / "store")), {})
    bucket = request.getfixturevalue("bucket")
    return open_storage(s3_store(bucket), environment(bucket))


@pytest.fixture
def scratch(tmp_path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def key() -> str:
    return f"jobs/{secrets.token_hex(6)}/1/segmentation.mrc"


@pytest.mark.parametrize("size", [0, 1, 40 * MIB + 3])
def test_a_file_is_used_up_and_fetched_again(storage, scratch, key, size):
    data = os.urandom(size)
    source = scratch / "segmentation.mrc"
    source.write_bytes(data)

    storage.put_file(key, source)

    assert not source.exists()
    assert storage.fetch(key, scratch).read_bytes() == data


def test_a_small_object_is_replaced(storage, scratch, key):
    storage.put_bytes(key, b"first")
    storage.put_bytes(key, b"second")

    assert storage.fetch(key, scratch).read_bytes() == b"second"


def test_of_many_that_store_once_exactly_one_does(storage, scratch, key):
    with ThreadPoolExecutor(8) as threads:
        stored = list(threads.map(lambda number: storage.put_once(key, b"%d" % number), range(8)))

    assert [b"%d" % number for number, first in enumerate(stored) if first] == [
        storage.fetch(key, scratch).read_bytes()
    ]


def test_what_is_missing_is_told(storage, scratch, key):
    with pytest.raises(FailureError, match="is not in the store") as failure:
        storage.fetch(key, scratch)

    assert failure.value.failure.code is FailureCode.NOT_FOUND


def test_a_runner_without_credentials_says_which_variable_it_misses(bucket):
    with pytest.raises(FailureError, match=SECRET_KEY_VARIABLE):
        open_storage(s3_store(bucket), {ACCESS_KEY_VARIABLE: "a"})


@pytest.mark.parametrize("wrong", ["bucket", "key"])
def test_a_store_that_refuses_is_no_reason_to_try_again(bucket, scratch, key, wrong):
    secret = "x" * 40
    store = s3_store(bucket, **({"bucket": "not-there"} if wrong == "bucket" else {}))
    known = environment(bucket) | ({SECRET_KEY_VARIABLE: secret} if wrong == "key" else {})
    storage = open_storage(store, known)

    for put in (storage.put_bytes, storage.put_once):
        with pytest.raises(FailureError) as failure:
            put(key, b"x")
        told = failure.value.failure
        assert (told.code, told.retryable) == (FailureCode.SERVICE_UNAVAILABLE, False)
        assert store.bucket in told.message
        assert not any(text in told.message for text in (secret, bucket.access_key, bucket.secret_key))


def test_a_store_that_stays_away_is_a_reason_to_try_again(tmp_path, scratch, key):
    with own_minio(tmp_path) as server:
        store, known = s3_store(server.connection), environment(server.connection)

    with pytest.raises(FailureError, match="does not answer") as failure:
        open_storage(store, known, outage_seconds=2).fetch(key, scratch)

    assert failure.value.failure.retryable
