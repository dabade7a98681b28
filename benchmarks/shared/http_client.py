"""HTTP/1.1 over raw sockets: costs next to nothing, so that what is measured is the server."""

import re
import socket
from collections.abc import Mapping

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_BLOCK = 1 << 20


class Connection:
    """A connection that is kept alive; one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(_BLOCK))

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> None:
        """Send a request's line and headers."""
        self.socket.sendall(request(method, path, headers))

    def answer(self, *, keep: bool = True) -> tuple[int, bytes, int]:
        """Return an answer's status, its body, which is empty unless it is to be kept, and how long that is."""
        head = b""
        while b"\r\n\r\n" not in head:
            received = self.socket.recv(1 << 16)
            if not received:
                raise ConnectionError(f"closed after {head!r}")
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        length = int(found.group(1)) if found else 0
        missing, kept = length - len(body), [body] if keep else []
        while missing > 0:
            count = self.socket.recv_into(self._buffer, min(missing, _BLOCK))
            if not count:
                raise ConnectionError(f"closed {missing} bytes before the end")
            missing -= count
            if keep:
                kept.append(bytes(self._buffer[:count]))
        return int(head.split(b" ", 2)[1]), b"".join(kept), length


def request(method: str, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a request's line and headers."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{name}: {text}" for name, text in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()
