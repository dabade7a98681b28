"""Surface area from voxels: a weight for each of the 256 ways in which a 2 x 2 x 2 neighbourhood can be filled.

Crofton's formula says that the area of a surface is four times the mean, over all directions, of the number of bodies
that parallel lines cut out, a unit of area across the lines. On a grid the lines run along the 13 directions between
neighbouring voxels, and each direction stands for the part of the unit sphere that is nearest to it.

Sources: G. Lehmann and D. Legland, "Efficient N-Dimensional surface estimation using Crofton formula and run-length
encoding", Insight Journal, 2012; J. Ohser and F. Muecklich, "Statistical Analysis of Microstructures in Materials
Science", Wiley, 2000. Derivation and errors: docs/surface-area.md.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

DIRECTIONS: tuple[tuple[int, int, int], ...] = tuple(
    (x, y, z) for x, y, z in itertools.product((-1, 0, 1), repeat=3) if (x, y, z) > (0, 0, 0)
)
"""The 13 directions between neighbouring voxels in steps along (x, y, z), one of each pair of opposites."""

_CORNERS: tuple[tuple[int, int, int], ...] = tuple((bit & 1, bit >> 1 & 1, bit >> 2 & 1) for bit in range(8))
"""Corner (x, y, z) of the neighbourhood that each bit of a configuration stands for."""

_ROUNDING = 1e-12
"""Differences below this between cosines of angles are rounding, not geometry."""


def direction_weights(voxel_size_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Share of the unit sphere that is nearest to each of the 13 directions or its opposite.

    Numpy only: scipy would bring `SphericalVoronoi`, but is no dependency of ours, and 26 points are few enough to try
    every triple of them for the corners of the Voronoi cells.

    Args:
        voxel_size_nm: Edge lengths of a voxel along X, Y, Z; only their ratios matter.

    Returns:
        float64 [13] in the order of `DIRECTIONS`; the sum is 1.

    Raises:
        ValueError: A length is not a positive finite number.
    """
    if not all(math.isfinite(length) and length > 0 for length in voxel_size_nm):
        raise ValueError(f"voxel size {voxel_size_nm} nm: every length must be positive and finite")
    steps = np.asarray(DIRECTIONS, dtype=np.float64) * (np.asarray(voxel_size_nm) / max(voxel_size_nm))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    sites = np.concatenate([steps, -steps])
    corners = _voronoi_corners(sites)
    return np.array([_cell_area(site, corners, sites) for site in steps]) / (2 * math.pi)


def weight_table(voxel_size_nm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Area that a 2 x 2 x 2 neighbourhood adds to a surface, by which of its voxels are inside.

    With c the direction weights, V the volume of a voxel and d the distance of two voxels along a direction, the area
    is the sum over the directions of 2 c V / d for every pair of neighbours of which one is inside and one outside.
    A pair along an axis lies in four neighbourhoods, one along a face's diagonal in two: each gets its share.

    Args:
        voxel_size_nm: Edge lengths of a voxel along X, Y, Z.

    Returns:
        float64 [256] in nm2. Bit x + 2 y + 4 z of the index is set where the voxel at (x, y, z) of the neighbourhood is
        inside.

    Raises:
        ValueError: A length is not a positive finite number.
    """
    weights = dict(zip(DIRECTIONS, direction_weights(voxel_size_nm), strict=True))
    volume = math.prod(voxel_size_nm)
    configurations = np.arange(256)
    table = np.zeros(256)
    for (one, near), (other, far) in itertools.combinations(enumerate(_CORNERS), 2):
        step = (far[0] - near[0], far[1] - near[1], far[2] - near[2])
        weight = weights[step if step in weights else (-step[0], -step[1], -step[2])]
        neighbourhoods = 2 ** step.count(0)
        distance = math.hypot(*(count * length for count, length in zip(step, voxel_size_nm, strict=True)))
        differs = (configurations >> one ^ configurations >> other) & 1
        table += differs * (2 * weight * volume / distance / neighbourhoods)
    return table


def _voronoi_corners(sites: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors [n, 3] that are equally near to three sites and nearer to none: the corners of all Voronoi cells."""
    triples = sites[list(itertools.combinations(range(len(sites)), 3))]
    normals = np.cross(triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    # Three points of a sphere are never on one line: what is left out here is lost in rounding.
    proper = lengths[:, 0] > _ROUNDING
    centres = normals[proper] / lengths[proper]
    nearness = np.einsum("ij,ij->i", centres, triples[proper, 0])
    centres *= np.where(nearness < 0, -1, 1)[:, None]
    corners: NDArray[np.float64] = centres[(centres @ sites.T).max(axis=1) <= np.abs(nearness) + _ROUNDING]
    return corners


def _cell_area(site: NDArray[np.float64], corners: NDArray[np.float64], sites: NDArray[np.float64]) -> float:
    """Area on the unit sphere of what is nearest to `site`: the sum of the triangles between it and its cell's edges.

    A triangle's solid angle: A. Van Oosterom and J. Strackee, "The solid angle of a plane triangle", IEEE Trans.
    Biomed. Eng. 30 (1983) 125-126. Corners may occur more than once (where more than three cells meet): the triangle
    between equal corners is empty.
    """
    nearness = corners @ site
    own = corners[nearness >= (corners @ sites.T).max(axis=1) - _ROUNDING]
    east = np.cross(site, np.eye(3)[np.argmin(np.abs(site))])
    north = np.cross(site, east)
    around = own[np.argsort(np.arctan2(own @ north, own @ east))]
    following = np.roll(around, -1, axis=0)
    spanned = np.cross(around, following) @ site
    opening = 1 + around @ site + following @ site + np.einsum("ij,ij->i", around, following)
    return float(2 * np.arctan2(np.abs(spanned), opening).sum())
