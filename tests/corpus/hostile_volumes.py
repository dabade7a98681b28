"""Hostile volumes: a fixed list, each with the field that must be named, and a generator of any number more.

`python -m corpus.hostile_volumes FOLDER` (from `tests/`) writes the fixed list as files.
"""

import gzip
import io
import math
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from support.volume_files import MRC_FIELDS, NIFTI_FIELDS, mrc, nifti

IMOD_STAMP = 1146047817
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Hostile:
    """One file and what must be said of it."""

    content: Callable[[], bytes]
    field: str


def _mrc(field: str, order: str = "<", **fields: object) -> Hostile:
    return Hostile(lambda: mrc(order, **fields), field)


def _nifti(field: str, order: str = "<", **fields: object) -> Hostile:
    return Hostile(lambda: nifti(order, **fields), field)


def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def _bomb(head: bytes, megabytes: int) -> bytes:
    """A header, then zeros that deflate to a thousandth."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [deflate.compress(head)] + [deflate.compress(bytes(1_000_000)) for _ in range(megabytes)]
    return b"".join([*pieces, deflate.flush()])


def _zip_behind(content: bytes) -> bytes:
    """A zip archive is read from its end, a volume from its beginning."""
    archive = io.BytesIO()
    archive.write(content)
    with zipfile.ZipFile(archive, "a") as behind:
        behind.writestr("plans.json", "{}")
    return archive.getvalue()


def _tar() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/passwd"))
    return archive.getvalue()


def _disguised(magic: bytes, at: int, mark: bytes) -> bytes:
    """A file of one format with another's mark where that one has it."""
    content = bytearray(2000)
    content[: len(magic)] = magic
    content[at : at + len(mark)] = mark
    return bytes(content)


_MRC = {
    "MRC without columns": _mrc("nx", nx=0),
    "MRC without rows": _mrc("ny", ny=0),
    "MRC without sections": _mrc("nz", nz=0),
    "MRC with -1 columns": _mrc("nx", nx=-1),
    "MRC with -1 rows": _mrc("ny", ny=-1),
    "MRC with -2^31 sections": _mrc("nz", nz=-(2**31)),
    "MRC with 2^93 voxels": _mrc("nx", nx=LARGEST, ny=LARGEST, nz=LARGEST),
    "MRC with 2^63 voxels": _mrc("nx", nx=2**21, ny=2**21, nz=2**21),
    "MRC with 2^62 bytes": _mrc("size", nx=2**20, ny=2**20, nz=2**20),
    "MRC with 2^31 sections": _mrc("size", nz=LARGEST),
    "MRC of complex 16-bit": _mrc("mode", mode=3),
    "MRC of complex 32-bit": _mrc("mode", mode=4),
    "MRC of mode 5": _mrc("mode", mode=5),
    "MRC of colours": _mrc("mode", mode=16),
    "MRC of 4-bit values": _mrc("mode", mode=101),
    "MRC of mode -1": _mrc("mode", mode=-1),
    "MRC of mode 2^31-1": _mrc("mode", mode=LARGEST),
    "MRC of 4-bit values by IMOD's flag": _mrc("imodFlags", mode=0, imodStamp=IMOD_STAMP, imodFlags=17),
    "MRC without a column axis": _mrc("mapc", mapc=0),
    "MRC with a fourth axis": _mrc("mapr", mapr=4),
    "MRC with the same axis twice": _mrc("maps", maps=1),
    "MRC with axes of 2^31-1": _mrc("mapc", mapc=LARGEST, mapr=LARGEST, maps=LARGEST),
    "MRC of a stack of volumes": _mrc("ispg", ispg=401),
    "MRC with 2 GB of extended header": _mrc("nsymbt", nsymbt=LARGEST),
    "MRC with -1 bytes of extended header": _mrc("nsymbt", nsymbt=-1),
    "MRC with -2^31 bytes of extended header": _mrc("nsymbt", nsymbt=-(2**31)),
    "MRC whose extended header is the rest of the file": Hostile(lambda: mrc(nsymbt=240)[:1264], "size"),
    "MRC big-endian without columns": _mrc("nx", ">", nx=0),
    "MRC big-endian with 2 GB of extended header": _mrc("nsymbt", ">", nsymbt=LARGEST),
    "MRC big-endian of complex 32-bit": _mrc("mode", ">", mode=4),
    "MRC that ends in its header": Hostile(lambda: mrc()[:1023], "size"),
    "MRC that ends after its header": Hostile(lambda: mrc()[:1024], "size"),
    "MRC without its last byte": Hostile(lambda: mrc()[:-1], "size"),
}

