"""How a file is cut into parts, and a part's bytes read from disk as they are sent."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from cryomamba.errors import CryoMambaError

MEBIBYTE = 2**20
USUAL_CHUNK = 8 * MEBIBYTE
LARGEST_CHUNK = 64 * MEBIBYTE
MOST_PARTS = 10_000
BLOCK = 256 * 1024
"""Bytes in memory for each part under way."""

ProgressCallback = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all, from several threads but never from two at once.

The first number falls when a part has to be sent again."""


class UploadStoppedError(Exception):
    """Another part failed, or the user gave up: this part need not be finished."""


@dataclass(frozen=True)
class Part:
    """A piece of the file: number from 0, offset and length in bytes."""

    number: int
    offset: int
    length: int


def chunk_size_for(total_size: int) -> int:
    """Bytes of every part but the last: 8 MiB, or in whole MiB what keeps a large file within 10,000 parts.

    Raises:
        CryoMambaError: Not even parts of 64 MiB would be few enough.
    """
    needed = -(-total_size // MOST_PARTS)
    chunk = max(USUAL_CHUNK, -(-needed // MEBIBYTE) * MEBIBYTE)
    if chunk > LARGEST_CHUNK:
        raise CryoMambaError(
            f"{total_size:,} bytes are too many for one upload",
            hint=f"The API takes up to {MOST_PARTS * LARGEST_CHUNK:,} bytes a file; bin or crop the volume.",
        )
    return chunk


def parts_of(total_size: int, chunk_size: int) -> list[Part]:
    """All parts of a file, in order; sizes in bytes."""
    return [
        Part(number, offset, min(chunk_size, total_size - offset))
        for number, offset in enumerate(range(0, total_size, chunk_size))
    ]


class Source:
    """A file on disk that several threads read from at once, each at its own offset."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CryoMambaError(
                f"{path} cannot be read: {error.strerror}", hint="Check the file's name and permissions."
            ) from error
        self.path = path
        self.size = os.fstat(self._descriptor).st_size

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def blocks(self, part: Part, tracker: "Tracker") -> Iterator[bytes]:
        """Yield a part's bytes block by block, counting them as sent.

        Raises:
            UploadStoppedError: The tracker was stopped.
            CryoMambaError: The file has become shorter.
        """
        position, end = part.offset, part.offset + part.length
        while position < end:
            if tracker.stopped.is_set():
                raise UploadStoppedError
            block = os.pread(self._descriptor, min(BLOCK, end - position), position)
            if not block:
                raise CryoMambaError(
                    f"{self.path} became shorter while it was being uploaded",
                    hint="Wait until the program that writes the file has finished, then upload it again.",
                )
            position += len(block)
            tracker.sent(part, len(block))
            yield block

    def md5(self, part: Part) -> str:
        """Return the checksum of a part's bytes as they are on disk, in hexadecimal."""
        digest = hashlib.md5(usedforsecurity=False)
        for position in range(part.offset, part.offset + part.length, BLOCK):
            digest.update(os.pread(self._descriptor, min(BLOCK, part.offset + part.length - position), position))
        return digest.hexdigest()


class Tracker:
    """What the threads of one upload share: how much is sent, and whether to stop.

    Args:
        total: Bytes of the file.
        on_progress: Told how far it is.
        held: Parts that need not be sent.
    """

    def __init__(self, total: int, on_progress: ProgressCallback | None, held: Iterable[Part] = ()) -> None:
        self.stopped = threading.Event()
        self._total = total
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._sent = {part.number: part.length for part in held}
        self._sum = sum(self._sent.values())

    def begin(self, part: Part) -> None:
        """A part is about to be sent from its start, perhaps not for the first time."""
        with self._lock:
            self._sum -= self._sent.pop(part.number, 0)

    def sent(self, part: Part, length: int) -> None:
        """Some more bytes of a part are on their way."""
        with self._lock:
            self._sent[part.number] = self._sent.get(part.number, 0) + length
            self._sum += length
            if self._on_progress is not None:
                self._on_progress(self._sum, self._total)
