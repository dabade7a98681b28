"""Times the statistics of four labels in a 256 x 256 x 256 volume against scikit-image and scipy.

Prints one line ``name ours peer ratio``: seconds, seconds, peer / ours. The peer counts with `scipy.ndimage.sum_labels`
and measures each label with `skimage.measure.marching_cubes` and `mesh_surface_area`. Best of three for each side.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

from cryomamba_inference.statistics import LabelStatistics

EDGE = 256
SLAB = 32
LABELS = (1, 2, 3, 4)
VOXEL_NM = 1.348


def make_labels() -> NDArray[np.uint8]:
    """A volume [z, y, x] as segmentations of tomograms are: some hundred balls and shells, mostly background."""
    rng = np.random.default_rng(20)
    volume = np.zeros((EDGE, EDGE, EDGE), dtype=np.uint8)
    for number in range(240):
        radius = int(rng.integers(6, 24))
        centre = rng.integers(0, EDGE, 3)
        box = tuple(slice(max(0, middle - radius), min(EDGE, middle + radius + 1)) for middle in centre)
        places = np.ogrid[box]
        distance = sum((place - middle) ** 2 for place, middle in zip(places, centre, strict=True))
        inner = (radius - 4) ** 2 if number % 2 else 0
        volume[box][(distance <= radius**2) & (distance >= inner)] = LABELS[number % len(LABELS)]
    return volume


def ours(volume: NDArray[np.uint8]) -> dict[str, float]:
    """Surface areas in nm2, from slabs."""
    statistics = LabelStatistics((EDGE, EDGE, EDGE), LABELS, (VOXEL_NM, VOXEL_NM, VOXEL_NM))
    for start in range(0, EDGE, SLAB):
        statistics.add(volume[start : start + SLAB])
    return statistics.result().surface_area_nm2


def peer(volume: NDArray[np.uint8]) -> dict[str, float]:
    """Surface areas in nm2, from meshes of the whole volume."""
    ndimage.sum_labels(np.ones_like(volume), volume, LABELS)
    padded = np.pad(volume, 1)
    areas = {}
    for label in LABELS:
        corners, faces, _, _ = marching_cubes(padded == label, 0.5, spacing=(VOXEL_NM, VOXEL_NM, VOXEL_NM))
        areas[str(label)] = float(mesh_surface_area(corners, faces))
    return areas


def best_of_three(work: Callable[[], object]) -> float:
    """Seconds of the fastest of three runs."""
    seconds = []
    for _ in range(3):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Prints the line."""
    volume = make_labels()
    mine, theirs = best_of_three(lambda: ours(volume)), best_of_three(lambda: peer(volume))
    print(f"statistics {mine:.3f} {theirs:.3f} {theirs / mine:.1f}")


if __name__ == "__main__":
    main()
