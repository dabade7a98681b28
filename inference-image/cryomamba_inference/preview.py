"""Pictures of a job at work: one Z plane in grey, its labels in colour over it, as PNG."""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_OPACITY = 0.45
"""Of a label's colour over the grey image: both the label and what lies under it stay recognisable."""

_CONTRAST_PERCENTILES = (0.5, 99.5)
"""What is mapped to black and white: hot pixels and gold beads lie outside."""

_MID_GREY = 127.5


def render_preview(
    plane: NDArray[np.number],
    labels: NDArray[np.integer] | None,
    colours: Mapping[int, str],
    scale: int,
) -> bytes:
    """Draws a plane, `scale` times smaller.

    A pixel's grey is the mean of the finite values of its block of `scale` x `scale` voxels; black and white are the
    0.5 and 99.5 percentiles of the picture. Blocks without a finite value are black, a constant plane is mid-grey.
    A pixel's label is that of the voxel in the middle of its block.

    Args:
        plane: Intensities [y, x] of any real dtype; its first row is the picture's upper one.
        labels: Labels [y, x] of the same plane; None where nothing is segmented yet.
        colours: "#rrggbb" of every label that is to be drawn; 0 and labels without a colour stay grey.
        scale: Block edge in voxels; where the plane is smaller, all of it is one block.

    Returns:
        An RGB PNG of `preview_geometry`'s X by Y pixels.

    Raises:
        ValueError: The plane is not two-dimensional or is empty, the labels' shape differs, `scale` is below 1, or a
            colour is not written "#rrggbb".
    """
    if plane.ndim != len(("y", "x")) or plane.size == 0:
        raise ValueError(f"a picture needs a plane [y, x] with voxels in it, not one of shape {plane.shape}")
    if labels is not None and labels.shape != plane.shape:
        raise ValueError(f"labels of shape {labels.shape} do not lie on a plane of shape {plane.shape}")
    picture = np.repeat(_stretch(_block_means(plane, scale))[:, :, None], 3, axis=2)
    if labels is not None:
        shown = labels[np.ix_(*(_block_middles(extent, scale) for extent in labels.shape))]
        for label, colour in colours.items():
            if label != 0:
                where = shown == label
                picture[where] = (1 - _OPACITY) * picture[where] + _OPACITY * np.array(_rgb(colour))
    with io.BytesIO() as png:
        Image.fromarray(np.rint(picture).astype(np.uint8)).save(png, format="PNG")
        return png.getvalue()


def preview_geometry(shape: tuple[int, int, int], scale: int) -> tuple[tuple[int, int, int], int]:
    """Shape of the downsampled volume and which of its planes is shown.

    Args:
        shape: Full volume [X, Y, Z] in voxels.
        scale: Edge of the blocks that become one voxel; what is left over at the end of an axis is dropped.

    Returns:
        Downsampled shape [X, Y, Z], no extent below 1, and the index of its middle Z plane.

    Raises:
        ValueError: `scale` or an extent is below 1.
    """
    x, y, z = (_blocks(extent, scale)[0] for extent in shape)
    return (x, y, z), z // 2


def source_slice(shape: tuple[int, int, int], scale: int) -> int:
    """Index of the plane of the full volume [X, Y, Z] that a preview shows: the middle one of the shown block.

    Raises:
        ValueError: `scale` or an extent is below 1.
    """
    _, slice_idx = preview_geometry(shape, scale)
    return int(_block_middles(shape[2], scale)[slice_idx])


def _blocks(extent: int, scale: int) -> tuple[int, int]:
    """How many blocks fit into an axis, and their edge."""
    if extent < 1 or scale < 1:
        raise ValueError(f"an axis of {extent} voxels cannot be downsampled by {scale}")
    return max(1, extent // scale), min(extent, scale)


def _block_middles(extent: int, scale: int) -> NDArray[np.intp]:
    count, edge = _blocks(extent, scale)
    return np.arange(count) * edge + edge // 2


def _block_means(plane: NDArray[np.number], scale: int) -> NDArray[np.float64]:
    """Mean of each block's finite values, NaN where it has none."""
    (rows, height), (columns, width) = (_blocks(extent, scale) for extent in plane.shape)
    blocks = plane[: rows * height, : columns * width].reshape(rows, height, columns, width)
    finite = np.isfinite(blocks)
    # float64 sums: float16 would overflow, and int8 too.
    means: NDArray[np.float64] = np.where(finite, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    counts = finite.sum(axis=(1, 3))
    means[counts == 0] = np.nan
    means /= np.maximum(counts, 1)
    return means


def _stretch(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Grey values 0 to 255."""
    finite = np.isfinite(means)
    grey = np.zeros(means.shape)
    if finite.any():
        black, white = np.percentile(means[finite], _CONTRAST_PERCENTILES)
        if white > black:
            grey[finite] = np.clip((means[finite] - black) / (white - black), 0, 1) * 255
        else:
            grey[finite] = _MID_GREY
    return grey


def _rgb(colour: str) -> tuple[int, int, int]:
    if len(colour) != len("#rrggbb") or not colour.startswith("#"):
        raise ValueError(f'colour {colour!r} is not written "#rrggbb"')
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
