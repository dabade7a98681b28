"""How many planes the engine holds back and gives at once: what both the engine and the plan of its memory go by."""

import numpy as np

from cryomamba_inference.engine.resampling import Resampling, taps
from cryomamba_inference.engine.tiling import Tiling

PLANES_AT_ONCE = 8
"""Planes of the file that are resampled and decided together."""


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
