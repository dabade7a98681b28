"""The bytes of parts and downloads, between a request and the store, without holding them."""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta

import aiohttp
from yarl import URL

from cryomamba_apiserver.adapters.bodies import ExactBody
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_apiserver.adapters.s3_store.refusals import Place, code_of
from cryomamba_apiserver.ports.object_store import ObjectMissingError, Part

_CONNECTIONS = 256
"""At a time; more transfers wait. Slow clients hold theirs for long, so it is far above what keeps a network busy."""
_READ_BUFFER = 1 << 17
_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
_SIGNATURE = timedelta(minutes=15)
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_OK = 200


class Transfers:
    """Puts parts and gets ranges by URLs signed here; nothing is tried twice, since a request's body comes once."""

    def __init__(self, client: S3Client, place: Place, tls: ssl.SSLContext | None) -> None:
        self._client = client
        self._place = place
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def upload_part(self, key: str, upload_id: str, number: int, size: int, body: AsyncIterator[bytes]) -> Part:
        """Put part `number` (0-based) as it comes.

        Raises:
            ValueError: the body is not `size` bytes long.
            ObjectMissingError, StorageFullError, StoreUnavailableError: as the port says.
        """
        url = self._sign("PUT", key, {"partNumber": str(number + 1), "uploadId": upload_id})
        exact = ExactBody(body, size)
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        try:
            async with self._connections().put(url, data=exact.chunks(), headers=headers) as answer:
                if answer.status == _OK:
                    return Part(etag=answer.headers["ETag"].strip('"'), size=size)
                if exact.error is None:
                    raise self._place.refusal(code_of(await answer.read()), answer.status, f"{key}?{upload_id}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if exact.error is None:
                raise self._failure(error) from None
        raise exact.error

    async def download(self, key: str, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes [start, stop), of which there is at least one, as the port says."""
        url = self._sign("GET", key, {})
        position = start
        try:
            async with self._connections().get(url, headers={"Range": f"bytes={start}-{stop - 1}"}) as answer:
                if answer.status == _RANGE_NOT_SATISFIABLE:
                    raise ObjectMissingError(f"{key} became shorter while it was read")
                if answer.status != _PARTIAL_CONTENT:
                    raise self._place.refusal(code_of(await answer.read()), answer.status, key)
                async for chunk in answer.content.iter_any():
                    position += len(chunk)
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._failure(error) from None
        if position < stop:
            raise ObjectMissingError(f"{key} became shorter while it was read")

    def _sign(self, method: str, key: str, query: dict[str, str | list[str] | tuple[str]]) -> URL:
        signed = self._client.get_presigned_url(
            method, self._client.bucket, key, expires=_SIGNATURE, extra_query_params=query
        )
        return URL(signed, encoded=True)

    def _connections(self) -> aiohttp.ClientSession:
        # Made when first used: it belongs to the event loop that runs then.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=self._tls or True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS),
                read_bufsize=_READ_BUFFER,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _failure(self, error: BaseException) -> Exception:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
            return self._place.untrusted()
        return self._place.silence(error)
