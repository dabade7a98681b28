"""The clients of an S3 store: minio-py for control calls and signatures, with the calls that it keeps to itself."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.datatypes import ListMultipartUploadsResult, Object, Part

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0  # finishing an upload of thousands of parts takes a store its time
_IDLE_CONNECTIONS = 32
_PAGE = 1000
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class S3Connection:
    """Where a bucket is and how it is reached."""

    endpoint: str
    """URL without a path."""
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    path_style: bool = True
    """Whether the bucket is the first part of the path, or of the host's name."""
    ca_file: Path | None = None
    """Certificates to trust in place of the system's."""
    public_endpoint: str | None = None
    """URL by which clients reach the store; None: they don't."""

    def tls(self) -> ssl.SSLContext | None:
        """Return how the endpoint's certificate is checked; None without TLS."""
        if not self.endpoint.startswith("https"):
            return None
        return ssl.create_default_context(cafile=self.ca_file)


class S3Client(Minio):
    """minio-py, and the calls that an upload in parts consists of.

    The region is always given, or it would be asked for before the first signature.
    """

    def __init__(self, connection: S3Connection, *, endpoint: str | None = None, retries: bool = True) -> None:
        url = urlsplit(endpoint or connection.endpoint)
        super().__init__(
            url.netloc,
            access_key=connection.access_key,
            secret_key=connection.secret_key,
            session_token=connection.session_token,
            secure=url.scheme == "https",
            region=connection.region,
            http_client=_pool(connection.tls(), retries=retries),
        )
        self._base_url.virtual_style_flag = not connection.path_style
        self.bucket = connection.bucket

    def close(self) -> None:
        """Close idle connections."""
        self._http.clear()

    def read_whole(self, key: str) -> bytes:
        """Return an object's bytes."""
        return bytes(self._execute("GET", self.bucket, key).data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Put an object that must not be there."""
        self._put_object(self.bucket, key, data, {"Content-Type": _OCTETS, "If-None-Match": "*"})

    def first(self, prefix: str) -> Object | None:
        """Return the first object below a prefix."""
        return next(self._list_objects(self.bucket, prefix=prefix, max_keys=1), None)

    def create_upload(self, key: str) -> str:
        """Begin an upload in parts and return its id."""
        return self._create_multipart_upload(self.bucket, key, {"Content-Type": _OCTETS})

    def parts_between(self, key: str, upload_id: str, after: int, last: int) -> list[Part]:
        """Return the parts held with numbers in (after, last], 1-based and in order.

        `after` is 0 or a part that is held: MinIO lists nothing after one that is not.
        """
        found: list[Part] = []
        while after < last:
            page = self._list_parts(
                self.bucket,
                key,
                upload_id,
                max_parts=min(_PAGE, last - after),
                part_number_marker=str(after) if after else None,
            )
            found += page.parts
            if not page.is_truncated or not page.parts:
                break
            after = page.parts[-1].part_number
        return [part for part in found if part.part_number <= last]

    def finish_upload(self, key: str, upload_id: str, parts: list[Part]) -> str | None:
        """Put the parts together and return the object's etag; None where the store says 200 and then fails."""
        return self._complete_multipart_upload(self.bucket, key, upload_id, parts).etag

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts."""
        self._abort_multipart_upload(self.bucket, key, upload_id)

    def uploads_after(self, key: str | None) -> ListMultipartUploadsResult:
        """Return a page of the uploads under way whose keys come after one."""
        return self._list_multipart_uploads(self.bucket, key_marker=key, max_uploads=_PAGE)


def _pool(tls: ssl.SSLContext | None, *, retries: bool) -> urllib3.PoolManager:
    # Only what may be done twice is done again (urllib3 leaves POST alone), except that no connection was made.
    policy = (
        urllib3.Retry(total=4, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504], raise_on_status=False)
        if retries
        else urllib3.Retry(total=4, read=0, other=0, status=0, redirect=0, backoff_factor=0.2)
    )
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    return urllib3.PoolManager(maxsize=_IDLE_CONNECTIONS, timeout=timeout, retries=policy, ssl_context=tls)
