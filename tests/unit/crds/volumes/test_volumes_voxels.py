"""The stream of voxels: whole, exact, and no larger than a block."""

import gzip
import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cryomamba_crds.volumes import VolumeError, VolumeHeader, iter_voxels, read_header

Build = Callable[..., bytes]
Gzipped = Callable[[bytes], bytes]

BIG = {"dim": (3, 100, 100, 100, 1, 1, 1, 1)}


def stream_of(content: bytes) -> tuple[io.BytesIO, VolumeHeader]:
    stream = io.BytesIO(content)
    return stream, read_header(stream, len(content))


class Dribble(io.BytesIO):
    """A raw stream: it may return less than it is asked for."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(7 if size is None or size < 0 else min(size, 7))


def test_the_voxels_of_an_mrc_file_come_as_they_are_stored(mrc: Build) -> None:
    data = bytes(range(240))
    stream, header = stream_of(mrc(nsymbt=80, data=data) + b"surplus")

    assert b"".join(iter_voxels(stream, header)) == data


@pytest.mark.parametrize(
    ("block_bytes", "lengths"), [(100, [100, 100, 40]), (7, [4] * 60), (1, [4] * 60), (999, [240])]
)
@pytest.mark.parametrize("compress", [False, True])
def test_blocks_hold_whole_voxels(
    nifti: Build, gzipped: Gzipped, block_bytes: int, lengths: list[int], *, compress: bool
) -> None:
    content = nifti(data=bytes(range(240)))
    stream, header = stream_of(gzipped(content) if compress else content)

    blocks = list(iter_voxels(stream, header, block_bytes=block_bytes))

    assert [len(block) for block in blocks] == lengths
    assert b"".join(blocks) == bytes(range(240))


@pytest.mark.parametrize("compress", [False, True])
def test_a_stream_that_gives_less_than_asked_for_is_read_to_its_end(
    nifti: Build, gzipped: Gzipped, *, compress: bool
) -> None:
    content = nifti(data=bytes(range(240)))
    content = gzipped(content) if compress else content
    _, header = stream_of(content)

    assert [len(block) for block in iter_voxels(Dribble(content), header, block_bytes=100)] == [100, 100, 40]


def test_a_file_that_has_become_shorter_is_refused(mrc: Build) -> None:
    content = mrc()
    _, header = stream_of(content)

    with pytest.raises(VolumeError, match="holds 200") as caught:
        list(iter_voxels(io.BytesIO(content[:-40]), header))

    assert caught.value.field == "size"


def test_a_gzip_file_of_several_members_and_padding_is_read_as_one(nifti: Build) -> None:
    content = nifti(data=bytes(range(240)))
    members = (
        gzip.compress(content[:200], mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(content[200:], mtime=0)
    )
    stream, header = stream_of(members + bytes(100_000))

    assert b"".join(iter_voxels(stream, header)) == bytes(range(240))


def test_a_gap_before_the_voxels_of_a_gzip_file_is_skipped(nifti: Build, gzipped: Gzipped) -> None:
    content = nifti(vox_offset=1000.0, data=bytes(648) + bytes(range(240)))
    stream, header = stream_of(gzipped(content))

    assert b"".join(iter_voxels(stream, header, block_bytes=64)) == bytes(range(240))


BROKEN = {
    "cut before its checksum": (lambda whole: whole[:-8], "gzip", "truncated"),
    "cut in its middle": (lambda whole: whole[: len(whole) // 2], "gzip", "truncated"),
    "wrong checksum": (lambda whole: whole[:-8] + b"\0\0\0\0" + whole[-4:], "gzip", "corrupt"),
    "wrong length": (lambda whole: whole[:-4] + b"\0\0\0\0", "gzip", "corrupt"),
    "something else behind it": (lambda whole: whole + b"garbage", "gzip", "corrupt"),
    "cut in its second member": (lambda whole: whole + whole[:15], "gzip", "truncated"),
}


@pytest.mark.parametrize(("damage", "field", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_gzip_file_is_refused_at_the_latest_after_its_last_voxel(
    nifti: Build, gzipped: Gzipped, damage: Callable[[bytes], bytes], field: str, words: str
) -> None:
    data = bytes(n * n % 251 for n in range(4_000_000 // 4))
    whole = gzipped(nifti(dim=(3, 100, 100, 25, 1, 1, 1, 1), data=data))
    stream, header = stream_of(damage(whole))

    with pytest.raises(VolumeError) as caught:
        list(iter_voxels(stream, header))

    assert caught.value.field == field
    assert words in caught.value.failure.message


def test_a_gzip_file_with_fewer_voxels_than_its_header_claims_is_refused(nifti: Build, gzipped: Gzipped) -> None:
    stream, header = stream_of(gzipped(nifti(data=bytes(200))))

    with pytest.raises(VolumeError, match="claims 240 bytes of voxels, but the file holds 200"):
        list(iter_voxels(stream, header))


def test_a_gzip_file_that_ends_before_its_voxels_is_refused(nifti: Build, gzipped: Gzipped) -> None:
    stream, header = stream_of(gzipped(nifti(vox_offset=5000.0)))

    with pytest.raises(VolumeError, match="the file holds 0"):
        list(iter_voxels(stream, header))


def a_bomb(head: bytes, megabytes: int) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [deflate.compress(head)] + [deflate.compress(bytes(1_000_000)) for _ in range(megabytes)]
    return b"".join([*pieces, deflate.flush()])


def test_a_gzip_bomb_is_refused_after_a_block_and_within_a_megabyte(nifti: Build) -> None:
    bomb = a_bomb(nifti(data=b""), megabytes=300)
    stream = io.BytesIO(bomb)
    header = read_header(stream, len(bomb))
    blocks = []

    tracemalloc.start()
    with pytest.raises(VolumeError) as caught:
        blocks.extend(iter_voxels(stream, header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert caught.value.field == "size"
    assert "inflates to more than the 592 bytes" in caught.value.failure.message
    assert sum(map(len, blocks)) == 240
    assert stream.tell() < len(bomb), "most of the bomb was never read"
    assert peak < 1_000_000


def test_streaming_a_large_gzip_file_holds_no_more_than_a_few_blocks(nifti: Build) -> None:
    content = a_bomb(nifti(dim=(3, 250, 1000, 100, 1, 1, 1, 1), data=b""), megabytes=100)
    stream, header = stream_of(content)

    tracemalloc.start()
    total = sum(len(block) for block in iter_voxels(stream, header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert total == 100_000_000
    assert peak < 1_000_000


def test_the_voxels_of_a_real_map_are_all_streamed(emd_3197: Path) -> None:
    with emd_3197.open("rb") as stream:
        header = read_header(stream, emd_3197.stat().st_size)
        voxels = b"".join(iter_voxels(stream, header))

    assert voxels == emd_3197.read_bytes()[1024:]
