"""Measures the statistics of four labels in a 256 x 256 x 256 volume against scikit-image and scipy.

Prints two lines ``name ours peer ratio``: seconds, and megabytes that are allocated at the peak beyond the volume. Both
sides tell each label's voxels, surface, components, bounding box and centroid. The peer measures surfaces with
`skimage.measure.marching_cubes` and `mesh_surface_area`, all else with `scipy.ndimage`. What has one right answer is
compared. Seconds are the processor's, the best of three: each side runs in one thread, and so what else the machine
does counts for less.
"""

import tracemalloc
from collections.abc import Callable
from time import process_time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes, mesh_surface_area

from cryomamba_inference.statistics import LabelStatistics

EDGE = 256
SLAB = 32
LABELS = (1, 2, 3, 4)
VOXEL_NM = 1.348

Exact = dict[str, tuple[int, int, tuple[int, ...], tuple[float, ...]]]
"""Of each label, what has one right answer: voxels, components, the box's first and last voxel, the centroid."""


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


def ours(volume: NDArray[np.uint8]) -> tuple[dict[str, float], Exact]:
    """Surface areas in nm2 and what else is told, from slabs."""
    statistics = LabelStatistics((EDGE, EDGE, EDGE), LABELS, (VOXEL_NM, VOXEL_NM, VOXEL_NM))
    for start in range(0, EDGE, SLAB):
        statistics.add(volume[start : start + SLAB])
    told = statistics.result()
    exact = {
        label: (
            count,
            told.component_counts[label],
            (*told.bounding_boxes[label].first, *told.bounding_boxes[label].last),
            told.centroids_voxels[label],
        )
        for label, count in told.label_counts.items()
    }
    return told.surface_area_nm2, exact


def peer(volume: NDArray[np.uint8]) -> tuple[dict[str, float], Exact]:
    """The same from the whole volume, surfaces from meshes."""
    ones, touching = np.ones_like(volume), np.ones((3, 3, 3))
    counts = ndimage.sum_labels(ones, volume, LABELS)
    centroids = ndimage.center_of_mass(ones, volume, LABELS)
    boxes = ndimage.find_objects(volume)
    padded = np.pad(volume, 1)
    areas, exact = {}, {}
    for place, label in enumerate(LABELS):
        corners, faces, _, _ = marching_cubes(padded == label, 0.5, spacing=(VOXEL_NM, VOXEL_NM, VOXEL_NM))
        areas[str(label)] = float(mesh_surface_area(corners, faces))
        _, components = ndimage.label(volume == label, touching)
        z, y, x = boxes[label - 1]
        box = (x.start, y.start, z.start, x.stop - 1, y.stop - 1, z.stop - 1)
        exact[str(label)] = (int(counts[place]), components, box, tuple(reversed(centroids[place])))
    return areas, exact


def best_of_three(work: Callable[[], object]) -> float:
    """Processor seconds of the fastest of three runs."""
    seconds = []
    for _ in range(3):
        start = process_time()
        work()
        seconds.append(process_time() - start)
    return min(seconds)


def megabytes(work: Callable[[], object]) -> float:
    """Allocated at the peak, as numpy tells it."""
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Prints the lines."""
    volume = make_labels()
    if ours(volume)[1] != peer(volume)[1]:
        raise SystemExit("the two sides do not tell the same")
    mine, theirs = best_of_three(lambda: ours(volume)), best_of_three(lambda: peer(volume))
    print(f"statistics-seconds {mine:.3f} {theirs:.3f} {theirs / mine:.1f}")
    mine, theirs = megabytes(lambda: ours(volume)), megabytes(lambda: peer(volume))
    print(f"statistics-megabytes {mine:.1f} {theirs:.1f} {theirs / mine:.1f}")


if __name__ == "__main__":
    main()
