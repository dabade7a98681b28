"""WebSockets by uvicorn and websockets, with handshakes that are refused in the API's envelope."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.http11 import Response
from websockets.server import ServerProtocol

from cryomamba_apiserver.adapters.websocket_protocol import FrameWritingProtocol
from cryomamba_apiserver.limits.admission import address_of
from cryomamba_apiserver.operations.envelopes import Headers, envelope, envelope_headers
from cryomamba_apiserver.operations.exchanges import new_request_id
from cryomamba_apiserver.operations.metrics import Metrics
from cryomamba_crds.failures import Failure, FailureCode

_access = logging.getLogger("cryomamba_apiserver.access")

_HINT = "Use a WebSocket client, which sends a GET with the headers of RFC 6455, and an address that there is."


class BoundedSocketProtocol(FrameWritingProtocol):
    """One WebSocket; made by `BoundedProtocol` when a request turns out to be a handshake."""

    headers_of_all: ClassVar[Headers]
    metrics: ClassVar[Metrics]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Handshake(self, config.ws_max_size)
        self.peer = ""
        """Whose connection it is, for the bound on an address."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Take over a connection."""
        super().connection_made(transport)
        self.peer = address_of({"client": self.client})

    def data_received(self, data: bytes) -> None:
        """Take in what came; uvicorn leaves a handshake that cannot be read without an answer."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def refusal_headers(self, status: int, reason: str) -> Headers:
        """Return what a refusal carries beside its envelope; log it where the app never saw the request."""
        scope = getattr(self, "scope", None)
        if scope is not None and "request_id" in scope["state"]:
            return [(b"x-request-id", scope["state"]["request_id"].encode()), *self.headers_of_all]
        identity = new_request_id()
        self.metrics.refused(status)
        client = self.client[0] if self.client else None
        fields = {"status": status, "reason": reason, "client": client, "request_id": identity}
        _access.info("request refused", extra=fields)
        return [(b"x-request-id", identity.encode()), *self.headers_of_all]


class _Handshake(ServerProtocol):
    def __init__(self, connection: BoundedSocketProtocol, max_size: int) -> None:
        super().__init__(max_size=max_size, logger=logging.getLogger("uvicorn.error"))
        self._connection = connection

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """Return the response to a handshake that fails."""
        response = super().reject(status, text)
        reason = text.strip() or "There is no WebSocket at this address."
        failure = Failure(code=_code(response.status_code), message=reason, hint=_HINT, retryable=False)
        response.body = envelope(failure)
        for name in ("Content-Type", "Content-Length"):
            del response.headers[name]
        of_all = self._connection.refusal_headers(response.status_code, reason)
        for header, value in (*envelope_headers(response.body), *of_all):
            response.headers[header.decode()] = value.decode()
        return response


def _code(status: int) -> FailureCode:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FailureCode.INTERNAL_ERROR
    return FailureCode.FORBIDDEN if status == HTTPStatus.FORBIDDEN else FailureCode.VALIDATION_ERROR


def bounded_socket_protocol(headers: Headers, metrics: Metrics) -> type[BoundedSocketProtocol]:
    """Return the class of which uvicorn makes one for each WebSocket; see `bounded_protocol`."""
    return type("SocketProtocol", (BoundedSocketProtocol,), {"headers_of_all": headers, "metrics": metrics})
