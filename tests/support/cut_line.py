"""A line to a server that can be cut: at once, or after so many bytes, in the middle of something."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_BLOCK = 1 << 14


@dataclass
class Line:
    """Forwards what connects to `port` of this machine to another address."""

    host: str
    port_behind: int
    port: int = 0
    down: int = 0
    """Bytes that the server has sent so far."""
    up: int = 0
    """Bytes that it has been sent."""
    cut_after_down: int | None = None
    cut_after_up: int | None = None
    """Cut the line once, after this many bytes."""
    cuts: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break all connections; new ones are refused."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def mend(self) -> None:
        """Take connections again."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self.cuts += 1
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            with suppress(OSError):
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no orderly end
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port_behind)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer, "up"), self._pump(far_reader, writer, "down"))
        finally:
            self._writers -= {writer, far_writer}
            for one in (writer, far_writer):
                one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(OSError, asyncio.CancelledError):  # cancelled: the end of the line
            while data := await reader.read(_BLOCK):
                writer.write(data)
                await writer.drain()
                setattr(self, way, getattr(self, way) + len(data))
                limit = getattr(self, f"cut_after_{way}")
                if limit is not None and getattr(self, way) >= limit:
                    setattr(self, f"cut_after_{way}", None)
                    await self._cut()
            if not writer.is_closing():
                writer.write_eof()


@contextmanager
def line_to(host: str, port: int) -> Iterator[Line]:
    """A line until the end of the with statement."""
    line = Line(host, port)
    thread = threading.Thread(target=line._loop.run_forever, daemon=True)
    thread.start()
    line.mend()
    try:
        yield line
    finally:
        line.cut()
        asyncio.run_coroutine_threadsafe(_end(), line._loop).result(10)
        line._loop.call_soon_threadsafe(line._loop.stop)
        thread.join(10)
        line._loop.close()


async def _end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