_SHEARED = {"srow_x": (9.0, 1.0, 0.0, 0.0), "srow_y": (0.0, 9.0, 0.0, 0.0), "srow_z": (0.0, 0.0, 9.0, 0.0)}
_NIFTI = {
    "NIfTI with a header of 349 bytes": _nifti("sizeof_hdr", sizeof_hdr=349),
    "NIfTI with a header of -1 bytes": _nifti("sizeof_hdr", sizeof_hdr=-1),
    "NIfTI-2": _nifti("magic", sizeof_hdr=540),
    "NIfTI half of a pair": _nifti("magic", magic=b"ni1\0"),
    "NIfTI without a mark": _nifti("magic", magic=bytes(4)),
    "NIfTI of no dimension": _nifti("dim", dim=(0, 5, 4, 3, 1, 1, 1, 1)),
    "NIfTI of eight dimensions": _nifti("dim", dim=(8, 5, 4, 3, 1, 1, 1, 1)),
    "NIfTI of -1 dimensions": _nifti("dim", dim=(-1, 5, 4, 3, 1, 1, 1, 1)),
    "NIfTI of two dimensions": _nifti("dim", dim=(2, 5, 4, 1, 1, 1, 1, 1)),
    "NIfTI without depth": _nifti("dim", dim=(3, 5, 4, 0, 1, 1, 1, 1)),
    "NIfTI with a width of -32768": _nifti("dim", dim=(3, -32768, 4, 3, 1, 1, 1, 1)),
    "NIfTI of 2^15 volumes": _nifti("dim", dim=(4, 5, 4, 3, 32767, 1, 1, 1)),
    "NIfTI of 2^105 voxels": _nifti("dim", dim=(7, *(32767,) * 7)),
    "NIfTI of 2^45 voxels": _nifti("size", dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)),
    "NIfTI of no type": _nifti("datatype", datatype=0),
    "NIfTI of bits": _nifti("datatype", datatype=1),
    "NIfTI of complex numbers": _nifti("datatype", datatype=32, bitpix=64),
    "NIfTI of colours": _nifti("datatype", datatype=128, bitpix=24),
    "NIfTI of 128-bit numbers": _nifti("datatype", datatype=1536, bitpix=128),
    "NIfTI of type -1": _nifti("datatype", datatype=-1),
    "NIfTI of voxels without bits": _nifti("bitpix", bitpix=0),
    "NIfTI of voxels of -1 bits": _nifti("bitpix", bitpix=-1),
    "NIfTI with voxels in its header": _nifti("vox_offset", vox_offset=0.0),
    "NIfTI with voxels at NaN": _nifti("vox_offset", vox_offset=math.nan),
    "NIfTI with voxels at infinity": _nifti("vox_offset", vox_offset=math.inf),
    "NIfTI with voxels before the file": _nifti("vox_offset", vox_offset=-352.0),
    "NIfTI with voxels between two bytes": _nifti("vox_offset", vox_offset=352.5),
    "NIfTI with voxels at 3e38": _nifti("vox_offset", vox_offset=3e38),
    "NIfTI with an infinite intercept": _nifti("scl_inter", scl_slope=2.0, scl_inter=math.inf),
    "NIfTI that is sheared": _nifti("srow_x", sform_code=1, **_SHEARED),
    "NIfTI that is flattened": _nifti("srow_x", sform_code=1),
    "NIfTI with an affine of NaN": _nifti("srow_x", sform_code=1, srow_z=(0.0, 0.0, math.nan, 0.0)),
    "NIfTI big-endian of complex numbers": _nifti("datatype", ">", datatype=32, bitpix=64),
    "NIfTI that ends in its header": Hostile(lambda: nifti()[:347], "size"),
    "NIfTI without its last byte": Hostile(lambda: nifti()[:-1], "size"),
}

