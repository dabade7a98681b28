"""Many WebSockets that count what they are sent and look at nothing else."""

import base64
import os
import selectors
import socket
from dataclasses import dataclass, field
from time import monotonic

from http_client import Connection, request

_LONG = 8192
"""Bytes; previews are longer, and everything else is shorter."""
_BLOCK = 1 << 18
_SHORT_LENGTHS, _LENGTH_16 = 126, 126
_SWITCHING = b"HTTP/1.1 101"


@dataclass
class _Watcher:
    socket: socket.socket
    head: bytes = b""
    """The beginning of a frame whose length is not known yet."""
    missing: int = 0
    """Bytes until the next frame."""
    previews: int = field(default=0)

    def take(self, data: memoryview) -> None:
        """Go through what came, from frame to frame (RFC 6455, section 5.2)."""
        while data:
            if self.missing:
                skipped = min(self.missing, len(data))
                self.missing -= skipped
                data = data[skipped:]
                continue
            self.head += bytes(data[:1])
            data = data[1:]
            length = _length(self.head)
            if length is not None:
                self.previews += length > _LONG
                self.head, self.missing = b"", length


def _length(head: bytes) -> int | None:
    """Return the length of a frame from a server, None where that is still to come."""
    if len(head) < 2:  # noqa: PLR2004 - opcode and length
        return None
    short = head[1] & 0x7F
    if short < _SHORT_LENGTHS:
        return short
    end = 4 if short == _LENGTH_16 else 10
    return int.from_bytes(head[2:end]) if len(head) == end else None


class Watchers:
    """The sockets, all on one path.

    Args:
        port: Where the server listens.
        path: Of the WebSocket.
        count: How many sockets.
        token: Sent with the handshake.
        deflate: Whether compression is offered, as browsers do.
    """

    def __init__(self, port: int, path: str, count: int, token: str = "", *, deflate: bool) -> None:
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **({"Sec-WebSocket-Extensions": "permessage-deflate"} if deflate else {}),
        }
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(_BLOCK))
        self._watchers = []
        for _ in range(count):
            opened = Connection(port).socket
            opened.sendall(request("GET", path, headers))
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += opened.recv(1)
            if not answer.startswith(_SWITCHING):
                raise RuntimeError(f"answered {answer!r}")
            watcher = _Watcher(opened)
            self._watchers.append(watcher)
            self._selector.register(opened, selectors.EVENT_READ, watcher)

    @property
    def previews(self) -> int:
        """How many previews have begun to arrive, at all sockets together."""
        return sum(watcher.previews for watcher in self._watchers)

    def read(self, silence: float, until: int | None = None) -> int:
        """Read until nothing came for some seconds, or until there have been so many previews; return how many."""
        last = monotonic()
        while monotonic() - last < silence and (until is None or self.previews < until):
            for key, _ in self._selector.select(timeout=0.05):
                count = key.data.socket.recv_into(self._buffer)
                if not count:
                    raise ConnectionError("the server has closed a socket")
                key.data.take(self._buffer[:count])
                last = monotonic()
        return self.previews

    def close(self) -> None:
        """Hang up."""
        self._selector.close()
        for watcher in self._watchers:
            watcher.socket.close()
