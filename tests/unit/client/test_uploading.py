"""How a file is cut into parts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba.errors import CryoMambaError
from cryomamba.uploading import Part, Source, Tracker, UploadStoppedError, chunk_size_for, parts_of

MEBIBYTE = 2**20


@given(total=st.integers(1, 10_000 * 64 * MEBIBYTE))
def test_every_size_that_the_api_takes_is_cut_as_the_api_wants(total: int) -> None:
    chunk = chunk_size_for(total)

    assert 5 * MEBIBYTE <= chunk <= 64 * MEBIBYTE
    assert -(-total // chunk) <= 10_000


def test_a_file_that_no_upload_can_hold_is_refused() -> None:
    with pytest.raises(CryoMambaError, match="too many for one upload"):
        chunk_size_for(10_000 * 64 * MEBIBYTE + 1)


def test_only_the_last_part_is_shorter() -> None:
    assert parts_of(25, 10) == [Part(0, 0, 10), Part(1, 10, 10), Part(2, 20, 5)]
    assert parts_of(10, 10) == [Part(0, 0, 10)]


def test_a_file_that_shrinks_on_the_way_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    path.write_bytes(b"12345")

    with Source(path) as source, pytest.raises(CryoMambaError, match="became shorter"):
        list(source.blocks(Part(0, 0, 9), Tracker(9, None)))


def test_a_stopped_upload_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    path.write_bytes(b"12345")
    tracker = Tracker(5, None)
    tracker.stopped.set()

    with Source(path) as source, pytest.raises(UploadStoppedError):
        next(source.blocks(Part(0, 0, 5), tracker))
