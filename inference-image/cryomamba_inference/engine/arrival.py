"""Values on their way from the network's device to main memory, while the device goes on with its work."""

from typing import Any

import torch
from numpy.typing import NDArray


class Arrival:
    """A copy of a tensor in main memory.

    The device makes it when it has done what it was told before, and nobody waits for that until the values are
    wanted. On the CPU the copy is there at once.

    Args:
        values: May be changed or let go as soon as this object is there.
    """

    def __init__(self, values: torch.Tensor) -> None:
        on_gpu = values.device.type == "cuda"
        # A device copies without holding anybody up only to memory that is pinned; torch keeps what is let go of it.
        self._copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=on_gpu)
        self._copy.copy_(values, non_blocking=True)
        self._there: torch.cuda.Event | None = None
        if on_gpu:
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]  # as torch has it
            self._there.record(torch.cuda.current_stream(values.device))

    def values(self) -> NDArray[Any]:
        """Return them, once they have come."""
        if self._there is not None:
            self._there.synchronize()
        array: NDArray[Any] = self._copy.numpy()
        return array
