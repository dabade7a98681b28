"""MRC2014 and its relatives (IMOD, CCP4 maps): the 1,024 bytes of the header, checked field by field.

The format: https://www.ccpem.ac.uk/mrc-format/mrc2014/ ; IMOD's stamp and flags:
https://bio3d.colorado.edu/imod/doc/mrc_format.txt .
"""

import math
import struct
from dataclasses import dataclass

from cryomamba_crds.volumes.error import VolumeError
from cryomamba_crds.volumes.header import (
    ITEM_SIZES,
    ByteOrder,
    Triple,
    VolumeHeader,
    common_facts,
    permuted,
    voxel_size_from_angstrom,
)

HEADER_BYTES = 1024
IMOD_STAMP = 1146047817
IMOD_SIGNED_BYTES = 1
IMOD_FOUR_BIT_VALUES = 16

_LEADING = "10i6f3i3f2i"  # nx … nsymbt, without byte order
_READ_MODES = {0: "int8", 1: "int16", 2: "float32", 6: "uint16", 12: "float16"}
_REFUSED_MODES = {
    3: "complex 16-bit integers",
    4: "complex 32-bit reals",
    16: "RGB colour",
    101: "4-bit values, two a byte",
}
_CONVERT = "Convert it with IMOD, for example `newstack -mode 2 IN OUT`, and use the result."
_COPY_AGAIN = "Copy or export the file again and compare its size with the original's."
_VOLUME_STACKS = range(401, 631)
_AXES = (1, 2, 3)
_PLAUSIBLE_EDGE = 65_535
_RECOGNISED = 3
_RIGHT_ANGLES = (0.0, 90.0)  # 0: never set
_LARGEST_SIGNED_BYTE = 127
_LARGEST_OFFSET = 2**63 - 1
_LABELS = 10
_LABEL_BYTES = 80


@dataclass(frozen=True, kw_only=True)
class MrcHeader(VolumeHeader):
    """A checked MRC header. Lengths of cell and origin are in Å, as the file has them."""

    mode: int
    nstart: Triple
    """Index of the first voxel along [X, Y, Z]."""
    intervals: Triple
    """mx, my, mz: grid intervals along [X, Y, Z]."""
    cell_angstrom: tuple[float, float, float]
    cell_angles: tuple[float, float, float]
    origin_angstrom: tuple[float, float, float]
    ispg: int
    nsymbt: int
    """Bytes of the extended header, which is skipped."""
    exttyp: str
    density: tuple[float, float, float, float]
    """Minimum, maximum, mean and rms that the header claims; not checked against the voxels."""
    machine_stamp: bytes
    imod_flags: int | None
    """None where IMOD's stamp is missing."""
    labels: tuple[str, ...]

    def facts(self) -> dict[str, str]:
        """Return what a person wants to know about the file, name to text, in the order to show it in."""
        start = ", ".join(str(n) for n in self.nstart)
        fast, middle, slow = ("XYZ"[axis - 1] for axis in self.axis_order)
        extended = f"{self.nsymbt:,} bytes, type {self.exttyp or 'not given'}, skipped" if self.nsymbt else "none"
        low, high, mean, rms = self.density
        facts = {
            "format": f"MRC, mode {self.mode} ({self._type_in_words()})",
            **common_facts(self),
            "axes": f"{fast} fastest, {middle}, {slow} slowest",
            "start (X, Y, Z)": start,
            "origin (X, Y, Z)": _lengths(self.origin_angstrom),
            "cell (X, Y, Z)": f"{_lengths(self.cell_angstrom)} in {' x '.join(map(str, self.intervals))} intervals",
            "space group": str(self.ispg),
            "extended header": extended,
            "density in header": f"min {low:.6g}, max {high:.6g}, mean {mean:.6g}, rms {rms:.6g}",
            "machine stamp": self.machine_stamp.hex(" "),
            "IMOD flags": "no IMOD stamp" if self.imod_flags is None else str(self.imod_flags),
        }
        if self.labels:
            facts["labels"] = "\n".join(self.labels)
        return facts

    def _type_in_words(self) -> str:
        if self.mode != 0:
            return self.dtype
        if self.imod_flags is None:
            return "bytes, taken as signed: no IMOD stamp says otherwise"
        return f"bytes, taken as {'signed' if self.dtype == 'int8' else 'unsigned'}: IMOD's flags say so"


