"""Objects in a bucket of an S3 store."""

import contextlib
import io
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE, SESSION_TOKEN_VARIABLE, S3Store
from cryomamba_inference.storage.interface import missing

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_BLOCK = 1 << 20
_PART = 16 << 20
_DOWNLOADS = 5
"""How often one that breaks off is taken up again."""
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
_INSUFFICIENT_STORAGE = 507
_SERVER_ERROR = 500


class S3Storage:
    """A bucket; requests that may be repeated are, for about ten seconds, while the store is away."""

    def __init__(self, client: "S3Client", store: S3Store) -> None:
        self._client = client
        self._store = store

    @classmethod
    def from_task(cls, store: S3Store, environment: Mapping[str, str]) -> "S3Storage":
        """Return the bucket of a task; raise FailureError where the environment lacks the credentials."""
        for name in (ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE):
            if not environment.get(name):
                raise FailureError(
                    FailureCode.SERVICE_UNAVAILABLE,
                    f"The runner was started without {name}.",
                    hint="Whoever starts runners on an S3 store puts its credentials into their environment.",
                    retryable=False,
                )
        return cls(S3Client(store, environment), store)

    def fetch(self, key: str, scratch: Path) -> Path:
        """Download an object into the scratch folder, going on where a download breaks off."""
        target = scratch / f"object-{secrets.token_hex(8)}"
        with self._failures_about(key), target.open("xb") as file:
            stat = self._client.stat_object(self._client.bucket, key)
            size = stat.size or 0
            for attempt in range(1, _DOWNLOADS + 1):
                try:
                    self._go_on(key, file, stat.etag or "")
                except (HTTPError, OSError) as error:
                    if attempt == _DOWNLOADS or not _broke_off(error):
                        raise
                    time.sleep(attempt / 2)
                if file.tell() >= size:
                    break
            else:
                raise HTTPError("the download ended early")
        return target

    def put_file(self, key: str, source: Path) -> None:
        """Upload a file and remove it."""
        with self._failures_about(key):
            self._client.fput_object(self._client.bucket, key, str(source), part_size=_PART)
        source.unlink()

    def put_bytes(self, key: str, data: bytes) -> None:
        """Put a small object."""
        with self._failures_about(key):
            self._client.put_object(self._client.bucket, key, io.BytesIO(data), len(data))

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

    def _go_on(self, key: str, file: io.BufferedWriter, etag: str) -> None:
        answer = self._client.get_object(
            self._client.bucket, key, offset=file.tell(), request_headers={"If-Match": f'"{etag}"'}
        )
        try:
            file.writelines(answer.stream(_BLOCK))
        finally:
            answer.close()
            answer.release_conn()

    @contextlib.contextmanager
    def _failures_about(self, key: str) -> Iterator[None]:
        """Turn what a call about an object raises into failures; neither keys nor signatures are in them."""
        try:
            yield
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise missing(key) from None
            if error.code in _FULL or error.response.status == _INSUFFICIENT_STORAGE:
                raise FailureError(
                    FailureCode.INSUFFICIENT_STORAGE,
                    f"The object store at {self._store.endpoint} has no room left.",
                    hint="Ask whoever runs the server to free some space, then start the job again.",
                ) from None
            raise self._refused(str(error.code), error.response.status) from None
        except ServerError as error:
            raise self._refused("no code", error.status_code) from None
        except (HTTPError, MinioException) as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            raise FailureError(
                FailureCode.SERVICE_UNAVAILABLE,
                f"The object store at {self._store.endpoint} does not answer ({type(cause).__name__}).",
                hint="Start the job again when the store is back.",
            ) from None

    def _refused(self, code: str, status: int) -> FailureError:
        return FailureError(
            FailureCode.SERVICE_UNAVAILABLE,
            f"The object store at {self._store.endpoint} refused a request to the bucket {self._store.bucket}: {code}.",
            hint="Check the bucket's name and region, and the credentials that runners are started with.",
            retryable=status >= _SERVER_ERROR,
        )


class S3Client(Minio):
    """minio-py, and two calls that it keeps to itself."""

    def __init__(self, store: S3Store, environment: Mapping[str, str]) -> None:
        url = urlsplit(store.endpoint)
        secure = url.scheme == "https"
        super().__init__(
            url.netloc,
            access_key=environment[ACCESS_KEY_VARIABLE],
            secret_key=environment[SECRET_KEY_VARIABLE],
            session_token=environment.get(SESSION_TOKEN_VARIABLE),
            secure=secure,
            region=store.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
                retries=urllib3.Retry(
                    total=6, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504], raise_on_status=False
                ),
                ssl_context=ssl.create_default_context(cafile=store.ca_file) if secure else None,
            ),
        )
        self._base_url.virtual_style_flag = not store.path_style
        self.bucket = store.bucket

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Put an object that must not be there."""
        headers: dict[str, str | list[str] | tuple[str]] = {
            "Content-Type": "application/octet-stream",
            "If-None-Match": "*",
        }
        self._put_object(self.bucket, key, data, headers)

    def read_whole(self, key: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self._execute("GET", self.bucket, key).data)


def _broke_off(error: Exception) -> bool:
    return isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.TimeoutError)
