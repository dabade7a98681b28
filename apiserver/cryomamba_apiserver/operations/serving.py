"""The server process: uvicorn with our bounds, `/metrics` beside it, and an end in good order."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from cryomamba_apiserver.operations.bounds import Bounds
from cryomamba_apiserver.operations.headers import security_headers
from cryomamba_apiserver.operations.metrics import Metrics
from cryomamba_apiserver.operations.protocol import bounded_protocol
from cryomamba_apiserver.operations.socket_protocol import bounded_socket_protocol
from cryomamba_apiserver.settings import Settings

_log = logging.getLogger(__name__)

_LONGEST_SOCKET_MESSAGE = 4096  # bytes; clients send pings and nothing else


def bounds_of(settings: Settings) -> Bounds:
    """Return what the settings let a client do."""
    return Bounds(
        max_connections=settings.max_connections,
        max_connections_per_address=settings.max_connections_per_address,
        trusted_proxies=settings.trusted_proxies,
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        body_rate=settings.body_rate,
        send_seconds=settings.send_seconds,
        max_request_line=settings.max_request_line,
        max_headers=settings.max_headers,
    )


def server_config(app: ASGIApp, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    headers = security_headers(settings.hsts_seconds)
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(bounds_of(settings), headers, metrics),
        ws=bounded_socket_protocol(headers, metrics),
        ws_per_message_deflate=False,
        ws_max_size=_LONGEST_SOCKET_MESSAGE,
        log_config=None,  # `configure_logs` has done it
        access_log=False,  # its lines would carry tokens and signed links
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


class MetricsServer(uvicorn.Server):
    """Serves `/metrics` beside the API, in the same event loop.

    Args:
        config: Of `server_config`.
        listener: Where it listens.
    """

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the API's server."""
        yield

    def begin(self) -> None:
        """Begin to answer."""
        self._serving = asyncio.create_task(self.serve([self._listener]), name="metrics")

    async def end(self) -> None:
        """Take no more requests, and wait for those that there are."""
        self.should_exit = True
        if self._serving:
            await self._serving


class ApiServer(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then lets what it is doing come to its end; a second signal ends it at once.

    Args:
        config: Of `server_config`.
        announce: Called once the server answers.
        close_sockets: Tells the clients of WebSockets that the server goes; awaited before requests are waited for.
        beside: The server of `/metrics`, if there is one.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        announce: Callable[[], None],
        close_sockets: Callable[[], Awaitable[None]],
        beside: MetricsServer | None,
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._close_sockets = close_sockets
        self._beside = beside

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            if self._beside:
                self._beside.begin()
            self._announce()

    def handle_exit(self, sig: int, _: FrameType | None) -> None:
        """Begin the end, or end at once."""
        if self.should_exit:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        # Unlike uvicorn's, this does not send the process the signal again: an end in good order has exit code 0.
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, close the WebSockets, wait for requests, end."""
        _log.info("stopping", extra={"requests": len(self.server_state.tasks)})
        for server in self.servers:
            server.close()
        await self._close_sockets()
        await super().shutdown(sockets)
        if self._beside:
            await self._beside.end()
        _log.info("stopped")
