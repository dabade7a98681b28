"""Objects in a bucket of an S3 store."""

import contextlib
import io
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import urllib3
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from cryomamba_crds.task import S3Store
from cryomamba_inference.storage.credentials import find_credentials
from cryomamba_inference.storage.interface import OUTAGE_SECONDS
from cryomamba_inference.storage.patience import Patience
from cryomamba_inference.storage.refusals import failure_about
from cryomamba_inference.storage.s3_client import S3Client

_BLOCK = 1 << 20
_PART = 16 << 20
_PAUSE_SECONDS = 0.5
_STUCK = 20
"""How often a download may break off where it broke off before; a store that does not answer at all is not counted."""
_HASTY_SECONDS = 5.0
"""For what will soon be replaced and is not worth that anything waits for it."""


class S3Storage:
    """A bucket; while the store is away, what is asked of it is repeated for a few minutes.

    Args:
        client: For what has to succeed.
        hasty: For what need not.
        store: Which bucket.
    """

    def __init__(self, client: S3Client, hasty: S3Client, store: S3Store) -> None:
        self._client = client
        self._hasty = hasty
        self._store = store

    @classmethod
    def from_task(
        cls, store: S3Store, environment: Mapping[str, str], outage_seconds: float = OUTAGE_SECONDS
    ) -> "S3Storage":
        """Return the bucket of a task; raise FailureError where the environment lacks the credentials."""
        provider = find_credentials(environment)
        hasty_seconds = min(_HASTY_SECONDS, outage_seconds)
        return cls(
            S3Client(store, provider, Patience(outage_seconds)),
            S3Client(store, provider, Patience(hasty_seconds), hasty_seconds),
            store,
        )

    def fetch(self, key: str, scratch: Path) -> Path:
        """Download an object into the scratch folder, going on where a download breaks off."""
        target = scratch / f"object-{secrets.token_hex(8)}"
        with self._failures_about(key, reading=True), target.open("xb") as file:
            self._download(key, file)
        return target

    def put_file(self, key: str, source: Path) -> None:
        """Upload a file and remove it."""
        with self._failures_about(key):
            try:
                self._upload(key, source)
            except S3Error as error:
                # The upload was put together by a request whose answer was lost, or the store has forgotten it.
                if error.code != "NoSuchUpload":
                    raise
                self._upload(key, source)
        source.unlink()

    def put_bytes(self, key: str, data: bytes) -> None:
        """Put a small object; a store that is away is not waited for."""
        with self._failures_about(key):
            self._hasty.put_object(self._hasty.bucket, key, io.BytesIO(data), len(data))

    def put_once(self, key: str, data: bytes) -> bool:
        """Put a small object unless it is there."""
        with self._failures_about(key):
            try:
                self._client.put_if_absent(key, data)
            except S3Error as error:
                if error.code != "PreconditionFailed":
                    raise
                # The same bytes are our own, put by a request whose answer was lost: each attempt's are different.
                return self._client.read_whole(key) == data
        return True

    def remove(self, key: str) -> None:
        """Delete an object; a store that is away is not waited for."""
        with self._failures_about(key):
            self._hasty.remove_object(self._hasty.bucket, key)

    def _upload(self, key: str, source: Path) -> None:
        self._client.fput_object(self._client.bucket, key, str(source), part_size=_PART)

    def _download(self, key: str, file: io.BufferedWriter) -> None:
        etag, size, stuck = "", -1, 0
        while file.tell() != size:
            before = file.tell()
            try:
                answer = self._open(key, before, etag)
                if size < 0:  # the first answer, whose length is the object's
                    etag, size = answer.headers.get("etag", "").strip('"'), int(answer.headers["content-length"])
                _append(answer, file)
            except (urllib3.exceptions.ProtocolError, urllib3.exceptions.TimeoutError):
                stuck = stuck + 1 if file.tell() == before else 0
                if stuck == _STUCK:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _open(self, key: str, offset: int, etag: str) -> BaseHTTPResponse:
        headers: dict[str, str | list[str] | tuple[str]] = {"If-Match": f'"{etag}"'} if etag else {}
        return self._client.get_object(self._client.bucket, key, offset=offset, request_headers=headers)

    @contextlib.contextmanager
    def _failures_about(self, key: str, *, reading: bool = False) -> Iterator[None]:
        """Turn what a call about an object raises into failures."""
        try:
            yield
        except (HTTPError, MinioException) as error:
            raise failure_about(error, key, self._store, reading=reading) from None


def _append(answer: BaseHTTPResponse, file: io.BufferedWriter) -> None:
    try:
        file.writelines(answer.stream(_BLOCK))
    finally:
        answer.close()
        answer.release_conn()
