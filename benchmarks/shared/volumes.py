"""Volumes to try the engine on."""

from pathlib import Path

import numpy as np


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Write noise as raw float32 [z, y, x], plane by plane."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(shape[0]):
            file.write(rng.standard_normal(shape[1:], dtype=np.float32).data)
