"""What a runner's storage does, tried on each."""

import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from minio.error import S3Error

from cryomamba_crds import pod
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE, DirectoryStore, S3Store
from cryomamba_inference.storage import open_storage
from cryomamba_inference.storage.refusals import failure_about
from support.cut_line import line_to
from support.s3 import new_bucket, own_minio
from support.waiting import until

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


def test_an_object_is_removed_also_where_there_is_none(storage, scratch, key):
    storage.put_bytes(key, b"planes")

    for _ in range(2):
        storage.remove(key)

        with pytest.raises(FailureError, match="is not in the store"):
            storage.fetch(key, scratch)


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


@pytest.fixture
def line(bucket):
    """A line to the store that can be cut, and the storage at its other end."""
    url = urlsplit(bucket.endpoint)
    with line_to(str(url.hostname), url.port or 80) as line:
        store = s3_store(bucket, endpoint=f"http://127.0.0.1:{line.port}")
        yield line, open_storage(store, environment(bucket), outage_seconds=60)


def mended_after(line, seconds: float):
    """Mend the line when it has been cut for a while."""

    def mend() -> None:
        until(lambda: line.cuts)
        time.sleep(seconds)
        line.mend()

    thread = threading.Thread(target=mend)
    thread.start()
    return thread


def test_a_download_that_breaks_off_goes_on_when_the_store_is_back(line, bucket, scratch, key):
    line, storage = line
    data = os.urandom(24 * MIB)
    source = scratch / "volume"
    source.write_bytes(data)
    open_storage(s3_store(bucket), environment(bucket)).put_file(key, source)
    line.cut_after_down = 9 * MIB
    mending = mended_after(line, 2)

    fetched = storage.fetch(key, scratch)

    mending.join()
    assert fetched.read_bytes() == data
    assert line.down < 30 * MIB, "it goes on where it broke off"


@pytest.mark.parametrize("size", [3 * MIB, 70 * MIB])
def test_an_upload_that_breaks_off_is_done_when_the_store_is_back(line, scratch, key, size):
    line, storage = line
    data = os.urandom(size)
    source = scratch / "segmentation.mrc"
    source.write_bytes(data)
    line.cut_after_up = size // 2
    mending = mended_after(line, 2)

    storage.put_file(key, source)

    mending.join()
    assert storage.fetch(key, scratch).read_bytes() == data


def test_a_manifest_whose_answer_is_lost_is_known_for_ones_own(line, scratch, key):
    line, storage = line
    storage.put_bytes("warm", b"so that the connection is there")
    line.cut_after_down = line.down + 1  # the store has taken it, and its answer does not arrive
    mending = mended_after(line, 1)

    first = storage.put_once(key, b"mine")
    second = storage.put_once(key, b"another's")

    mending.join()
    assert (first, second) == (True, False)
    assert storage.fetch(key, scratch).read_bytes() == b"mine"


def test_a_small_object_that_a_job_can_do_without_does_not_keep_it_waiting(line, key):
    line, storage = line
    line.cut()
    began = time.monotonic()

    with pytest.raises(FailureError, match="does not answer"):
        storage.put_bytes(key, b"preview")

    assert time.monotonic() - began < 20


def test_a_store_that_is_restarted_loses_nothing(tmp_path, scratch, key):
    with own_minio(tmp_path) as server:
        connection = new_bucket(server.connection)
        storage = open_storage(s3_store(connection), environment(connection))
        for name, data in (("a", b"a" * MIB), ("b", b"b" * (20 * MIB))):
            (scratch / name).write_bytes(data)
        storage.put_file(key, scratch / "a")
        server.stop()
        back = threading.Timer(3, server.start)
        back.start()

        assert storage.fetch(key, scratch).read_bytes() == b"a" * MIB
        back.join()
        server.stop()
        back = threading.Timer(3, server.start)
        back.start()
        storage.put_file(f"{key}-b", scratch / "b")
        assert storage.put_once(f"{key}-c", b"c")
        back.join()

        assert storage.fetch(f"{key}-b", scratch).stat().st_size == 20 * MIB


def files(folder: Path, **content: str) -> dict[str, str]:
    """Write credentials as kubelet mounts a Secret, newest last, and return the environment that names them."""
    newest = folder / f"..{secrets.token_hex(4)}"
    newest.mkdir(parents=True)
    for name, text in content.items():
        (newest / name).write_text(text)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    temporary = folder / "..data_tmp"
    temporary.symlink_to(newest.name)
    temporary.replace(folder / "..data")
    return {pod.CREDENTIALS_VARIABLE: str(folder)}


def test_credentials_in_files_are_read_again_when_they_change(bucket, scratch, key, tmp_path):
    folder = tmp_path / "s3"
    known = files(folder, access_key=bucket.access_key, secret_key=bucket.secret_key + "\n")
    storage = open_storage(s3_store(bucket), known)
    storage.put_bytes(key, b"first")
    renewing = threading.Timer(2, files, [folder], {"access_key": bucket.access_key, "secret_key": bucket.secret_key})
    files(folder, access_key="expired", secret_key="expired", session_token="expired")
    renewing.start()
    try:
        assert storage.put_once(f"{key}-2", b"with the new ones")
    finally:
        renewing.join()

    assert storage.fetch(key, scratch).read_bytes() == b"first"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"secret_key": "s"}, "access_key cannot be read"),
        ({"access_key": "a", "secret_key": " "}, "secret_key is empty"),
    ],
)
def test_credentials_that_are_not_there_are_named_by_their_file(bucket, key, tmp_path, content, told):
    storage = open_storage(s3_store(bucket), files(tmp_path / "s3", **content))

    with pytest.raises(FailureError, match=told) as failure:
        storage.put_once(key, b"x")

    assert not failure.value.failure.retryable


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"store": {"bucket": "not-there"}}, "has no bucket not-there"),
        ({SECRET_KEY_VARIABLE: "x" * 40}, "does not accept the credentials"),
        ({ACCESS_KEY_VARIABLE: "nobody"}, "does not accept the credentials"),
    ],
)
def test_what_is_wrong_with_a_store_is_named_also_when_it_is_read_from(bucket, scratch, key, wrong, told):
    store = s3_store(bucket, **wrong.pop("store", {}))
    storage = open_storage(store, environment(bucket) | wrong)

    with pytest.raises(FailureError, match=told) as failure:
        storage.fetch(key, scratch)

    assert failure.value.failure.code is FailureCode.SERVICE_UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("XMinioStorageFull", 507, FailureCode.INSUFFICIENT_STORAGE),
        ("XMinioAdminBucketQuotaExceeded", 400, FailureCode.INSUFFICIENT_STORAGE),
        ("QuotaExceeded", 403, FailureCode.INSUFFICIENT_STORAGE),
        ("AccessDenied", 403, FailureCode.SERVICE_UNAVAILABLE),
        ("RequestTimeTooSkewed", 403, FailureCode.SERVICE_UNAVAILABLE),
        ("SlowDown", 503, FailureCode.SERVICE_UNAVAILABLE),
    ],
)
def test_a_refusal_of_what_is_written_is_named(bucket, code, status, expected):
    """MinIO applies a quota after minutes only, so its answers are given in its place."""
    answer = SimpleNamespace(status=status)
    error = S3Error(answer, code, "words", "resource", "request", "host", bucket.bucket, "k")

    failure = failure_about(error, "jobs/u/1/a", s3_store(bucket), reading=False).failure

    assert failure.code is expected
    assert failure.retryable == (status == 503)
    assert bucket.bucket in failure.message
