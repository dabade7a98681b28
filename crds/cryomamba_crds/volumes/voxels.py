"""The voxels of a checked file as a bounded stream of bytes."""

from collections.abc import Iterator
from typing import BinaryIO

from cryomamba_crds.volumes.error import VolumeError
from cryomamba_crds.volumes.header import VolumeHeader
from cryomamba_crds.volumes.inflate import Inflater

_HINT = "Copy or export the file again and compare its size with the original's."


def iter_voxels(stream: BinaryIO, header: VolumeHeader, *, block_bytes: int = 262_144) -> Iterator[bytes]:
    """Yield the voxels as they are stored, in file order and byte order, ``header.data_bytes`` in all.

    Every block is a whole number of voxels and, but for the last, as long as the others. What is wrong with the
    end of a gzip file is only known there: an error may come after the last block.

    Args:
        stream: The file that the header was read from, seekable, at any position.
        header: What `read_header` returned for it.
        block_bytes: Most bytes to hold at a time; at least one voxel is.

    Raises:
        VolumeError: The file holds fewer voxels than its header claims; a gzip stream is corrupt, truncated, or
            inflates to more than that (found after at most one block too many).
    """
    stream.seek(0)
    block = max(block_bytes // header.item_size, 1) * header.item_size
    if header.compressed:
        yield from _inflated(Inflater(stream), header, block)
    else:
        stream.seek(header.data_offset)
        yield from _stored(stream, header, block)


def _stored(stream: BinaryIO, header: VolumeHeader, block: int) -> Iterator[bytes]:
    left = header.data_bytes
    while left:
        piece = _read_exactly(stream, min(block, left))
        left -= len(piece)
        if len(piece) < min(block, left + len(piece)):
            raise _too_short(header, header.data_bytes - left)
        yield piece


def _read_exactly(stream: BinaryIO, wanted: int) -> bytes:
    """A raw stream may return less than asked for before its end."""
    pieces = []
    while wanted and (piece := stream.read(wanted)):
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


def _inflated(inflater: Inflater, header: VolumeHeader, block: int) -> Iterator[bytes]:
    _skip(inflater, header, block)
    left = header.data_bytes
    while left:
        wanted = min(block, left)
        piece = inflater.read_exactly(wanted)
        left -= len(piece)
        if len(piece) < wanted:
            raise _too_short(header, header.data_bytes - left)
        yield piece
    if inflater.read(block):
        raise VolumeError(
            "size",
            f"The gzip stream inflates to more than the {header.data_offset + header.data_bytes} bytes "
            "that the NIfTI header claims.",
            hint="The header is damaged, or the file was made to exhaust a reader; write the volume again.",
        )


def _skip(inflater: Inflater, header: VolumeHeader, block: int) -> None:
    left = header.data_offset
    while left:
        piece = inflater.read(min(block, left))
        if not piece:
            raise _too_short(header, 0)
        left -= len(piece)


def _too_short(header: VolumeHeader, found: int) -> VolumeError:
    return VolumeError(
        "size", f"The header claims {header.data_bytes} bytes of voxels, but the file holds {found}.", hint=_HINT
    )
