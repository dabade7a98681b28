"""HTTP/1.1 by uvicorn and httptools, with the bounds that those lack: time for headers and bodies, length of headers.

Where the protocol itself must answer, the answer is the API's envelope.
"""

import asyncio
import fcntl
import logging
import sys
import termios
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cryomamba_apiserver.limits.admission import address_of
from cryomamba_apiserver.operations import bounds as refusals
from cryomamba_apiserver.operations.bounds import Bounds, Refusal
from cryomamba_apiserver.operations.crowding import too_many
from cryomamba_apiserver.operations.envelopes import Headers
from cryomamba_apiserver.operations.exchanges import new_request_id
from cryomamba_apiserver.operations.metrics import Metrics
from cryomamba_apiserver.operations.observation import Cut

_access = logging.getLogger("cryomamba_apiserver.access")

_LINGER_SECONDS = 1.0
_MOST_TURNED_AWAY = 64
"""Connections that may linger after they were refused for being too many; one more is closed without an answer."""


class _Phase(Enum):
    IDLE = "between two requests"
    HEAD = "in a request's line or headers"
    BODY = "in a request's body"


class _RefusedError(Exception):
    """Raised in a callback of the parser, which hands on that there was an error and not which."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by uvicorn, so what it needs is in the class; see `bounded_protocol`."""

    bounds: ClassVar[Bounds]
    headers_of_all: ClassVar[Headers]
    metrics: ClassVar[Metrics]
    turned_away: ClassVar[set[asyncio.Protocol]]
    """Connections that are not served, and linger so that their clients see why."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._phase = _Phase.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._refusal: Refusal | None = None
        self._leaving = False
        self._unread = 0
        """Bytes that the client had not taken when it was last looked at."""
        self.peer = ""
        """Whose connection it is, for the bound on an address."""
        self._head_size = 0
        """Bytes of target and headers so far, as the parser has told them."""
        self._unfinished = 0
        """Bytes since the request began, which the parser may be holding."""
        self._received = 0
        """Bytes of the body since the timer began."""
        self._held_up = False
        """Whether it was us who did not read, at some time since the timer began."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take a connection, unless there are as many as there may be."""
        super().connection_made(transport)
        self.peer = address_of({"client": self.client})
        if crowd := too_many(self.connections, self.peer, self.client, self.bounds):
            self._turn_away(crowd)
        else:
            self._start(self.bounds.header_seconds, self._head_is_late)

    @property
    def idle_until(self) -> float | None:
        """When, by the event loop's clock, it is closed for being idle between two requests; None while it is not."""
        waiting = self.timeout_keep_alive_task if self._phase is _Phase.IDLE else None
        return None if waiting is None else waiting.when()

    def give_way(self) -> None:
        """Close an idle connection and count it no longer."""
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop()
        self.turned_away.discard(self)
        self.resume_writing()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, and see to the time that the rest may take."""
        if self._leaving:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self._stop()
                self.handle_websocket_upgrade()
                return
        except httptools.HttpParserError:
            self._refuse(self._refusal or refusals.MALFORMED)
            return
        self._watch(len(data))

    def _watch(self, size: int) -> None:
        if self._phase is _Phase.HEAD:
            self._unfinished += size
            if self._unfinished > self.bounds.max_headers:
                self._refuse(refusals.long_headers(self.bounds))
            elif self._timer is None:
                self._start(self.bounds.header_seconds, self._head_is_late)
        elif self._phase is _Phase.BODY:
            self._received += size
            if self._timer is None:
                self._watch_body()

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._phase = _Phase.HEAD
        self._head_size = self._unfinished = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        super().on_url(url)
        self._head_size += len(url)
        if self._head_size > self.bounds.max_request_line:
            self._refusal = refusals.long_target(self.bounds)
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._head_size += len(name) + len(value)
        if self._head_size > self.bounds.max_headers:
            self._refusal = refusals.long_headers(self.bounds)
            raise _RefusedError

    def on_headers_complete(self) -> None:
        """Hand the request to the app."""
        self._stop()
        self._unset_keepalive_if_required()
        super().on_headers_complete()
        self._phase = _Phase.BODY
        self._received = 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        cycle: Any = self.cycle
        if cycle is not None and not cycle.body:
            # A piece that comes alone, as those of long bodies do, is handed on as it is: uvicorn adds pieces to a
            # bytearray and copies that into bytes, while nothing is copied where both are bytes.
            cycle.body = b""
        elif cycle is not None and isinstance(cycle.body, bytes):
            cycle.body = bytearray(cycle.body)
        super().on_body(body)
        if self.flow.read_paused:
            self._held_up = True

    def on_message_complete(self) -> None:
        """Note that a request has been read."""
        super().on_message_complete()
        self._stop()
        self._phase = _Phase.IDLE
        if self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing():
            # Answered before its body was over; uvicorn's timer has been ended by the body.
            self._unset_keepalive_if_required()
            self._keep_alive()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for a limited time for the rest of a body that nobody wants."""
        super().on_response_complete()
        if self._phase is _Phase.BODY and not self.pipeline:
            self._start(self.bounds.body_seconds, self.transport.close)

    def pause_writing(self) -> None:
        """Note that the client does not read what it is sent."""
        super().pause_writing()
        if self._send_timer is None:
            self._watch_reader()

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _keep_alive(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _start(self, seconds: float, then: Callable[[], object]) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, then)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_body(self) -> None:
        self._received = 0
        self._held_up = self.flow.read_paused or self.cycle.waiting_for_100_continue
        self._start(self.bounds.body_seconds, self._judge_body)

    def _judge_body(self) -> None:
        enough = self._received >= self.bounds.body_rate * self.bounds.body_seconds
        if enough or self._held_up or self.cycle.waiting_for_100_continue:
            self._watch_body()
        else:
            self._refuse(refusals.late_body(self.bounds))

    def _head_is_late(self) -> None:
        if self._phase is _Phase.IDLE:
            self.transport.close()  # nothing came, so nothing is answered
        else:
            self._refuse(refusals.late_headers(self.bounds))

    def _watch_reader(self) -> None:
        self._unread = self._not_taken()
        self._send_timer = self.loop.call_later(self.bounds.send_seconds, self._judge_reader)

    def _judge_reader(self) -> None:
        """Cut a reader off that is slower than it may be; nothing more is written while it is being watched."""
        taken = self._unread - self._not_taken()
        if taken > 0 and taken >= self.bounds.body_rate * self.bounds.send_seconds:
            self._watch_reader()
        else:
            self._cut_reader()

    def _not_taken(self) -> int:
        """Return how many bytes the client has yet to take, those that the kernel holds included."""
        size = self.transport.get_write_buffer_size()
        connection = self.transport.get_extra_info("socket")
        # The kernel may hold megabytes, and asks for more only when a good part of them has gone.
        return size + int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def _cut_reader(self) -> None:
        if self.cycle is not None:
            self.cycle.scope["state"]["cut"] = Cut(408, "The response was not read.")
        self.transport.abort()

    def _turn_away(self, refusal: Refusal) -> None:
        """Refuse a connection that is one too many; it takes no room from those that are served."""
        self.connections.discard(self)
        if len(self.turned_away) >= _MOST_TURNED_AWAY:
            self._leaving = True
            self._record(refusal, new_request_id())
            self.transport.abort()
            return
        self.turned_away.add(self)
        self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in place of the app, or just end the connection where the app has begun to."""
        self._stop()
        self._unset_keepalive_if_required()
        self._leaving = True
        cycle, identity = self.cycle, new_request_id()
        answering = cycle is not None and not cycle.response_complete
        if answering and not self.pipeline and not cycle.more_body:
            cycle.keep_alive = False  # the request was fine; what came after it was not
            return
        if answering:
            identity = cycle.scope["state"].get("request_id", identity)
            cycle.scope["state"]["cut"] = Cut(refusal.status, refusal.message)
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            self._record(refusal, identity)
        if self.pipeline or (answering and cycle.response_started):
            self.transport.close()
            return
        self.transport.write(refusal.response(identity, self.headers_of_all))
        # A connection that is closed with bytes unread is reset, and the client would not see the answer.
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start(_LINGER_SECONDS, self.transport.close)

    def _record(self, refusal: Refusal, identity: str) -> None:
        self.metrics.refused(refusal.status)
        fields = {
            "status": refusal.status,
            "reason": refusal.message,
            "client": self.client[0] if self.client else None,
            "request_id": identity,
        }
        _access.info("request refused", extra=fields)


def bounded_protocol(bounds: Bounds, headers: Headers, metrics: Metrics) -> type[BoundedProtocol]:
    """Return the class of which uvicorn makes one for each connection.

    Args:
        bounds: What a client may do.
        headers: What every response carries.
        metrics: Where requests are counted that never reach the app.
    """
    of_all = {"bounds": bounds, "headers_of_all": headers, "metrics": metrics, "turned_away": set()}
    return type("Protocol", (BoundedProtocol,), of_all)
