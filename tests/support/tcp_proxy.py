"""A TCP proxy that a test cuts, stalls and mends: what lies between a client and its server on a bad day."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class TcpProxy:
    """Forwards connections to an address, as long as it is let."""

    host: str
    port: int
    listens_on: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _away: bool = False

    def cut(self) -> None:
        """Break all connections and take no new ones."""
        self._call(self._set_away, True)

    def stall(self) -> None:
        """Let nothing through any more, without a word to anybody."""
        self._call(self._flows.clear)

    def mend(self) -> None:
        """Let everything through again; what was stalled stays lost, as behind a firewall that has forgotten it."""
        self._call(self._set_away, False)
        self._call(self._flows.set)

    def _call(self, function, *args) -> None:
        self._loop.call_soon_threadsafe(function, *args)

    def _set_away(self, away: bool) -> None:
        self._away = away
        if away:
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, started: threading.Event) -> None:
        self._flows.set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.listens_on = server.sockets[0].getsockname()[1]
        started.set()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
            self._writers |= {writer, far_writer}
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stalled = False
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                stalled = stalled or not self._flows.is_set()
                if not stalled:
                    writer.write(data)
                    await writer.drain()
            writer.close()


@contextmanager
def tcp_proxy(host: str, port: int) -> Iterator[TcpProxy]:
    """Run a proxy until the end of the with statement."""
    proxy = TcpProxy(host, port)
    started = threading.Event()

    def run() -> None:
        asyncio.set_event_loop(proxy._loop)
        with contextlib.suppress(asyncio.CancelledError):
            proxy._loop.run_until_complete(proxy._serve(started))

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)

    def stop() -> None:
        for task in asyncio.all_tasks(proxy._loop):
            task.cancel()

    try:
        yield proxy
    finally:
        proxy._call(proxy._set_away, True)
        proxy._call(stop)
        thread.join()
        proxy._loop.close()
