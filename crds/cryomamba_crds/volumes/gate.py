"""The gate: whatever the file is called, its content says what it is, and its header must be right."""

from typing import BinaryIO

from cryomamba_crds.volumes.error import VolumeError
from cryomamba_crds.volumes.header import VolumeHeader
from cryomamba_crds.volumes.inflate import Inflater
from cryomamba_crds.volumes.likeness import likeness
from cryomamba_crds.volumes.mrc import HEADER_BYTES as MRC_HEADER_BYTES
from cryomamba_crds.volumes.mrc import looks_like_mrc, parse_mrc
from cryomamba_crds.volumes.nifti import HEADER_BYTES as NIFTI_HEADER_BYTES
from cryomamba_crds.volumes.nifti import has_nifti_length, looks_like_nifti, parse_nifti

_GZIP_DEFLATE = b"\x1f\x8b\x08"
_FORMATS = "MRC (modes 0, 1, 2, 6, 12) or NIfTI-1 (.nii, .nii.gz)"
_HINT = f"Give a tomogram as {_FORMATS}."


def read_header(stream: BinaryIO, size: int) -> VolumeHeader:
    """Read and check the header of a volume; no more than its first kilobytes are read.

    Args:
        stream: The file, seekable, at any position; its name is never looked at.
        size: Bytes of the file.

    Returns:
        An `MrcHeader` or a `NiftiHeader`.

    Raises:
        VolumeError: Naming the field that is wrong and why, or what the file looks like instead.
    """
    stream.seek(0)
    head = stream.read(MRC_HEADER_BYTES)
    if head.startswith(_GZIP_DEFLATE):
        stream.seek(0)
        return _compressed(Inflater(stream).read_exactly(MRC_HEADER_BYTES), size)
    if looks_like_nifti(head):
        return parse_nifti(_whole(head, NIFTI_HEADER_BYTES), size, compressed=False)
    if looks_like_mrc(head):
        return parse_mrc(_whole(head, MRC_HEADER_BYTES), size)
    if has_nifti_length(head):
        return parse_nifti(_whole(head, NIFTI_HEADER_BYTES), size, compressed=False)
    raise VolumeError("format", f"The file is neither MRC nor NIfTI; it looks like {likeness(head)}.", hint=_HINT)


def _compressed(head: bytes, size: int) -> VolumeHeader:
    if looks_like_nifti(head):
        return parse_nifti(_whole(head, NIFTI_HEADER_BYTES), size, compressed=True)
    if looks_like_mrc(head):
        raise VolumeError(
            "format", "This is an MRC file inside gzip, which is not read.", hint="Unpack it first: `gunzip FILE`."
        )
    raise VolumeError("format", f"This is gzip, and what is inside looks like {likeness(head)}.", hint=_HINT)


def _whole(head: bytes, wanted: int) -> bytes:
    if len(head) < wanted:
        raise VolumeError(
            "size",
            f"The file is truncated: it ends after {len(head)} of the {wanted} bytes of its header.",
            hint="Copy or export the file again and compare its size with the original's.",
        )
    return head
