"""What lines of tiles see: read ahead by a thread, and brought to the device beside the network's work there."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from numpy.typing import NDArray

Corner = tuple[int, int]
"""First plane and first row of a line of tiles in the padded volume."""


class Lines:
    """Gives what one line after another sees, and must be closed.

    One thread reads into the buffers in turn. With two of them it reads and copies a line while the network is at the
    one before; with one, when the line is wanted. What is read is the same.

    Args:
        fill: Writes what a line sees into an array of `shape`. Called in the thread, in the order of the corners.
        corners: Of the lines, in their order.
        shape: [c, z, y, x] of what a line sees.
        dtype: Of it.
        device: Where the network runs.
        buffers: How many lines there is room for.
    """

    def __init__(
        self,
        fill: Callable[[Corner, NDArray[Any]], None],
        corners: Sequence[Corner],
        shape: Sequence[int],
        *,
        dtype: torch.dtype,
        device: torch.device,
        buffers: int,
    ) -> None:
        self._fill = fill
        self._corners = deque(corners)
        side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]  # as torch has it
        self._free = deque(_Buffer(shape, dtype, device, side) for _ in range(buffers))
        self._coming: deque[Future[_Buffer]] = deque()
        self._taken: _Buffer | None = None
        self._side = side
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="lines")

    def close(self) -> None:
        """End the thread, after the line that it may be at."""
        self._reader.shutdown(cancel_futures=True)
        if self._side is not None:
            # Before the buffers go: torch would give their memory away under a copy that nobody waited for.
            self._side.synchronize()

    def take(self) -> torch.Tensor:
        """Return what the next line sees, [c, z, y, x] on the device; good until the next one is taken.

        Raises:
            Exception: Whatever `fill` raised for this line.
        """
        if self._taken is not None:
            self._taken.let_go()
            self._free.append(self._taken)
            self._taken = None
        while self._free and self._corners:
            self._coming.append(self._reader.submit(self._read, self._corners.popleft(), self._free.popleft()))
        self._taken = self._coming.popleft().result()
        return self._taken.seen()

    def _read(self, corner: Corner, buffer: "_Buffer") -> "_Buffer":
        self._fill(corner, buffer.to_fill())
        buffer.send()
        return buffer


class _Buffer:
    """Room for a line in main memory, which is all of it on the CPU; on a GPU pinned, with as much room there.

    Args:
        shape: Of the line.
        dtype: Of it.
        device: Where it is wanted.
        side: The stream that copies.
    """

    def __init__(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, side: torch.cuda.Stream | None
    ) -> None:
        self._host = torch.empty(tuple(shape), dtype=dtype, pin_memory=side is not None)
        self._seen = self._host if side is None else torch.empty(tuple(shape), dtype=dtype, device=device)
        self._side = side
        if side is not None:
            self._sent, self._used = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]  # as torch has it
            # What had this memory before may still be at work.
            self.let_go()

    def to_fill(self) -> NDArray[Any]:
        """Return the room in main memory, once what was in it has been copied."""
        if self._side is not None:
            self._sent.synchronize()
        array: NDArray[Any] = self._host.numpy()
        return array

    def send(self) -> None:
        """Have it copied as soon as the network needs what is there no more."""
        if self._side is None:
            return
        with torch.cuda.stream(self._side):
            self._side.wait_event(self._used)
            self._seen.copy_(self._host, non_blocking=True)
            self._sent.record(self._side)

    def seen(self) -> torch.Tensor:
        """Return the line on the device, for work that is given to it from now on."""
        if self._side is not None:
            torch.cuda.current_stream(self._seen.device).wait_event(self._sent)
        return self._seen

    def let_go(self) -> None:
        """Say that all the work with it has been given to the device."""
        if self._side is not None:
            self._used.record(torch.cuda.current_stream(self._seen.device))