@dataclass(frozen=True)
class _Fields:
    """The leading fields as they stand in the file, read in one byte order."""

    byte_order: ByteOrder
    edges: Triple
    mode: int
    start: Triple
    intervals: Triple
    cell: tuple[float, float, float]
    angles: tuple[float, float, float]
    axes: Triple
    density: tuple[float, float, float]
    ispg: int
    nsymbt: int

    def plausibility(self) -> int:
        """Count what makes sense in this byte order; a swapped small number is a huge or a negative one."""
        axes = 2 if _is_permutation(self.axes) else 0
        mode = 1 if self.mode in _READ_MODES or self.mode in _REFUSED_MODES else 0
        return axes + mode + sum(0 < edge <= _PLAUSIBLE_EDGE for edge in self.edges)


def looks_like_mrc(head: bytes) -> bool:
    """Say whether these first bytes of a file are an MRC header, perhaps a damaged one."""
    if len(head) < struct.calcsize(f"<{_LEADING}"):
        return False
    return head[208:211] == b"MAP" or _in_likelier_order(head).plausibility() >= _RECOGNISED


def parse_mrc(head: bytes, size: int) -> MrcHeader:
    """Check the header of an MRC file against the rules and the file's size.

    Args:
        head: The first 1,024 bytes.
        size: Bytes of the whole file.

    Raises:
        VolumeError: Naming the field that is wrong.
    """
    fields = _in_likelier_order(head)
    order = fields.byte_order
    stamp, flags = struct.unpack_from(f"{order}2i", head, 152)
    imod_flags = flags if stamp == IMOD_STAMP else None
    dtype = _dtype(fields.mode, imod_flags)
    _check_edges(fields.edges)
    _check_axes(fields.axes)
    _check_space_group(fields.ispg)
    data_bytes = math.prod(fields.edges) * ITEM_SIZES[dtype]
    _check_size(fields, data_bytes, size)

    shape = permuted(fields.edges, fields.axes)
    (rms,) = struct.unpack_from(f"{order}f", head, 216)
    return MrcHeader(
        format="mrc",
        compressed=False,
        file_size=size,
        shape=shape,
        voxel_size_nm=_voxel_size_nm(fields),
        dtype=dtype,
        byte_order=order,
        data_offset=HEADER_BYTES + fields.nsymbt,
        data_bytes=data_bytes,
        axis_order=fields.axes,
        warnings=tuple(_oddities(fields, head, shape, data_bytes, size)),
        header_bytes=head[:HEADER_BYTES],
        mode=fields.mode,
        nstart=permuted(fields.start, fields.axes),
        intervals=fields.intervals,
        cell_angstrom=fields.cell,
        cell_angles=fields.angles,
        origin_angstrom=struct.unpack_from(f"{order}3f", head, 196),
        ispg=fields.ispg,
        nsymbt=fields.nsymbt,
        exttyp=_printable(head[104:108]),
        density=(*fields.density, rms),
        machine_stamp=head[212:216],
        imod_flags=imod_flags,
        labels=_labels(head, order),
    )


def _in_order(head: bytes, order: ByteOrder) -> _Fields:
    values = struct.unpack_from(order + _LEADING, head)
    return _Fields(
        byte_order=order,
        edges=values[0:3],
        mode=values[3],
        start=values[4:7],
        intervals=values[7:10],
        cell=values[10:13],
        angles=values[13:16],
        axes=values[16:19],
        density=values[19:22],
        ispg=values[22],
        nsymbt=values[23],
    )


def _in_likelier_order(head: bytes) -> _Fields:
    """Read the fields in the byte order in which they make more sense; the machine stamp only breaks a tie.

    Stamps of real files are 44 44, 44 41, 11 11 or 0, and some contradict the data.
    """
    little, big = _in_order(head, "<"), _in_order(head, ">")
    if little.plausibility() == big.plausibility():
        return big if head[212:213] == b"\x11" else little
    return max(little, big, key=_Fields.plausibility)


def _is_permutation(axes: Triple) -> bool:
    return tuple(sorted(axes)) == _AXES


def _dtype(mode: int, imod_flags: int | None) -> str:
    if mode in _REFUSED_MODES:
        raise VolumeError("mode", f"MRC mode {mode} ({_REFUSED_MODES[mode]}) cannot be segmented.", hint=_CONVERT)
    if mode not in _READ_MODES:
        raise VolumeError(
            "mode",
            f"The MRC header gives mode {mode}, which does not exist; known are 0, 1, 2, 6 and 12.",
            hint="The header is damaged, or this is not an MRC file. " + _CONVERT,
        )
    if mode == 0 and imod_flags is not None:
        if imod_flags & IMOD_FOUR_BIT_VALUES:
            raise VolumeError(
                "imodFlags",
                "IMOD's flags say that each byte of this mode 0 file holds two 4-bit values.",
                hint=_CONVERT,
            )
        return "int8" if imod_flags & IMOD_SIGNED_BYTES else "uint8"
    return _READ_MODES[mode]