_BIG = {"dim": (3, 1000, 1000, 100, 1, 1, 1, 1)}
_GZIP = {
    "gzip that inflates to 300 MB behind 240 bytes": Hostile(lambda: _bomb(nifti(data=b""), 300), "size"),
    "gzip that claims more than gzip can hold": Hostile(lambda: _gzipped(nifti(**_BIG)), "dim"),
    "gzip of 400 MB that lacks its last voxels": Hostile(lambda: _bomb(nifti(data=b"", **_BIG), 399), "size"),
    "gzip that ends in its own header": Hostile(lambda: _gzipped(nifti())[:7], "gzip"),
    "gzip that ends in its voxels": Hostile(lambda: _gzipped(nifti(data=bytes(range(240))))[:-20], "gzip"),
    "gzip with a wrong checksum": Hostile(lambda: _gzipped(nifti())[:-8] + bytes(8), "gzip"),
    "gzip with something behind it": Hostile(lambda: _gzipped(nifti()) + b"something", "gzip"),
    "gzip whose second part is cut": Hostile(lambda: _gzipped(nifti()) + _gzipped(b"x")[:9], "gzip"),
    "gzip of a reserved method": Hostile(lambda: b"\x1f\x8b\x09" + bytes(1200), "format"),
    "gzip with all flags set": Hostile(lambda: b"\x1f\x8b\x08\xff" + b"\xff" * 1200, "gzip"),
    "gzip with a name without an end": Hostile(lambda: b"\x1f\x8b\x08\x08" + b"x" * 100_000, "gzip"),
    "gzip of nothing, 1,000 times": Hostile(lambda: _gzipped(b"") * 1000, "format"),
    "gzip in gzip": Hostile(lambda: _gzipped(_gzipped(nifti())), "format"),
    "gzip of an MRC file": Hostile(lambda: _gzipped(mrc()), "format"),
    "gzip of 300 MB of zeros": Hostile(lambda: _bomb(b"", 300), "format"),
}

_POLYGLOTS = {
    "PNG with MRC's mark": Hostile(lambda: _disguised(b"\x89PNG\r\n\x1a\n", 208, b"MAP "), "nz"),
    "PDF with MRC's mark": Hostile(lambda: _disguised(b"%PDF-1.7", 208, b"MAP "), "nz"),
    "program with MRC's mark": Hostile(lambda: _disguised(b"\x7fELF\x02\x01\x01", 208, b"MAP "), "nz"),
    "DICOM with MRC's mark": Hostile(lambda: _disguised(bytes(128) + b"DICM", 208, b"MAP "), "nx"),
    "zip with NIfTI's mark": Hostile(lambda: _disguised(b"PK\x03\x04", 344, b"n+1\0"), "sizeof_hdr"),
    "HTML with NIfTI's mark": Hostile(lambda: _disguised(b"<!DOCTYPE html><script>", 344, b"n+1\0"), "sizeof_hdr"),
    "pickle with NIfTI's mark": Hostile(lambda: _disguised(pickle.dumps(list(range(50))), 344, b"n+1\0"), "sizeof_hdr"),
    "MRC with NIfTI's mark in a label": Hostile(lambda: _disguised(mrc(), 344, b"n+1\0"), "sizeof_hdr"),
    "NIfTI with MRC's mark and complex numbers": Hostile(
        lambda: _disguised(nifti(datatype=32, bitpix=64), 208, b"MAP "), "datatype"
    ),
    "MRC without sections before a zip archive": Hostile(lambda: _zip_behind(mrc(nz=0)), "nz"),
    "tar of a path": Hostile(_tar, "format"),
    "one byte": Hostile(lambda: b"\0", "format"),
    "NaN throughout": Hostile(lambda: struct.pack("<f", math.nan) * 600, "mode"),
    "ones throughout": Hostile(lambda: b"\xff" * 3000, "format"),
}

HOSTILE: dict[str, Hostile] = {**_MRC, **_NIFTI, **_GZIP, **_POLYGLOTS}


def _mutation(build: Callable[..., bytes], table: dict[str, tuple[int, str]]) -> st.SearchStrategy[bytes]:
    """A valid file with up to four fields replaced by any bytes of their length, cut or compressed at times."""
    fields = {
        name: st.binary(min_size=struct.calcsize(f"<{form}"), max_size=struct.calcsize(f"<{form}"))
        for name, (_, form) in table.items()
    }

    @st.composite
    def mutate(draw: st.DrawFn) -> bytes:
        content = bytearray(build(draw(st.sampled_from("<>"))))
        for name in draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=4, unique=True)):
            raw = draw(fields[name])
            offset = table[name][0]
            content[offset : offset + len(raw)] = raw
        cut = draw(st.none() | st.integers(1, len(content)))
        whole = bytes(content[:cut])
        return _gzipped(whole) if draw(st.booleans()) else whole

    return mutate()


def hostile_volumes() -> st.SearchStrategy[bytes]:
    """Volumes that may be harmless, refused, or made to do harm."""
    return st.one_of(
        _mutation(mrc, MRC_FIELDS),
        _mutation(nifti, NIFTI_FIELDS),
        st.binary(min_size=1, max_size=3000),
        st.binary(max_size=2000).map(lambda tail: b"\x1f\x8b\x08" + tail),
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, hostile in HOSTILE.items():
        (folder / name.replace("/", "-")).write_bytes(hostile.content())
