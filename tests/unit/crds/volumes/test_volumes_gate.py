"""What the gate does with files that are no volumes, by content and never by name, and what it spends on them."""

import gzip
import io
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryomamba_crds.volumes import VolumeError, VolumeHeader, iter_voxels, read_header

Build = Callable[..., bytes]
Read = Callable[[bytes], VolumeHeader]
Gzipped = Callable[[bytes], bytes]

MEGABYTE = 1_000_000


def a_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("plans.json", "{}" * 1000)
    return content.getvalue()


IMPOSTORS = {
    "an empty file": (b"", "an empty file"),
    "a text file": (b"x,y,z\n1,2,3\n" * 200, "a text file"),
    "a short text file": ("Å per pixel: 13.48\n".encode(), "a text file"),
    "a web page": (b"<!DOCTYPE html><title>404 Not Found</title>" * 50, "a web page"),
    "a pickle": (pickle.dumps([{"os.system": n} for n in range(500)], protocol=4), "a Python pickle"),
    "a zip": (a_zip(), "a zip archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(2000), "an HDF5 file"),
    "NumPy": (b"\x93NUMPY\x01\0v\0{'descr': '<f4'}" + bytes(2000), "a NumPy .npy file"),
    "TIFF": (b"II*\0\x08\0\0\0" + bytes(2000), "a TIFF image"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(2000), "a PNG image"),
    "DM4": (b"\0\0\0\x04\0\0\0\0\x01\0\0\0" + bytes(2000), "a Gatan DM4 file"),
    "tar": (bytes([1]) * 257 + b"ustar\0" + bytes(2000), "a tar archive"),
    "zeros": (bytes(5000), "nothing but zeros"),
    "noise": (random.Random(7).randbytes(5000), "no format known here"),
    "gzip of text": (gzip.compress(b"hello " * 500, mtime=0), "inside looks like a text file"),
    "gzip of nothing": (gzip.compress(b"", mtime=0), "inside looks like an empty file"),
}


def refusal(content: bytes) -> VolumeError:
    with pytest.raises(VolumeError) as caught:
        read_header(io.BytesIO(content), len(content))
    return caught.value


@pytest.mark.parametrize(("content", "words"), IMPOSTORS.values(), ids=IMPOSTORS)
def test_what_is_no_volume_is_refused_with_what_it_looks_like(content: bytes, words: str) -> None:
    error = refusal(content)

    assert error.field == "format"
    assert words in error.failure.message
    assert "MRC" in error.failure.hint


def test_a_gzipped_mrc_file_is_refused_by_name_with_how_to_unpack_it(mrc: Build, gzipped: Gzipped) -> None:
    error = refusal(gzipped(mrc()))

    assert "MRC file inside gzip" in error.failure.message
    assert "gunzip" in error.failure.hint


@pytest.mark.parametrize("kept", [100, 300, 347, 1000, 1023])
def test_an_mrc_file_that_ends_inside_its_header_is_refused_as_truncated(mrc: Build, kept: int) -> None:
    error = refusal(mrc()[:kept])

    assert error.field == "size"
    assert f"ends after {kept}" in error.failure.message


@pytest.mark.parametrize("compress", [False, True])
def test_a_nifti_file_that_ends_inside_its_header_is_refused(nifti: Build, gzipped: Gzipped, *, compress: bool) -> None:
    content = nifti()[:300]

    error = refusal(gzipped(content) if compress else content)

    assert error.field in ("size", "format")


@pytest.mark.parametrize("kept", [3, 12, 30])
def test_a_gzip_that_ends_before_the_header_is_refused_as_truncated(nifti: Build, gzipped: Gzipped, kept: int) -> None:
    error = refusal(gzipped(nifti())[:kept])

    assert error.field == "gzip"
    assert "truncated" in error.failure.message


def test_an_mrc_file_348_voxels_wide_is_not_mistaken_for_nifti(mrc: Build, read: Read) -> None:
    assert read(mrc(nx=348, ny=2, nz=2)).format == "mrc"


@pytest.mark.parametrize("edge", [640, 896, 1152, 8075])
def test_a_width_that_begins_like_another_format_is_still_a_width(mrc: Build, read: Read, edge: int) -> None:
    """640 begins like a pickle, 8075 = 0x1f8b like gzip in big-endian."""
    for order in "<>":
        assert read(mrc(order, nx=edge, ny=2, nz=2, mode=0)).shape[0] == edge


def test_the_stream_may_be_anywhere_before(mrc: Build) -> None:
    stream = io.BytesIO(mrc())
    stream.seek(500)

    assert read_header(stream, 1264).shape == (5, 4, 3)


def spent(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [content for content, _ in IMPOSTORS.values()], ids=IMPOSTORS)
def test_an_impostor_costs_less_than_a_megabyte(content: bytes) -> None:
    assert spent(lambda: refusal(content)) < MEGABYTE


@pytest.mark.parametrize(
    "fields",
    [{"nx": 2**21, "ny": 2**21, "nz": 2**21}, {"nsymbt": 2**31 - 1}, {"mode": 4}, {"nx": 0}, {"nz": 2**31 - 1}],
    ids=str,
)
def test_a_header_that_claims_too_much_costs_less_than_a_megabyte(mrc: Build, fields: dict[str, object]) -> None:
    content = mrc(**fields)

    assert spent(lambda: refusal(content)) < MEGABYTE


def check_that_it_is_refused_or_bounded(content: bytes) -> None:
    """Nothing but a VolumeError, or a header whose claims lie within the file."""
    stream = io.BytesIO(content)
    try:
        header = read_header(stream, len(content))
    except VolumeError:
        return
    header.facts()
    assert min(header.shape) > 0
    if not header.compressed:
        assert header.data_offset + header.data_bytes <= len(content)
        assert sum(map(len, iter_voxels(stream, header))) == header.data_bytes


words_of_32_bits = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 1, 0x7F800000, 0xFFC00000, 0x7FC00000]),
)


@settings(max_examples=300)
@given(words=st.dictionaries(st.integers(0, 55), words_of_32_bits, min_size=1, max_size=8), order=st.sampled_from("<>"))
def test_no_mutation_of_an_mrc_header_does_anything_but_raise_a_volume_error(
    mrc: Build, words: dict[int, int], order: str
) -> None:
    content = bytearray(mrc(order))
    for place, word in words.items():
        struct.pack_into(f"{order}I", content, place * 4, word)

    check_that_it_is_refused_or_bounded(bytes(content))


@settings(max_examples=300)
@given(
    halves=st.dictionaries(st.integers(0, 173), st.integers(0, 2**16 - 1), min_size=1, max_size=8),
    order=st.sampled_from("<>"),
    compress=st.booleans(),
)
def test_no_mutation_of_a_nifti_header_does_anything_but_raise_a_volume_error(
    nifti: Build, gzipped: Gzipped, halves: dict[int, int], order: str, *, compress: bool
) -> None:
    content = bytearray(nifti(order, sform_code=1, srow_x=(9.0, 0, 0, 0), srow_y=(0, 9.0, 0, 0), srow_z=(0, 0, 9.0, 0)))
    for place, half in halves.items():
        struct.pack_into(f"{order}H", content, place * 2, half)

    check_that_it_is_refused_or_bounded(gzipped(bytes(content)) if compress else bytes(content))


@settings(max_examples=300)
@given(content=st.binary(max_size=1500))
def test_no_bytes_at_all_do_anything_but_raise_a_volume_error(content: bytes) -> None:
    check_that_it_is_refused_or_bounded(content)
    check_that_it_is_refused_or_bounded(b"\x1f\x8b\x08" + content)
