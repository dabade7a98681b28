"""Uploads to a store that drops what it gets, against FastAPI's `UploadFile` with minio-py (run with `python -P`).

96 parts of 16 MiB over 4 connections, each side in a process of its own, in turn. Prints lines
``name ours peer ratio``:

- ``upload-mib-a-second``: `PUT /v1/uploads/{id}/part/{n}` of the server as its users start it, with its tokens,
  limits and logs; the peer is a route that takes a form and calls `put_object`. The ratio is the median of the rounds'.
- ``upload-memory-growth-mb``: the most that the server has held at any time more than before; the peer is the bound, 8.
- ``upload-cpu-seconds-a-gib``: CPU time of the server, in user and kernel; the peer is the bound, 1.1.
"""

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

# `-P` keeps this folder, whose names are those of modules of Python, out of the path.
sys.path.append(str(Path(__file__).parent / "shared"))

from http_client import Connection
from servers import BENCHMARKS, Server, cryomamba, medians, plain_uvicorn, started, token

PARTS = 96
PART_MIB = 16
CONNECTIONS = 4
MEMORY_BOUND_MB = 8
CPU_BOUND = 1.1
PAYLOAD = os.urandom(1 << 20)
CREATED, OK, NO_CONTENT = 201, 200, 204
KEY = "benchmark-key"


class Uploader:
    """Sends parts to our server, an upload a round."""

    def __init__(self, server: Server, credentials: str) -> None:
        self.server = server
        self._headers = {"Authorization": f"Bearer {credentials}"}
        self.cpu_seconds: list[float] = []

    def rate(self) -> float:
        """Upload all parts; return MiB/s."""
        upload = self._begin(PARTS)
        before = self.server.cpu_seconds()
        rate = parallel(self.server, lambda connection, number: self._put(connection, upload, number))
        self.cpu_seconds.append(self.server.cpu_seconds() - before)
        self._end(upload)
        return rate

    def warm_up(self) -> None:
        """Upload one part."""
        upload = self._begin(1)
        self._put(connection := Connection(self.server.port), upload, 0)
        connection.close()
        self._end(upload)

    def _begin(self, parts: int) -> str:
        total = parts * PART_MIB << 20
        body = json.dumps({"filename": "volume.mrc", "total_size": total, "chunk_size": PART_MIB << 20}).encode()
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
        connection = Connection(self.server.port)
        connection.send("POST", "/v1/uploads/init", headers)
        connection.socket.sendall(body)
        answer = expect(connection, CREATED)
        connection.close()
        return str(json.loads(answer)["upload_id"])

    def _put(self, connection: Connection, upload: str, number: int) -> None:
        headers = {**self._headers, "Content-Length": str(PART_MIB << 20)}
        connection.send("PUT", f"/v1/uploads/{upload}/part/{number}", headers)
        for _ in range(PART_MIB):
            connection.socket.sendall(PAYLOAD)
        expect(connection, OK)

    def _end(self, upload: str) -> None:
        connection = Connection(self.server.port)
        connection.send("DELETE", f"/v1/uploads/{upload}", self._headers)
        expect(connection, NO_CONTENT)
        connection.close()


def post_form(connection: Connection, number: int) -> None:
    """Send a part to the peer."""
    before = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    after = b"\r\n--B--\r\n"
    length = len(before) + (PART_MIB << 20) + len(after)
    headers = {"Content-Type": "multipart/form-data; boundary=B", "Content-Length": str(length)}
    connection.send("POST", f"/upload/{number}", headers)
    connection.socket.sendall(before)
    for _ in range(PART_MIB):
        connection.socket.sendall(PAYLOAD)
    connection.socket.sendall(after)
    expect(connection, OK)


def expect(connection: Connection, status: int) -> bytes:
    """Return the body of an answer that must have this status."""
    got, body, _ = connection.answer()
    if got != status:
        raise RuntimeError(f"answered {got}: {body.decode()}")
    return body


def parallel(server: Server, send: Callable[[Connection, int], None]) -> float:
    """Send all parts over the connections; return MiB/s."""

    def every_fourth(first: int) -> None:
        connection = Connection(server.port)
        for number in range(first, PARTS, CONNECTIONS):
            send(connection, number)
        connection.close()

    start = perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(every_fourth, range(CONNECTIONS)))
    return PARTS * PART_MIB / (perf_counter() - start)


def main() -> None:
    """Prints the lines."""
    with tempfile.TemporaryDirectory() as folder, started([BENCHMARKS / "fakes" / "s3_sink.py"]) as sink:
        store = {"s3_endpoint": sink.url, "s3_bucket": "bucket", "s3_access_key": KEY, "s3_secret_key": KEY}
        data_dir = Path(folder)
        with (
            cryomamba(data_dir, **store) as server,
            plain_uvicorn("upload_form:app", SINK=f"127.0.0.1:{sink.port}", SINK_KEY=KEY) as peer,
        ):
            uploader = Uploader(server, token(data_dir))
            uploader.warm_up()
            post_form(connection := Connection(peer.port), 0)
            connection.close()
            before = server.memory()
            with server.peak_memory() as peak:
                mine, theirs, ratio = medians(uploader.rate, lambda: parallel(peer, post_form))
            growth = (peak[0] - before) / 1e6
    cpu = statistics.median(uploader.cpu_seconds) / (PARTS * PART_MIB / 1024)
    print(f"upload-mib-a-second {mine:.0f} {theirs:.0f} {ratio:.2f}")
    print(f"upload-memory-growth-mb {growth:.1f} {MEMORY_BOUND_MB} {growth / MEMORY_BOUND_MB:.2f}")
    print(f"upload-cpu-seconds-a-gib {cpu:.2f} {CPU_BOUND} {cpu / CPU_BOUND:.2f}")


if __name__ == "__main__":
    main()
