"""Gzip, inflated a bounded piece at a time."""

import zlib
from typing import BinaryIO

from cryomamba_crds.volumes.error import VolumeError

_GZIP_FORMAT = 16 + zlib.MAX_WBITS  # header, checksum and length are then zlib's to verify
_INPUT_BYTES = 65_536
_HINT = "Copy the file again, or compress the volume again; `gzip -t FILE` checks it."


class Inflater:
    """Reads what is inside a gzip file of one or more members, holding no more than what is asked for.

    Args:
        stream: The compressed file, at its beginning.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._member = zlib.decompressobj(_GZIP_FORMAT)
        self._pending = b""
        self._ended = False

    def read(self, most: int) -> bytes:
        """Return one to `most` bytes, or none at the end of a complete file.

        Raises:
            VolumeError: On a corrupt or truncated file, or on bytes after its end.
        """
        while not self._ended:
            if not self._pending:
                self._pending = self._stream.read(_INPUT_BYTES)
            at_end = not self._pending
            try:
                piece = self._member.decompress(self._pending, most)
            except zlib.error as error:
                raise VolumeError("gzip", f"The gzip stream is corrupt ({error}).", hint=_HINT) from error
            self._pending = self._member.unconsumed_tail
            if self._member.eof:
                self._finish_member()
            if piece:
                return piece
            if at_end and not self._ended:
                raise VolumeError("gzip", "The gzip stream ends too early: the file is truncated.", hint=_HINT)
        return b""

    def read_exactly(self, wanted: int) -> bytes:
        """Return `wanted` bytes, or fewer where the file ends before."""
        pieces = []
        while wanted and (piece := self.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def _finish_member(self) -> None:
        """Go on with the next member; zeros after the last one are padding, as gzip itself takes them."""
        rest = self._member.unused_data or self._stream.read(_INPUT_BYTES)
        while rest and not rest.strip(b"\0"):
            rest = self._stream.read(_INPUT_BYTES)
        self._pending = rest.lstrip(b"\0")
        self._ended = not self._pending
        if not self._ended:
            self._member = zlib.decompressobj(_GZIP_FORMAT)
