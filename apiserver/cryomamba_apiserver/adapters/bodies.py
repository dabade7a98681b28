"""Bodies of parts as they come from a request: gathered, measured, hashed; never held whole."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from cryomamba_apiserver.ports.object_store import Part

BLOCK = 1 << 20
"""Bytes that are worth a trip to a thread."""


def wrong_length(received: int, size: int) -> ValueError:
    """Return the error for a body that is not as long as it was announced."""
    return ValueError(f"{received} bytes came, {size} were announced")


async def blocks(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Gather the small chunks of a request into blocks of about `BLOCK` bytes."""
    gathered = bytearray()
    async for chunk in body:
        gathered += chunk
        if len(gathered) >= BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def part_of(body: AsyncIterator[bytes], size: int) -> Part:
    """Read a body to its end and return what part it would be; raise ValueError where it is not `size` bytes long."""
    digest = hashlib.md5(usedforsecurity=False)
    received = 0
    async for block in blocks(body):
        received += len(block)
        if received > size:
            break
        await asyncio.to_thread(digest.update, block)
    if received != size:
        raise wrong_length(received, size)
    return Part(etag=digest.hexdigest(), size=received)


class ExactBody:
    """Passes a body on while it comes, but its end only once it has turned out to be as long as announced.

    The store gets the announced length first, so it drops what lacks its end.
    """

    def __init__(self, body: AsyncIterator[bytes], size: int) -> None:
        self._body = body
        self._size = size
        self.error: Exception | None = None
        """What ended it early: ValueError for a wrong length, or the error of the body itself."""

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, one chunk late."""
        received = 0
        held_back = b""
        try:
            async for chunk in self._body:
                if not chunk:
                    continue
                received += len(chunk)
                if received > self._size:
                    break
                if held_back:
                    yield held_back
                held_back = chunk
        except Exception as error:
            self.error = error
            raise
        if received != self._size:
            self.error = wrong_length(received, self._size)
            raise self.error
        yield held_back
