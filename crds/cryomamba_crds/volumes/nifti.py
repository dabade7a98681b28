"""NIfTI-1 in one file: the 348 bytes of the header, checked field by field.

The format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h .
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
    VoxelSizeNm,
    common_facts,
    voxel_size_from_angstrom,
)

HEADER_BYTES = 348
MIN_OFFSET = 352
"""Header and the four bytes that say whether extensions follow."""
LARGEST_DEFLATE_RATIO = 1032
"""No deflate stream inflates to more than this times its own size: 258 bytes for two bits."""

_NIFTI2_HEADER_BYTES = 540
_READ_TYPES = {
    2: "uint8",
    4: "int16",
    8: "int32",
    16: "float32",
    64: "float64",
    256: "int8",
    512: "uint16",
    768: "uint32",
    1024: "int64",
    1280: "uint64",
}
_REFUSED_TYPES = {
    0: "unknown",
    1: "single bits",
    32: "complex64",
    128: "RGB colour",
    1536: "128-bit floats",
    1792: "complex128",
    2048: "complex256",
    2304: "RGBA colour",
}
_METRE, _MILLIMETRE, _MICROMETRE = 1, 2, 3
_ANGSTROM_PER_UNIT = {_METRE: 1e10, _MICROMETRE: 1e4}
_UNIT_NAMES = {0: "unknown", _METRE: "m", _MILLIMETRE: "mm", _MICROMETRE: "µm"}
_UNIT_MASK = 0x07
_VOLUME_DIMENSIONS = 3
_CHANNEL_AXIS = 4
_MOST_CHANNELS = 64
_LARGEST_RANK = 7
_SHEAR = 1e-4  # cosine between two axes of the affine; rounding to float32 stays below 1e-6
_DISAGREEMENT = 0.01
_COPY_AGAIN = "Copy or export the file again and compare its size with the original's."
_WRITE_AGAIN = "Write the volume again, for example with nibabel: nibabel.Nifti1Image(data, affine)."


@dataclass(frozen=True, kw_only=True)
class NiftiHeader(VolumeHeader):
    """A checked NIfTI-1 header."""

    datatype: int
    pixdim: tuple[float, float, float]
    """Spacing along [X, Y, Z] as the file has it, in its own unit."""
    unit: str
    qform_code: int
    sform_code: int
    description: str

    def facts(self) -> dict[str, str]:
        """Return what a person wants to know about the file, name to text, in the order to show it in."""
        slope, intercept = self.scale
        return {
            "format": f"NIfTI-1{', gzip' if self.compressed else ''}, datatype {self.datatype} ({self.dtype})",
            **common_facts(self),
            "pixdim (X, Y, Z)": ", ".join(f"{edge:.6g}" for edge in self.pixdim) + f", unit {self.unit}",
            "scaling": f"{slope:g} x stored + {intercept:g}",
            "qform, sform codes": f"{self.qform_code}, {self.sform_code}",
            "description": self.description or "none",
        }


def looks_like_nifti(head: bytes) -> bool:
    """Say whether these first bytes of a file, inflated if need be, carry a NIfTI mark of any version."""
    if head[4:7] == b"n+2" or head[4:7] == b"ni2":
        return _order_by_length(head, _NIFTI2_HEADER_BYTES) is not None
    return head[344:348] in (b"n+1\0", b"ni1\0")


def has_nifti_length(head: bytes) -> bool:
    """Say whether the first field is NIfTI-1's, though the mark is missing: ANALYZE 7.5, or a file that ends before it.

    An MRC file that is 348 voxels wide begins like this too.
    """
    return _order_by_length(head, HEADER_BYTES) is not None


def parse_nifti(head: bytes, size: int, *, compressed: bool) -> NiftiHeader:
    """Check the header of a NIfTI-1 file against the rules and the file's size.

    Args:
        head: The first 348 bytes, inflated.
        size: Bytes of the whole file as it lies on disk.
        compressed: Whether it lies there as gzip.

    Raises:
        VolumeError: Naming the field that is wrong.
    """
    order = _byte_order(head)
    dim = struct.unpack_from(f"{order}8h", head, 40)
    datatype, bitpix = struct.unpack_from(f"{order}2h", head, 70)
    pixdim = struct.unpack_from(f"{order}3f", head, 80)
    shape, channels = _shape(dim)
    dtype = _dtype(datatype, bitpix)
    data_bytes = channels * math.prod(shape) * ITEM_SIZES[dtype]
    offset = _data_offset(struct.unpack_from(f"{order}f", head, 108)[0])
    _check_size(dtype, (*shape, channels), offset, size, compressed=compressed)
    unit = head[123] & _UNIT_MASK
    qform_code, sform_code = struct.unpack_from(f"{order}2h", head, 252)
    rows = struct.unpack_from(f"{order}12f", head, 280)
    _check_affine(sform_code, rows)

    warnings = _unit_oddities(unit, pixdim)
    if sform_code > 0:
        warnings += _affine_oddities(rows, pixdim)
    if not compressed and size > offset + data_bytes:
        warnings.append(
            f"The file is {size - offset - data_bytes} bytes longer than its header says; they are ignored."
        )
    return NiftiHeader(
        format="nifti",
        compressed=compressed,
        file_size=size,
        shape=shape,
        channels=channels,
        voxel_size_nm=_voxel_size_nm(pixdim, unit),
        dtype=dtype,
        byte_order=order,
        data_offset=offset,
        data_bytes=data_bytes,
        axis_order=(1, 2, 3),
        scale=_scale(*struct.unpack_from(f"{order}2f", head, 112)),
        warnings=tuple(warnings),
        header_bytes=head[:HEADER_BYTES],
        datatype=datatype,
        pixdim=pixdim,
        unit=_UNIT_NAMES.get(unit, f"code {unit}"),
        qform_code=qform_code,
        sform_code=sform_code,
        description="".join(chr(b) for b in head[148:228] if chr(b).isascii() and chr(b).isprintable()).strip(),
    )


def _order_by_length(head: bytes, length: int) -> ByteOrder | None:
    if head[:4] == struct.pack("<i", length):
        return "<"
    return ">" if head[:4] == struct.pack(">i", length) else None


def _byte_order(head: bytes) -> ByteOrder:
    if _order_by_length(head, _NIFTI2_HEADER_BYTES) is not None:
        raise VolumeError("magic", "This is a NIfTI-2 file; NIfTI-1 is read.", hint=_WRITE_AGAIN)
    if head[344:348] == b"ni1\0":
        raise VolumeError(
            "magic",
            "This is the header of a NIfTI pair (.hdr and .img); the voxels are in another file.",
            hint="Join both into one .nii file, for example with nibabel: nibabel.save(nibabel.load(HDR), 'OUT.nii').",
        )
    order = _order_by_length(head, HEADER_BYTES)
    if order is None:
        raise VolumeError(
            "sizeof_hdr",
            f"The NIfTI header does not begin with its length, {HEADER_BYTES}, in either byte order.",
            hint=_WRITE_AGAIN,
        )
    if head[344:348] != b"n+1\0":
        raise VolumeError("magic", "This is an ANALYZE 7.5 header: the mark of NIfTI is missing.", hint=_WRITE_AGAIN)
    return order


def _shape(dim: tuple[int, ...]) -> tuple[Triple, int]:
    """Return the voxels along [X, Y, Z], and how many such volumes there are along the fourth axis."""
    rank = dim[0]
    if not 1 <= rank <= _LARGEST_RANK:
        raise VolumeError("dim", f"The NIfTI header gives dim[0] = {rank}; it must be 1 to 7.", hint=_WRITE_AGAIN)
    used = dim[1 : rank + 1]
    text = " x ".join(map(str, used))
    if min(used) <= 0:
        raise VolumeError(
            "dim", f"The NIfTI header gives dimensions {text}; each must be at least 1.", hint=_WRITE_AGAIN
        )
    if rank < _VOLUME_DIMENSIONS:
        raise VolumeError(
            "dim", f"The NIfTI file has {rank} dimension(s) ({text}); a volume has three.", hint=_WRITE_AGAIN
        )
    if math.prod(used[_CHANNEL_AXIS:]) != 1:
        raise VolumeError(
            "dim",
            f"The NIfTI file has more than four dimensions ({text}); what is beyond the channels of a volume, which "
            "are the fourth, is not read.",
            hint="Write each volume, or the channels of one, to a file of its own.",
        )
    channels = used[_VOLUME_DIMENSIONS] if rank > _VOLUME_DIMENSIONS else 1
    if channels > _MOST_CHANNELS:
        raise VolumeError(
            "dim",
            f"The NIfTI file holds {channels} volumes ({text}); up to {_MOST_CHANNELS} are read as channels of one.",
            hint="Write each volume to a file of its own, for example with FSL's fslsplit.",
        )
    return (used[0], used[1], used[2]), channels


def _dtype(datatype: int, bitpix: int) -> str:
    if datatype not in _READ_TYPES:
        raise VolumeError(
            "datatype",
            f"NIfTI datatype {datatype} ({_REFUSED_TYPES.get(datatype, 'not defined')}) cannot be segmented.",
            hint="Write the volume again as float32.",
        )
    dtype = _READ_TYPES[datatype]
    if bitpix != 8 * ITEM_SIZES[dtype]:
        raise VolumeError(
            "bitpix",
            f"The NIfTI header gives bitpix = {bitpix} for {dtype}, which has {8 * ITEM_SIZES[dtype]} bits.",
            hint=_WRITE_AGAIN,
        )
    return dtype


def _data_offset(vox_offset: float) -> int:
    if not (math.isfinite(vox_offset) and vox_offset == int(vox_offset) and vox_offset >= MIN_OFFSET):
        raise VolumeError(
            "vox_offset",
            f"The NIfTI header gives vox_offset = {vox_offset:g}; it must be a whole number of at least {MIN_OFFSET}.",
            hint=_WRITE_AGAIN,
        )
    return int(vox_offset)


def _check_size(dtype: str, shape: tuple[int, ...], offset: int, size: int, *, compressed: bool) -> None:
    most = size * LARGEST_DEFLATE_RATIO if compressed else size
    if offset > most:
        raise VolumeError(
            "vox_offset",
            f"The NIfTI header puts the voxels at vox_offset = {offset:g}, past the end of a file of {size} bytes.",
            hint=_WRITE_AGAIN,
        )
    claimed = offset + math.prod(shape) * ITEM_SIZES[dtype]
    if claimed <= most:
        return
    size_text = " x ".join(map(str, shape if shape[-1] > 1 else shape[:-1]))
    claim = f"{size_text} voxels of {dtype} and what precedes them need {claimed} bytes"
    if compressed:
        raise VolumeError(
            "dim",
            f"By the NIfTI header, {claim}; {size} bytes of gzip cannot hold that.",
            hint="The header is damaged or the file is truncated. " + _COPY_AGAIN,
        )
    raise VolumeError("size", f"The file is truncated: {claim}, but the file has {size}.", hint=_COPY_AGAIN)


def _check_affine(sform_code: int, rows: tuple[float, ...]) -> None:
    if sform_code <= 0:
        return  # the affine then comes from a quaternion, which cannot shear
    if not all(math.isfinite(value) for value in rows):
        raise VolumeError("srow_x", "The NIfTI affine (srow_x … srow_z) holds NaN or infinity.", hint=_WRITE_AGAIN)
    columns = [rows[i::4] for i in range(3)]
    lengths = [math.hypot(*column) for column in columns]
    if min(lengths) == 0:
        raise VolumeError("srow_x", "The NIfTI affine (srow_x … srow_z) maps an axis to nothing.", hint=_WRITE_AGAIN)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosine = sum(a / lengths[i] * (b / lengths[j]) for a, b in zip(columns[i], columns[j], strict=True))
        if abs(cosine) > _SHEAR:
            raise VolumeError(
                "srow_x",
                f"The NIfTI affine (srow_x … srow_z) is sheared: axes {'XYZ'[i]} and {'XYZ'[j]} are not at 90°.",
                hint="Resample the volume onto a right-angled grid.",
            )


def _voxel_size_nm(pixdim: tuple[float, float, float], unit: int) -> VoxelSizeNm | None:
    """Spacing is pixdim, as nnU-Net reads it; its sign carries nothing."""
    factor = _ANGSTROM_PER_UNIT.get(unit, 1.0)
    x, y, z = (abs(edge) * factor for edge in pixdim)
    return voxel_size_from_angstrom((x, y, z))


def _unit_oddities(unit: int, pixdim: tuple[float, float, float]) -> list[str]:
    odd = []
    if unit not in _ANGSTROM_PER_UNIT:
        odd.append(f"The unit of length is {_UNIT_NAMES.get(unit, f'code {unit}')}; pixdim is taken as Å.")
    if any(edge < 0 for edge in pixdim):
        odd.append("pixdim is negative; its sign is ignored.")
    if _voxel_size_nm(pixdim, unit) is None:
        odd.append("The voxel size is not set; sizes can be given in voxels only.")
    return odd


def _affine_oddities(rows: tuple[float, ...], pixdim: tuple[float, float, float]) -> list[str]:
    lengths = [math.hypot(*rows[i::4][:3]) for i in range(3)]
    if any(abs(length - abs(edge)) > _DISAGREEMENT * length for length, edge in zip(lengths, pixdim, strict=True)):
        return ["pixdim and the affine disagree about the voxel size; pixdim is used, as nnU-Net does."]
    return []


def _scale(slope: float, intercept: float) -> tuple[float, float]:
    """Slope and intercept; a slope of zero, NaN or infinity means that there is no scaling."""
    if slope == 0 or not math.isfinite(slope):
        return (1.0, 0.0)
    if not math.isfinite(intercept):
        raise VolumeError(
            "scl_inter",
            f"The NIfTI header gives scl_inter = {intercept}; it must be finite.",
            hint=_WRITE_AGAIN,
        )
    return (slope, intercept)
