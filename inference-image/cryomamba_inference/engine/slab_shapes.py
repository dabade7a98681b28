"""How many lines and planes the engine holds at once: what both the engine and the plan of its memory go by."""

import numpy as np

from cryomamba_inference.engine.resampling import Resampling, taps
from cryomamba_inference.engine.tiling import Tiling

PLANES_AT_ONCE = 8
"""Planes of the file that are resampled and decided together."""
CHUNK_PLANES = 16
"""Planes that are read, or resampled, at once. Those that are resampled begin at multiples of this, so that a plane is
the same, to the last bit, wherever reading began."""
_FLOAT = 4


def held_planes(tiling: Tiling, back: Resampling) -> int:
    """Return how many planes of logits are there at once: a row's, and those that others are made from as well.

    Args:
        tiling: The tiles.
        back: From the network's voxels to those of the non-zero box.
    """
    along = taps(back.source[0], back.target[0], back.rules[0])
    most, needed = 0, 0
    for row in range(len(tiling.starts[0])):
        known = min(tiling.final_after(row) - tiling.padding[0], tiling.shape[0])
        most = max(most, known - needed)
        ready = int(np.searchsorted(along.upper, known))
        needed = min(int(along.lower[ready]), known) if ready < back.target[0] else known
    return most


def line_buffers(device: str) -> int:
    """Return for how many lines of tiles there is room, on a device of this type.

    On a GPU for two, so that one is read and brought there while the network is at the other.
    """
    return 2 if device == "cuda" else 1


def transfer_bytes(tiling: Tiling, channels: int, device: str) -> tuple[int, int]:
    """Return what lines of tiles take on their way into the network: bytes of main memory, and of a GPU's.

    Args:
        tiling: The tiles.
        channels: Of the volume.
        device: The type of the network's.
    """
    plane = _FLOAT * tiling.patch[1] * tiling.padded[2]
    line = channels * tiling.patch[0] * plane
    being_read = min(CHUNK_PLANES, tiling.patch[0]) * plane
    if device != "cuda":
        return line_buffers(device) * line + being_read, 0
    # torch takes pinned memory by powers of two.
    pinned = 1 << (line - 1).bit_length()
    return line_buffers(device) * pinned + being_read, line_buffers(device) * line
