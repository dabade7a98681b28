"""A fake S3 store that drops the bytes of parts and keeps small objects in memory; prints its address and serves.

It knows what the server and minio-py ask of a store while volumes are uploaded: objects, their lists, and uploads in
parts. What it drops has the same etag whatever it was. It checks no signature.
"""

import asyncio
import itertools
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import httptools
import uvloop

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MODIFIED = "2026-03-01T12:00:00.000Z"
LAST_MODIFIED = "Sun, 01 Mar 2026 12:00:00 GMT"
ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'
BUFFER = 1 << 18
Answer = tuple[int, bytes]


class Bucket:
    """Small objects by key, and the lengths of the parts of each upload."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, int]] = {}
        self._ids = itertools.count(1)

    def answer(self, method: str, key: str, query: dict[str, str], body: bytes, length: int) -> Answer:
        """Return status and body; `length` is that of the request's body, which is dropped where it is a part."""
        if "uploadId" in query or "uploads" in query:
            return self._upload(method, key, query, length)
        if not key:
            return self._list(query)
        if method == "PUT":
            self.objects[key] = body
        elif method == "DELETE":
            self.objects.pop(key, None)
            return 204, b""
        elif key not in self.objects:
            return _missing("NoSuchKey")
        else:
            return 200, self.objects[key]
        return 200, b""

    def _upload(self, method: str, key: str, query: dict[str, str], length: int) -> Answer:
        if "uploads" in query:
            return 200, self._list_none() if method == "GET" else self._begin(key)
        upload = query["uploadId"]
        if upload not in self.uploads:
            return _missing("NoSuchUpload")
        if method == "PUT":
            self.uploads[upload][int(query["partNumber"])] = length
            return 200, b""
        if method == "GET":
            return 200, self._parts(self.uploads[upload], query)
        del self.uploads[upload]
        return (204, b"") if method == "DELETE" else (200, self._completed(key))

    def _list_none(self) -> bytes:
        """Who lists what is open wants to clear up, and there is nothing to clear up."""
        return _xml("ListMultipartUploadsResult", "<IsTruncated>false</IsTruncated>")

    def _begin(self, key: str) -> bytes:
        upload = f"upload-{next(self._ids)}"
        self.uploads[upload] = {}
        fields = f"<Bucket>bucket</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        return _xml("InitiateMultipartUploadResult", fields)

    def _completed(self, key: str) -> bytes:
        fields = f"<Location>-</Location><Bucket>bucket</Bucket><Key>{escape(key)}</Key><ETag>{escape(ETAG)}</ETag>"
        return _xml("CompleteMultipartUploadResult", fields)

    def _parts(self, held: dict[int, int], query: dict[str, str]) -> bytes:
        after, most = int(query.get("part-number-marker") or 0), int(query.get("max-parts") or 1000)
        numbers = sorted(number for number in held if number > after)
        parts = [
            f"<Part><PartNumber>{number}</PartNumber><LastModified>{MODIFIED}</LastModified>"
            f"<ETag>{escape(ETAG)}</ETag><Size>{held[number]}</Size></Part>"
            for number in numbers[:most]
        ]
        more = "true" if len(numbers) > most else "false"
        return _xml("ListPartsResult", f"<IsTruncated>{more}</IsTruncated>{''.join(parts)}")

    def _list(self, query: dict[str, str]) -> Answer:
        prefix = query.get("prefix", "")
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{MODIFIED}</LastModified>"
            f"<ETag>{escape(ETAG)}</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return 200, _xml("ListBucketResult", f"<Name>bucket</Name><IsTruncated>false</IsTruncated>{found}")


class Connection(asyncio.BufferedProtocol):
    """One connection to the store."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._received = memoryview(bytearray(BUFFER))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's name
        """Return where to put what comes."""
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        self._parser.feed_data(self._received[:nbytes])

    def on_url(self, url: bytes) -> None:
        """Note what the request is about."""
        parts = urlsplit(url.decode())
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        self._key = key
        self._query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self._body, self._length, self._is_part = bytearray(), 0, "partNumber" in self._query

    def on_header(self, name: bytes, value: bytes) -> None:
        """Let a client send its body that asks first."""
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, and drop it where it is a part's."""
        self._length += len(body)
        if not self._is_part:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        method = self._parser.get_method().decode()
        status, body = self._bucket.answer(method, self._key, self._query, bytes(self._body), self._length)
        head = (
            f"HTTP/1.1 {status} X\r\nETag: {ETAG}\r\nLast-Modified: {LAST_MODIFIED}\r\n"
            f"Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if method == "HEAD" else body))


def _xml(name: str, fields: str) -> bytes:
    return f'<?xml version="1.0"?><{name} xmlns="{NAMESPACE}">{fields}</{name}>'.encode()


def _missing(code: str) -> Answer:
    return 404, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>None.</Message></Error>'.encode()


async def main() -> None:
    """Serves until it is stopped."""
    bucket = Bucket()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(bucket), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
