"""Headers of label files: the input's, byte for byte, but for what the labels themselves change."""

import struct
from typing import Literal

from cryomamba_crds.volumes import VolumeHeader
from cryomamba_crds.volumes.mrc import IMOD_SIGNED_BYTES, IMOD_STAMP
from cryomamba_crds.volumes.nifti import MIN_OFFSET

LabelType = Literal["int8", "uint8", "int16"]

_MRC_MODES = {"int8": 0, "int16": 1}
_NIFTI_TYPES = {"uint8": (2, 8), "int16": (4, 16)}
_NO_EXTENSIONS = b"\0\0\0\0"


def label_type(header: VolumeHeader, highest: int) -> LabelType:
    """Return the smallest type that holds labels from 0 to `highest`.

    MRC's bytes are signed; MRC has no unsigned byte but for IMOD's, so more than 127 labels take 16 bits.
    """
    small: LabelType = "uint8" if header.format == "nifti" else "int8"
    most = {"int8": 127, "uint8": 255}[small]
    if not 0 <= highest <= 32_767:  # noqa: PLR2004 - the largest int16
        raise ValueError(f"labels go up to {highest}; a label file holds 0 to 32767")
    return small if highest <= most else "int16"


def mrc_label_header(like: VolumeHeader, dtype: LabelType, density: tuple[float, float, float, float]) -> bytes:
    """Return 1,024 bytes: `like`'s header with mode, density, extended header and IMOD's sign flag replaced.

    Args:
        like: Header of the input; byte order, axes, cell, start, origin and text are kept.
        dtype: Type of the labels.
        density: Minimum, maximum, mean and rms of the labels.
    """
    order = like.byte_order
    header = bytearray(like.header_bytes)
    struct.pack_into(f"{order}i", header, 12, _MRC_MODES[dtype])
    struct.pack_into(f"{order}3f", header, 76, *density[:3])
    struct.pack_into(f"{order}i", header, 92, 0)
    struct.pack_into("4s", header, 104, b"")
    struct.pack_into(f"{order}f", header, 216, density[3])
    stamp, flags = struct.unpack_from(f"{order}2i", header, 152)
    # Without the stamp the next word is anybody's, and MRC2014's bytes are signed anyway.
    if stamp == IMOD_STAMP and dtype == "int8":
        struct.pack_into(f"{order}i", header, 156, flags | IMOD_SIGNED_BYTES)
    return bytes(header)


def nifti_label_header(like: VolumeHeader, dtype: LabelType) -> bytes:
    """Return 352 bytes: `like`'s header with type, scaling and display range replaced, and no extensions.

    Affine, both codes, units, dimensions and text are kept; of several channels' dimensions, those of one.
    """
    order = like.byte_order
    header = bytearray(like.header_bytes)
    if like.channels > 1:
        struct.pack_into(f"{order}8h", header, 40, len(like.shape), *like.shape, 1, 1, 1, 1)
    struct.pack_into(f"{order}2h", header, 70, *_NIFTI_TYPES[dtype])
    struct.pack_into(f"{order}3f", header, 108, MIN_OFFSET, 1.0, 0.0)  # vox_offset, scl_slope, scl_inter
    struct.pack_into(f"{order}2f", header, 124, 0.0, 0.0)  # cal_max, cal_min: the input's display range
    return bytes(header) + _NO_EXTENSIONS
