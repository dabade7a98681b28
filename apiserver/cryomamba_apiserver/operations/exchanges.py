"""One request, or one WebSocket, as it is watched on its way in and out."""

import secrets
from collections.abc import Callable

from starlette.types import Message, Receive, Send

from cryomamba_apiserver.operations.envelopes import Headers

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
_LONGEST_ID = 64
_JSON = b"application/json"
_NO_STORE = (b"cache-control", b"no-store")


def new_request_id() -> str:
    """Return an id for a request that brings none."""
    return secrets.token_hex(8)


def request_id_of(headers: Headers) -> str:
    """Return the id that a client gave its request, if that is short and plain, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and 0 < len(value) <= _LONGEST_ID and not value.translate(None, _PLAIN):
            return value.decode()
    return new_request_id()


def response_headers(own: Headers, identity: str, of_all: Headers) -> Headers:
    """Return a response's headers with those that all have; JSON that somebody may see is nothing for a cache."""
    json = kept = False
    for name, value in own:
        if name == b"content-type":
            json = value.startswith(_JSON)
        elif name == b"cache-control":
            kept = True
    headers = [*own, (b"x-request-id", identity.encode()), *of_all]
    if json and not kept:
        headers.append(_NO_STORE)
    return headers


class HttpExchange:
    """Counts what a request and its response have; `receive` and `send` go around an app's."""

    __slots__ = ("_headers", "_receive", "_send", "complete", "gone", "id", "received", "sent", "status")

    def __init__(self, receive: Receive, send: Send, identity: str, headers: Headers) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self.id = identity
        self.status = 0
        """Of the response; 0 until there is one."""
        self.received = 0
        self.sent = 0
        self.complete = False
        self.gone = False
        """Whether the client left before the response was complete."""

    async def receive(self) -> Message:
        """Return the next piece of the request's body."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        elif not self.complete:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        """Send a piece of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = response_headers(message.get("headers", ()), self.id, self._headers)
        else:
            self.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)


class SocketExchange:
    """Watches a WebSocket."""

    __slots__ = ("_receive", "_send", "accepted", "code", "id", "sent")

    def __init__(self, receive: Receive, send: Send, identity: str) -> None:
        self._receive = receive
        self._send = send
        self.id = identity
        self.accepted = False
        self.code = 0
        """With which it was closed; 0 until it is."""
        self.sent = 0
        """Bytes of messages; of those that were written as frames, the frames' few bytes too."""

    def counting(self, write: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        """Return what writes whole frames past `send`, and counts those that were taken."""

        def write_and_count(frame: bytes) -> bool:
            written = write(frame)
            if written:
                self.sent += len(frame)
            return written

        return write_and_count

    async def receive(self) -> Message:
        """Return what the client sent."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and not self.code:
            self.code = message.get("code") or 1005
        return message

    async def send(self, message: Message) -> None:
        """Send something to the client."""
        kind = message["type"]
        if kind == "websocket.send":
            self.sent += len(message.get("text") or message.get("bytes") or b"")
        elif kind == "websocket.accept":
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            self.accepted = True
        elif kind == "websocket.close" and not self.code:
            self.code = message.get("code", 1000)
        await self._send(message)