def _check_edges(edges: Triple) -> None:
    for name, edge in zip(("nx", "ny", "nz"), edges, strict=True):
        if edge <= 0:
            raise VolumeError(
                name,
                f"The MRC header gives {name} = {edge}; every dimension must be at least 1.",
                hint="The header is damaged. " + _COPY_AGAIN,
            )


def _check_axes(axes: Triple) -> None:
    if _is_permutation(axes):
        return
    names = ("mapc", "mapr", "maps")
    wrong = next(i for i, axis in enumerate(axes) if axis not in _AXES or axis in axes[:i])
    raise VolumeError(
        names[wrong],
        f"The MRC header gives mapc, mapr, maps = {axes[0]}, {axes[1]}, {axes[2]}; "
        "they must be 1, 2 and 3 in some order, one for each of X, Y and Z.",
        hint="Set them with IMOD's alterheader (1, 2, 3 unless you know otherwise), or write the file again.",
    )


def _check_space_group(ispg: int) -> None:
    if ispg in _VOLUME_STACKS:
        raise VolumeError(
            "ispg",
            f"This is a stack of volumes (ispg = {ispg}); one volume can be segmented at a time.",
            hint="Write each volume of the stack to a file of its own, for example with EMAN2's e2proc3d.py.",
        )


def _check_size(fields: _Fields, data_bytes: int, size: int) -> None:
    nx, ny, nz = fields.edges
    if HEADER_BYTES + data_bytes > _LARGEST_OFFSET:
        raise VolumeError(
            "nx",
            f"The MRC header claims nx x ny x nz = {nx} x {ny} x {nz} voxels, more than any file can hold.",
            hint="The header is damaged. " + _COPY_AGAIN,
        )
    if not 0 <= fields.nsymbt <= size - HEADER_BYTES:
        raise VolumeError(
            "nsymbt",
            f"The MRC header claims an extended header of nsymbt = {fields.nsymbt} bytes in a file of {size} bytes.",
            hint="The header is damaged. " + _COPY_AGAIN,
        )
    claimed = HEADER_BYTES + fields.nsymbt + data_bytes
    if size < claimed:
        raise VolumeError(
            "size",
            f"The file is truncated: {nx} x {ny} x {nz} voxels of mode {fields.mode} and {fields.nsymbt} bytes of "
            f"extended header need {claimed} bytes, but the file has {size}.",
            hint=_COPY_AGAIN,
        )


def _voxel_size_nm(fields: _Fields) -> tuple[float, float, float] | None:
    """MX…MZ and the cell belong to X, Y, Z whatever the axes' order in the file is."""
    if min(fields.intervals) <= 0:
        return None
    x, y, z = (length / n for length, n in zip(fields.cell, fields.intervals, strict=True))
    return voxel_size_from_angstrom((x, y, z))


def _oddities(fields: _Fields, head: bytes, shape: Triple, data_bytes: int, size: int) -> list[str]:
    odd = []
    surplus = size - HEADER_BYTES - fields.nsymbt - data_bytes
    if surplus:
        odd.append(f"The file is {surplus} bytes longer than its header says; they are ignored.")
    if head[208:211] != b"MAP":
        odd.append('The mark "MAP " is missing from the header.')
    stamped = {0x44: "<", 0x11: ">"}.get(head[212])
    if stamped not in (None, fields.byte_order):
        odd.append("The machine stamp contradicts the byte order in which the header makes sense; it is ignored.")
    if fields.intervals[2] == 1 and shape[2] > 1:
        odd.append(f"mz is 1 with {shape[2]} sections: is this a tilt series and not a volume?")
    if any(angle not in _RIGHT_ANGLES for angle in fields.angles):
        odd.append("The cell angles are not 90°; voxels are treated as right-angled boxes.")
    if _voxel_size_nm(fields) is None:
        odd.append("The voxel size is not set; sizes can be given in voxels only.")
    no_stamp = struct.unpack_from(f"{fields.byte_order}i", head, 152)[0] != IMOD_STAMP
    if fields.mode == 0 and no_stamp and fields.density[1] > _LARGEST_SIGNED_BYTE:
        odd.append(
            f"Bytes are taken as signed, yet the header's maximum is {fields.density[1]:.6g}: were they unsigned?"
        )
    return odd


def _lengths(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values) + " Å"


def _labels(head: bytes, order: ByteOrder) -> tuple[str, ...]:
    (used,) = struct.unpack_from(f"{order}i", head, 220)
    starts = (224 + i * _LABEL_BYTES for i in range(min(max(used, 0), _LABELS)))
    return tuple(text for start in starts if (text := _printable(head[start : start + _LABEL_BYTES])))


def _printable(raw: bytes) -> str:
    """Text of a header without what a terminal would obey."""
    return "".join(chr(byte) for byte in raw if chr(byte).isascii() and chr(byte).isprintable()).strip()
