"""minio-py as a runner needs it: patient, with credentials that may change, and two calls that it keeps to itself."""

import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import Provider
from minio.error import S3Error
from urllib3.response import BaseHTTPResponse

from cryomamba_crds.task import S3Store
from cryomamba_inference.storage.patience import Patience, PatientRetry
from cryomamba_inference.storage.refusals import may_be_renewed

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
RENEWAL_SECONDS = 120.0
"""In which kubelet brings a Secret that was changed to the pods that mount it."""
_LOOK_SECONDS = 0.5
_SERVER_ERROR = 500


class S3Client(Minio):
    """A client of one bucket.

    Args:
        store: Which.
        provider: Asked for credentials before each request.
        patience: With a store that does not answer.
        renewal_seconds: How long new credentials are waited for where the old ones have expired.
    """

    def __init__(
        self, store: S3Store, provider: Provider, patience: Patience, renewal_seconds: float = RENEWAL_SECONDS
    ) -> None:
        url = urlsplit(store.endpoint)
        secure = url.scheme == "https"
        super().__init__(
            url.netloc,
            credentials=provider,
            secure=secure,
            region=store.region,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
                retries=PatientRetry(patience),
                ssl_context=ssl.create_default_context(cafile=store.ca_file) if secure else None,
            ),
        )
        self._base_url.virtual_style_flag = not store.path_style
        self.bucket = store.bucket
        self.patience = patience
        self._credentials = provider
        self._renewal_seconds = renewal_seconds

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

    def _url_open(self, *args: Any, **options: Any) -> BaseHTTPResponse:  # noqa: ANN401 - minio's own
        """Send a request; where its credentials were renewed meanwhile, send it with the new ones."""
        while True:
            used = self._credentials.retrieve()
            own = {**options, "headers": dict(options.get("headers") or {})}  # signing leaves the old token in them
            try:
                answer = super()._url_open(*args, **own)
            except S3Error as error:
                if error.response.status < _SERVER_ERROR:
                    self.patience.answered()
                if not self._renewed(used, error):
                    raise
            else:
                self.patience.answered()
                return answer

    def _renewed(self, used: Credentials, error: S3Error) -> bool:
        """Return whether there are other credentials than those that were refused."""
        deadline = time.monotonic() + (self._renewal_seconds if may_be_renewed(error, used) else 0)
        while (now := self._credentials.retrieve()) == used and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return now != used
