"""Resampling axis by axis, as nnU-Net resamples: which rule holds along each axis, and what that rule computes.

A spline interpolation of a grid is a linear map along each axis, one after another in any order. So it can be done
plane by plane: a piece of the result needs the pieces of the source that its rows of the map reach.

Sources: ``nnunetv2.preprocessing.resampling`` (default_resampling, resample_torch; 2.8.1),
``skimage.transform.resize``, ``scipy.ndimage.zoom`` with ``grid_mode``. They compute in float64, as is done here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import spline_filter1d

from cryomamba_inference.engine.image import Shape

Rule = Literal["same", "nearest", "nearest-exact", "linear", "cubic"]
"""Along one axis; ``nearest`` rounds as scipy does, ``nearest-exact`` as torch does, in float32."""

_SCIPY: Mapping[int, Rule] = {0: "nearest", 1: "linear", 3: "cubic"}
_SCIPY_EDGE = 12
"""Voxels by which scipy repeats the border of a volume before it fits a cubic spline to it."""
_HALO = 24
"""Voxels on either side beyond which a cubic spline changes nothing: 0.268 ** 24 is 2e-14."""


class UnsupportedError(Exception):
    """A resampling that is not computed here; the text says which, to end the sentence "the model ..."."""


@dataclass(frozen=True)
class Resampling:
    """From one shape to another, [z, y, x]."""

    source: Shape
    target: Shape
    rules: tuple[Rule, Rule, Rule]
    separate: int | None = None
    """The axis across which slices were taken each for itself: their values are clipped slice by slice."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return any(rule != "same" for rule in self.rules)


@dataclass(frozen=True)
class Taps:
    """Interpolation between two neighbours: ``source[lower] * (1 - weight) + source[upper] * weight``."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """Some rows of the map along one axis."""

    start: int
    """Of what is read in the source."""
    stop: int
    matrix: NDArray[np.float64]
    """[rows, stop - start]."""


def choose_resampling(
    function: str, arguments: Mapping[str, Any], shapes: tuple[Shape, Shape], spacings: tuple[Sequence[float], ...]
) -> Resampling:
    """Return what one of nnU-Net's resampling functions would do.

    Args:
        function: Its name in the plans.
        arguments: Of the plans for it.
        shapes: Source and target, in one order of axes.
        spacings: Of source and target, in the same order.

    Raises:
        UnsupportedError: It is none of what is computed here.
    """
    source, target = shapes
    if source == target or function == "no_resampling_hack":
        if source != target:
            raise UnsupportedError("keeps the network's shape where the volume has another (no_resampling_hack)")
        return Resampling(source, target, ("same", "same", "same"))
    if function == "resample_data_or_seg_to_shape":
        # The defaults are the function's; force_separate_z is None in all plans that nnU-Net writes.
        order, order_z = arguments.get("order", 3), arguments.get("order_z", 0)
        force = arguments.get("force_separate_z", False)
        if order not in _SCIPY or order_z not in _SCIPY:
            raise UnsupportedError(f"resamples with splines of order {order} and {order_z}")
        within, across = _SCIPY[order], _SCIPY[order_z]
    elif function == "resample_torch_fornnunet":
        force = arguments.get("force_separate_z")
        if arguments.get("mode", "linear") != "linear":
            raise UnsupportedError(f"resamples with torch's mode {arguments['mode']!r}")
        within, across = "linear", "nearest-exact"
    else:
        raise UnsupportedError(f"resamples with {function}")
    separate = _separate_axis(spacings, arguments.get("separate_z_anisotropy_threshold", 3.0), force=force)
    if separate is not None and within == "cubic" and across not in ("nearest", "same"):
        raise UnsupportedError("resamples slices by cubic splines and across them by others than the nearest slice")
    rules: list[Rule] = [
        "same" if old == new else across if axis == separate else within
        for axis, (old, new) in enumerate(zip(source, target, strict=True))
    ]
    return Resampling(source, target, (rules[0], rules[1], rules[2]), separate if within == "cubic" else None)


def _separate_axis(spacings: tuple[Sequence[float], ...], threshold: float, *, force: bool | None) -> int | None:
    """Return the axis that is resampled by itself; see nnU-Net's ``determine_do_sep_z_and_axis``."""
    if force is False:
        return None
    for spacing in spacings:
        if force or max(spacing) / min(spacing) > threshold:
            coarsest = [axis for axis, edge in enumerate(spacing) if edge == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def taps(source: int, target: int, rule: Rule) -> Taps:
    """Return the neighbours and weights along an axis for every rule but ``cubic``.

    Args:
        source: Voxels of the source along the axis.
        target: Of the result.
        rule: Along it.
    """
    if rule == "nearest-exact":
        scale = np.float32(source) / np.float32(target)
        nearest = np.floor((np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale)
        nearest = nearest.astype(np.intp).clip(0, source - 1)
        return Taps(nearest, nearest, np.zeros(target))
    places = _places(source, target)
    if rule == "linear":
        lower = np.floor(places).astype(np.intp)
        return Taps(lower, (lower + 1).clip(0, source - 1), places - lower)
    nearest = (np.arange(target) if rule == "same" else np.floor(places + 0.5)).astype(np.intp)
    return Taps(nearest, nearest, np.zeros(target))


def piece(source: int, target: int, rule: Rule, rows: range) -> Piece:
    """Return the rows of the map along an axis.

    Args:
        source: Voxels of the source along the axis.
        target: Of the result.
        rule: Along it.
        rows: Indices of the result, one after another.
    """
    if rule == "cubic":
        return _cubic_piece(source, target, rows)
    both = taps(source, target, rule)
    window = slice(rows.start, rows.stop)
    lower, upper, weight = both.lower[window], both.upper[window], both.weight[window]
    start, stop = int(lower.min()), int(upper.max()) + 1
    matrix = np.zeros((len(rows), stop - start))
    row = np.arange(len(rows))
    matrix[row, lower - start] += 1 - weight
    matrix[row, upper - start] += weight
    return Piece(start, stop, matrix)


def _cubic_piece(source: int, target: int, rows: range) -> Piece:
    # Unlike those of the linear rule, these places go up to half a voxel beyond the outer voxels' middles.
    places = (np.arange(rows.start, rows.stop) + 0.5) * (source / target) - 0.5
    start = max(0, math.floor(places[0]) - 1 - _HALO)
    stop = min(source, math.floor(places[-1]) + 3 + _HALO)
    # What the spline's coefficients are for an impulse at each voxel: the columns of the map from voxels to them.
    impulses = np.pad(np.eye(stop - start), ((_SCIPY_EDGE, _SCIPY_EDGE), (0, 0)), mode="edge")
    coefficients = spline_filter1d(impulses, 3, axis=0, mode="nearest")
    within = places - start + _SCIPY_EDGE
    first = np.floor(within).astype(np.intp)
    t = (within - first)[:, None]
    weights = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * (t + t**2 - t**3), t**3)
    matrix = sum(weight * coefficients[first + step] for step, weight in zip((-1, 0, 1, 2), weights, strict=True))
    return Piece(start, stop, np.asarray(matrix) / 6)


def _places(source: int, target: int) -> NDArray[np.float64]:
    """Return where the result's voxels lie in the source, no farther out than the outer voxels' middles."""
    places: NDArray[np.float64] = ((np.arange(target) + 0.5) * (source / target) - 0.5).clip(0, source - 1)
    return places
