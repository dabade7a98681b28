"""What one socket is still to be told: of each kind of message the newest, and never more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from websockets.frames import Frame, Opcode


@dataclass(frozen=True)
class Message:
    """A message of a kind, made once for all the sockets that it goes to."""

    kind: str
    """A newer message of the same kind makes this one superfluous."""
    text: str

    @cached_property
    def event(self) -> dict[str, Any]:
        """As ASGI sends it."""
        return {"type": "websocket.send", "text": self.text}

    @cached_property
    def frame(self) -> bytes:
        """As it goes over the wire, uncompressed and in one frame."""
        return Frame(Opcode.TEXT, self.text.encode()).serialize(mask=False)


FRAMES = "cryomamba.frames"
"""The ASGI extension by which a server offers to write frames; its `write` is a `WriteFrame`."""
WriteFrame = Callable[[bytes], bool]
"""Writes a frame if the connection takes one right now; returns whether it did."""


class Mailbox:
    """Between the feed of a job and one of its sockets.

    A socket that keeps up gets a message written at once, in the feed's own turn of the event loop: waking a task for
    each of a hundred sockets costs more than writing to them. One that is busy finds the newest when it is done.
    """

    def __init__(self, write: WriteFrame | None = None) -> None:
        """Take what writes a frame at once, None where the server cannot do that."""
        self._write = write
        self._idle = False
        self._ended = False
        self._waiting: dict[str, Message] = {}
        self._news = asyncio.Event()

    def put(self, message: Message) -> None:
        """Bring a message, in the place of an older one of its kind."""
        caught_up = self._idle and not self._waiting
        if caught_up and self._write is not None and self._write(message.frame):
            return
        self._waiting.pop(message.kind, None)  # so that the newer one takes its place at the end
        self._waiting[message.kind] = message
        self._news.set()

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._news.set()

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what was not written at once, in its order, until the end."""
        while True:
            while self._waiting:
                yield self._waiting.pop(next(iter(self._waiting)))
            if self._ended:
                return
            self._news.clear()
            self._idle = True
            await self._news.wait()
            self._idle = False
