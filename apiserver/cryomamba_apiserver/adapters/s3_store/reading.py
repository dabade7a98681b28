"""An object of an S3 store as a file: one download while it is read on, another one after a jump."""

import io
from typing import TYPE_CHECKING

from minio.error import MinioException
from urllib3.exceptions import HTTPError

from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_apiserver.adapters.s3_store.refusals import Place, interrupted
from cryomamba_apiserver.ports.object_store import ObjectExistsError, ObjectMissingError, ObjectStat

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

BUFFER = 1 << 20
"""Bytes that are read ahead; a jump within them costs nothing."""
_ATTEMPTS = 4


class ObjectFile(io.RawIOBase):
    """Reads one object, as it was when it was opened; to be wrapped in a buffer of `BUFFER` bytes."""

    def __init__(self, client: S3Client, place: Place, stat: ObjectStat) -> None:
        super().__init__()
        self._client = client
        self._place = place
        self._stat = stat
        self._position = 0
        self._download: BaseHTTPResponse | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; nothing is asked of the store before the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stat.size}[whence]
        target = base + offset
        if target < 0:
            raise ValueError(f"cannot seek to {target}")
        if target != self._position:
            self._hang_up()
            self._position = target
        return target

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override] # what a BufferedReader gives
        """Read what fits; raise StoreUnavailableError, or ObjectMissingError where the object has changed."""
        wanted = min(len(buffer), self._stat.size - self._position)
        if wanted <= 0:
            return 0
        for attempt in range(_ATTEMPTS):
            try:
                with self._place.errors_about(self._stat.key):
                    data = self._read(wanted, last=attempt == _ATTEMPTS - 1)
            except ObjectExistsError:  # the precondition that it is still the same object
                raise ObjectMissingError(f"{self._stat.key} changed while it was read") from None
            if data:
                break
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let the connection go."""
        self._hang_up()
        super().close()

    def _read(self, wanted: int, *, last: bool) -> bytes:
        """Return up to `wanted` bytes; none where the download broke off and may be taken up again."""
        try:
            if self._download is None:
                self._download = self._client.get_object(
                    self._client.bucket,
                    self._stat.key,
                    offset=self._position,
                    request_headers={"If-Match": f'"{self._stat.etag}"'},
                )
            data = self._download.read(wanted)
        except (HTTPError, MinioException) as error:
            self._hang_up()
            if last or not interrupted(error):
                raise
            return b""
        if not data:  # the connection ended before the object did
            self._hang_up()
            if last:
                raise HTTPError("the download ended early")
        return data

    def _hang_up(self) -> None:
        if self._download is not None:
            # Closed rather than given back: what was not read of it would have to be read first.
            self._download.close()
            self._download.release_conn()
            self._download = None
