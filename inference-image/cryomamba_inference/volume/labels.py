"""The label file beside a tomogram, written slab by slab along Z."""

import gzip
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.volumes import VolumeHeader
from cryomamba_crds.volumes.mrc import HEADER_BYTES
from cryomamba_inference.volume.label_headers import label_type, mrc_label_header, nifti_label_header
from cryomamba_inference.volume.reading import Volume, in_zyx

_BLOCK_VOXELS = 1_048_576
_GZIP_LEVEL = 6

Labels = NDArray[np.integer]
"""[z, y, x], any integer type."""


def result_name(header: VolumeHeader) -> str:
    """Return the name of the label file: NIfTI for NIfTI, MRC for MRC."""
    return "segmentation.nii.gz" if header.format == "nifti" else "segmentation.mrc"


def result_content_type(header: VolumeHeader) -> str:
    """Return the media type of the label file."""
    return "application/gzip" if header.format == "nifti" else "application/octet-stream"


class LabelWriter:
    """Takes slabs of labels in ascending Z and counts them; made by `open_labels`."""

    def __init__(self, shape: tuple[int, int, int], highest: int, put: Callable[[int, Labels], None]) -> None:
        self._shape = shape
        self._highest = highest
        self._put = put
        self._counts = np.zeros(highest + 1, dtype=np.int64)
        self.planes = 0
        """Planes along Z written so far."""

    def write(self, start: int, slab: Labels) -> None:
        """Write the planes from `start` on.

        Args:
            start: Index along Z of the slab's first plane; slabs follow each other without a gap.
            slab: Labels [z, y, x] from 0 to the `highest` that was announced.

        Raises:
            ValueError: The slab does not follow, has another shape, or holds a label that was not announced.
            OSError: The disk is full.
        """
        depth, *plane = slab.shape
        if start != self.planes or plane != list(self._shape[1:]) or start + depth > self._shape[0]:
            raise ValueError(f"slab {slab.shape} at {start} does not follow {self.planes} planes of {self._shape}")
        self._count(slab)
        self._put(start, slab)
        self.planes += depth

    def density(self) -> tuple[float, float, float, float]:
        """Return minimum, maximum, mean and rms deviation of the labels written so far."""
        (present,) = self._counts.nonzero()
        voxels = int(self._counts.sum())
        mean = float(present @ self._counts[present]) / voxels
        variance = float(np.square(present - mean) @ self._counts[present]) / voxels
        return (float(present[0]), float(present[-1]), mean, math.sqrt(variance))

    def _count(self, slab: Labels) -> None:
        """Counting needs 8 bytes a voxel, so it goes block by block."""
        _, rows, columns = slab.shape
        step = max(_BLOCK_VOXELS // columns, 1)
        for plane, first in product(slab, range(0, rows, step)):
            block = plane[first : first + step]
            if block.min() < 0 or block.max() > self._highest:
                raise ValueError(f"labels {block.min()} to {block.max()} are not within 0 to {self._highest}")
            self._counts += np.bincount(block.ravel().astype(np.intp), minlength=len(self._counts))


@contextmanager
def open_labels(path: Path, like: Volume, highest: int) -> Iterator[LabelWriter]:
    """Write a label file that fits voxel by voxel on `like`: same format, header, byte order and order of axes.

    The file appears under its name when the block ends, complete; after an error there is none.

    Args:
        path: Where to; a file there is replaced. NIfTI is written as gzip.
        like: The input.
        highest: The largest label that may occur. It decides the type: int8 (MRC) up to 127, uint8 (NIfTI) up to
            255, int16 above.

    Yields:
        A `LabelWriter` for all planes of `like`.

    Raises:
        ValueError: `highest` is beyond 32767, or the block ended before the last plane.
        OSError: The disk is full (for MRC known at once: the space is reserved).
    """
    partial = path.with_name(f".{path.name}.partial")
    write = _nifti if like.header.format == "nifti" else _mrc
    try:
        with partial.open("w+b") as stream, write(stream, like, highest) as writer:
            yield writer
            if writer.planes != like.shape[0]:
                raise ValueError(f"{writer.planes} of {like.shape[0]} planes were written")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _mrc(stream: BinaryIO, like: Volume, highest: int) -> Iterator[LabelWriter]:
    """Write through a mapping, since Z may be any of the file's axes."""
    dtype = label_type(like.header, highest)
    in_file_type = np.dtype(dtype).newbyteorder(like.header.byte_order)
    total = HEADER_BYTES + like.header.voxels * in_file_type.itemsize
    os.posix_fallocate(stream.fileno(), 0, total)  # a full disk is an error here, and would be a SIGBUS later
    in_file = np.memmap(stream, dtype=in_file_type, mode="r+", offset=HEADER_BYTES, shape=like.header.file_shape[::-1])
    target = in_zyx(in_file, like.header.axis_order)

    def put(start: int, slab: Labels) -> None:
        target[start : start + len(slab)] = slab

    writer = LabelWriter(like.shape, highest, put)
    yield writer
    in_file.flush()
    stream.seek(0)
    stream.write(mrc_label_header(like.header, dtype, writer.density()))


@contextmanager
def _nifti(stream: BinaryIO, like: Volume, highest: int) -> Iterator[LabelWriter]:
    """Write in one go, since NIfTI's Z is always the slowest axis.

    Gzip's own header carries no time and no name, so that equal labels give equal files.
    """
    dtype = label_type(like.header, highest)
    in_file_type = np.dtype(dtype).newbyteorder(like.header.byte_order)
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=stream, mtime=0) as compressed:
        compressed.write(nifti_label_header(like.header, dtype))

        def put(_: int, slab: Labels) -> None:
            for plane in slab:
                compressed.write(plane.astype(in_file_type).tobytes())

        yield LabelWriter(like.shape, highest, put)
