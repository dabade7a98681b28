"""The middleware that gives a request its id, its line in the log and its count, and every error an answer."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from cryomamba_apiserver.jobs.mailbox import FRAMES
from cryomamba_apiserver.operations.envelopes import Headers, envelope, envelope_headers
from cryomamba_apiserver.operations.exchanges import HttpExchange, SocketExchange, request_id_of
from cryomamba_apiserver.operations.logs import request_id
from cryomamba_apiserver.operations.metrics import UNMATCHED, Metrics
from cryomamba_crds.failures import Failure, FailureCode

_LONGEST_PATH = 200
_CLIENT_GONE = 499  # as nginx has it: nobody was there to be answered
_RETRY_SECONDS = b"5"

_log = logging.getLogger(__name__)
_access = logging.getLogger("cryomamba_apiserver.access")


@dataclass(frozen=True)
class Cut:
    """Why the protocol ended a request under the app's feet; the scope's state has it as `cut`."""

    status: int
    reason: str


class Observation:
    """Wraps an app.

    Args:
        app: What is wrapped; no error leaves it that this class does not answer.
        metrics: Where requests are counted.
        headers: What every HTTP response carries.
        max_query_parameters: More are refused; they are not even parsed.
        clock: Seconds from some time on.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        headers: Headers,
        max_query_parameters: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = headers
        self._max_query_parameters = max_query_parameters
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket from its handshake to its end."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock()
        exchange = HttpExchange(receive, send, request_id_of(scope["headers"]), self._headers)
        request_id.set(exchange.id)
        scope.setdefault("state", {})["request_id"] = exchange.id
        putting = scope["method"] == "PUT"  # the parts of uploads, and nothing else
        if putting:
            self._metrics.uploads.inc()
        try:
            if self._too_many_parameters(scope):
                await _answer(exchange, 400, _too_many(self._max_query_parameters))
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The server ends, and this request took longer than it waits; nobody above needs to hear of it.
            if not exchange.status:
                await _answer(exchange, 503, _ENDING, [(b"retry-after", _RETRY_SECONDS)])
        except Exception as error:  # noqa: BLE001 - the last place where an error can become an answer
            _log.error("unexpected error", exc_info=error)
            if not exchange.status:
                await _answer(exchange, 500, _unexpected(exchange.id))
        finally:
            if putting:
                self._metrics.uploads.dec()
            self._record(scope, exchange, self._clock() - began)

    def _too_many_parameters(self, scope: Scope) -> bool:
        return int(scope["query_string"].count(b"&")) >= self._max_query_parameters

    def _record(self, scope: Scope, exchange: HttpExchange, seconds: float) -> None:
        template = _template(scope)
        cut: Cut | None = scope["state"].get("cut") if "state" in scope else None
        status = cut.status if cut else _CLIENT_GONE if exchange.gone else exchange.status
        self._metrics.answered(scope["method"], template, status, seconds, exchange.received, exchange.sent)
        if _access.isEnabledFor(logging.INFO):
            fields = _fields(scope, template, status, seconds)
            fields["method"] = scope["method"]
            fields["received"] = exchange.received
            fields["sent"] = exchange.sent
            if cut:
                fields["reason"] = cut.reason
            _access.info("request", extra=fields)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock()
        exchange = SocketExchange(receive, send, request_id_of(scope["headers"]))
        request_id.set(exchange.id)
        scope.setdefault("state", {})["request_id"] = exchange.id
        extensions = scope.get("extensions") or {}
        if FRAMES in extensions:
            write = exchange.counting(extensions[FRAMES]["write"])
            scope["extensions"] = {**extensions, FRAMES: {"write": write}}
        self._metrics.sockets.inc()
        try:
            if self._too_many_parameters(scope):
                await exchange.send({"type": "websocket.close", "code": 1008})
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except (WebSocketDisconnect, OSError):
            pass  # the client has gone, which is how WebSockets end
        except asyncio.CancelledError:
            pass  # the server ends, and its protocol has closed the socket
        except Exception as error:  # noqa: BLE001 - the last place where an error can be told
            _log.error("unexpected error", exc_info=error)
            if not exchange.code:
                await exchange.send({"type": "websocket.close", "code": 1011, "reason": f"request {exchange.id}"})
        finally:
            self._metrics.sockets.dec()
            self._metrics.told(exchange.sent)
            fields = _fields(scope, _template(scope), exchange.code, self._clock() - began)
            fields["sent"] = exchange.sent
            _access.info("websocket", extra=fields)


async def _answer(exchange: HttpExchange, status: int, failure: Failure, headers: Headers | None = None) -> None:
    body = envelope(failure)
    headers = envelope_headers(body) + (headers or [])
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": body})


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return str(route.path) if route else UNMATCHED


def _fields(scope: Scope, template: str, status: int, seconds: float) -> dict[str, Any]:
    caller = scope.get("state", {}).get("caller")
    client = scope.get("client")
    # Paths without their query: queries carry tokens and signatures.
    path = scope.get("raw_path") or b""
    return {
        "path": template if template != UNMATCHED else path[:_LONGEST_PATH].decode("ascii", "backslashreplace"),
        "status": status,
        "milliseconds": round(seconds * 1000, 2),
        "subject": getattr(caller, "subject", None),
        "client": client[0] if client else None,
    }


_ENDING = Failure(
    code=FailureCode.SERVICE_UNAVAILABLE,
    message="The server is being stopped.",
    hint="Send the request again in a moment; what was acknowledged is kept.",
    retryable=True,
)


def _too_many(most: int) -> Failure:
    return Failure(
        code=FailureCode.VALIDATION_ERROR,
        message=f"The query has more than {most} parameters.",
        hint="Send those that /openapi.json describes.",
        retryable=False,
    )


def _unexpected(identity: str) -> Failure:
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message="The server met an error that it did not expect.",
        hint="Try again; if it happens again, the server's log has the details under the request's id.",
        retryable=True,
        details={"request_id": identity},
    )
