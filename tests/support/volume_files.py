"""Builds volume files, byte by byte and without the code under test, so that any field can be made wrong."""

import math
import struct
from typing import Any

MRC_FIELDS = {
    "nx": (0, "i"),
    "ny": (4, "i"),
    "nz": (8, "i"),
    "mode": (12, "i"),
    "nstart": (16, "3i"),
    "intervals": (28, "3i"),
    "cell": (40, "3f"),
    "angles": (52, "3f"),
    "mapc": (64, "i"),
    "mapr": (68, "i"),
    "maps": (72, "i"),
    "density": (76, "3f"),
    "ispg": (88, "i"),
    "nsymbt": (92, "i"),
    "exttyp": (104, "4s"),
    "imodStamp": (152, "i"),
    "imodFlags": (156, "i"),
    "origin": (196, "3f"),
    "map": (208, "4s"),
    "machst": (212, "4s"),
    "nlabl": (220, "i"),
    "label": (224, "80s"),
}
MRC_DEFAULTS: dict[str, Any] = {
    "nx": 5,
    "ny": 4,
    "nz": 3,
    "mode": 2,
    "intervals": (5, 4, 3),
    "cell": (67.4, 53.92, 40.44),
    "angles": (90.0, 90.0, 90.0),
    "mapc": 1,
    "mapr": 2,
    "maps": 3,
    "ispg": 1,
    "map": b"MAP ",
}
NIFTI_FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "B"),
    "descrip": (148, "80s"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "srow_x": (280, "4f"),
    "srow_y": (296, "4f"),
    "srow_z": (312, "4f"),
    "magic": (344, "4s"),
}
NIFTI_DEFAULTS: dict[str, Any] = {
    "sizeof_hdr": 348,
    "dim": (3, 5, 4, 3, 1, 1, 1, 1),
    "datatype": 16,
    "bitpix": 32,
    "pixdim": (1.0, 13.48, 13.48, 13.48, 0.0, 0.0, 0.0, 0.0),
    "vox_offset": 352.0,
    "magic": b"n+1\0",
}
MRC_ITEM_SIZES = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}


def packed(size: int, table: dict[str, tuple[int, str]], values: dict[str, Any], order: str) -> bytes:
    head = bytearray(size)
    for name, value in values.items():
        offset, form = table[name]
        struct.pack_into(order + form, head, offset, *(value if isinstance(value, tuple) else (value,)))
    return bytes(head)


def mrc(order: str = "<", data: bytes | None = None, **fields: Any) -> bytes:
    """Build a small MRC file of float32 zeros; keywords replace header fields, `data` the voxels."""
    values = MRC_DEFAULTS | {"machst": b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0"} | fields
    count = values["nx"] * values["ny"] * values["nz"] * MRC_ITEM_SIZES.get(values["mode"], 4)
    if data is None:
        data = bytes(count if 0 < count < 100_000 else 240)
    extended = bytes(fields["nsymbt"] if 0 < fields.get("nsymbt", 0) < 100_000 else 0)
    return packed(1024, MRC_FIELDS, values, order) + extended + data


def nifti(order: str = "<", data: bytes | None = None, **fields: Any) -> bytes:
    """Build a small NIfTI-1 file of float32 zeros; keywords replace header fields, `data` the voxels."""
    values = NIFTI_DEFAULTS | fields
    if data is None:
        rank = max(min(values["dim"][0], 7), 0)
        count = math.prod(values["dim"][1 : rank + 1]) * values["bitpix"] // 8
        data = bytes(count if 0 < count < 100_000 else 240)
    return packed(348, NIFTI_FIELDS, values, order) + bytes(4) + data
