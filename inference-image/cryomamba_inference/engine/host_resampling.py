"""Resamples logits on the host by NumPy, a band of rows at a time, so that what is worked on stays in the cache.

It takes a third of the time that the same takes with torch's calls: `numpy.take` gathers columns four times as fast as
`index_select`, and a band is decided before it leaves the cache.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_inference.engine.resampling import Resampling, Taps, taps

BAND_ROWS = 32
"""Rows of the result that are worked on together: 0.4 MB of 8 planes, 384 columns wide."""


class HostResampler:
    """Interpolates between neighbours along three axes; for every rule but ``cubic``.

    Args:
        how: From which shape to which.
        dtype: Of the logits.
    """

    def __init__(self, how: Resampling, dtype: np.dtype[Any]) -> None:
        self._height = how.target[1]
        self._taps = [
            None if rule == "same" else taps(old, new, rule)
            for old, new, rule in zip(how.source, how.target, how.rules, strict=True)
        ]
        self._dtype = dtype

    def bands(self) -> list[range]:
        """Return the bands of rows that the result is made of."""
        return [range(start, min(start + BAND_ROWS, self._height)) for start in range(0, self._height, BAND_ROWS)]

    def heads(self, logits: NDArray[Any], base: int, planes: range, rows: range) -> Iterator[NDArray[Any]]:
        """Yield the resampled logits [z, y, x] of each head: one array, overwritten when the next is asked for.

        Args:
            logits: Of the source, [heads, z, y, x].
            base: Of the source's planes, the first one in `logits`.
            planes: Of the result.
            rows: Of the result.
        """
        across, along_rows, along_columns = self._taps
        first, last = _reach(across, planes)
        top, bottom = _reach(along_rows, rows)
        result: NDArray[Any] | None = None
        for head in logits:
            part = head[first - base : last + 1 - base, top : bottom + 1]
            # Columns first: they are the slowest to gather, and so far there are the fewest of them.
            if along_columns is not None:
                part = _between(part, along_columns, 2, slice(None), 0)
            if along_rows is not None:
                part = _between(part, along_rows, 1, slice(rows.start, rows.stop), top)
            if across is None:
                yield part
                continue
            if result is None:
                result = np.empty((len(planes), *part.shape[1:]), dtype=self._dtype)
            for index, plane in enumerate(planes):
                near, far = part[across.lower[plane] - first], part[across.upper[plane] - first]
                _lerp(near, far, self._dtype.type(across.weight[plane]), result[index])
            yield result


def _reach(axis: Taps | None, window: range) -> tuple[int, int]:
    """Return the first and the last source voxel that a part of the result is made from."""
    if axis is None:
        return window.start, window.stop - 1
    return int(axis.lower[window.start]), int(axis.upper[window.stop - 1])


def _between(values: NDArray[Any], axis: Taps, dim: int, window: slice, offset: int) -> NDArray[Any]:
    """Interpolate along rows or columns.

    Args:
        values: Of the source, from `offset` on along `dim`.
        axis: Neighbours along it.
        dim: Which one.
        window: Of the result.
        offset: Index of the first source voxel in `values`.
    """
    near = values.take(axis.lower[window] - offset, axis=dim)
    if not axis.weight.any():
        return near
    far = values.take(axis.upper[window] - offset, axis=dim)
    shape = [1] * values.ndim
    shape[dim] = -1
    _lerp(near, far, axis.weight[window].astype(values.dtype).reshape(shape), far)
    return far


def _lerp(near: NDArray[Any], far: NDArray[Any], weight: Any, out: NDArray[Any]) -> None:  # noqa: ANN401 - or a scalar
    """Write ``near + (far - near) * weight``."""
    np.subtract(far, near, out=out)
    out *= weight
    out += near
