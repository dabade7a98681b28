"""Voxels of a volume on disk as arrays [z, y, x], read no further than needed; of several channels, the first."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cryomamba.errors import CryoMambaError
from cryomamba_crds.volumes import VolumeHeader, iter_voxels, read_header

Voxels = NDArray[Any]


@dataclass(frozen=True)
class Plane:
    """One Z slice.

    Attributes:
        values: The stored voxels [y, x], without a NIfTI's slope and intercept.
        index: Z index, from 0.
        header: Of the volume that it comes from.
    """

    values: Voxels
    index: int
    header: VolumeHeader


def header_of(path: Path) -> VolumeHeader:
    """Return the checked header of a volume.

    Raises:
        CryoMambaError: The file cannot be read.
        cryomamba_crds.volumes.VolumeError: It is no usable volume.
    """
    with _opened(path) as stream:
        return read_header(stream, path.stat().st_size)


def middle_plane(path: Path) -> Plane:
    """Return the middle Z slice; raises as `header_of`, and where a compressed file is damaged before it."""
    with _opened(path) as stream:
        header = read_header(stream, path.stat().st_size)
        x, y, z = header.shape
        middle = z // 2
        if header.compressed:
            blocks = iter_voxels(stream, header, block_bytes=x * y * header.item_size)
            plane = np.frombuffer(next(islice(blocks, middle, None)), _type(header)).reshape(y, x)
        else:
            plane = np.array(_mapped(path, header)[middle])
    return Plane(plane, middle, header)


def volume(path: Path) -> Voxels:
    """Return all voxels [z, y, x]; those of an uncompressed file are read from disk as they are used.

    Raises as `header_of`, and where a compressed file is damaged.
    """
    with _opened(path) as stream:
        header = read_header(stream, path.stat().st_size)
        if not header.compressed:
            return _mapped(path, header)
        x, y, z = header.shape
        stored = np.frombuffer(b"".join(iter_voxels(stream, header)), _type(header))
        return stored[: header.voxels].reshape(z, y, x)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CryoMambaError(
            f"{path} cannot be read: {error.strerror}", hint="Check the file's name and permissions."
        ) from error


def _type(header: VolumeHeader) -> np.dtype[Any]:
    return np.dtype(header.dtype).newbyteorder(header.byte_order)


def _mapped(path: Path, header: VolumeHeader) -> Voxels:
    in_file_order = np.memmap(path, _type(header), "r", header.data_offset, header.file_shape[::-1])
    fast, middle, slow = header.axis_order
    names = (slow, middle, fast)
    return in_file_order.transpose([names.index(axis) for axis in (3, 2, 1)])
