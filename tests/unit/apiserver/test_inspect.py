"""Judging an object in one pass."""

import gzip
import hashlib
import io

import numpy as np
import pytest

from cryomamba_apiserver.uploads.inspect import InspectionStoppedError, inspect_volume
from cryomamba_crds.volumes import VolumeError
from support.volume_files import mrc, nifti


class Counting(io.BytesIO):
    """Counts the bytes that are read, and the times that reading starts anew."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.count, self.seeks = 0, []

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self.count += len(block)
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        self.seeks.append(offset)
        return super().seek(offset, whence)


VOXELS = np.random.default_rng(7).normal(size=(30, 200, 100)).astype("<f4").tobytes()
FILES = {
    "MRC": mrc(nx=100, ny=200, nz=30, nsymbt=5000, data=VOXELS),
    "MRC with something behind it": mrc(nx=100, ny=200, nz=30, data=VOXELS) + bytes(500_000),
    "NIfTI": nifti(dim=(3, 100, 200, 30, 1, 1, 1, 1), data=VOXELS),
    "gzip": gzip.compress(nifti(dim=(3, 100, 200, 30, 1, 1, 1, 1), data=VOXELS)),
    "gzip with padding": gzip.compress(nifti(dim=(3, 100, 200, 30, 1, 1, 1, 1), data=VOXELS)) + bytes(100_000),
}


MAX_SIZE = 10**9


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_once_but_for_its_header(name):
    stream = Counting(FILES[name])

    inspection = inspect_volume(stream, len(FILES[name]), MAX_SIZE)

    assert inspection.checksum == "sha256:" + hashlib.sha256(FILES[name]).hexdigest()
    assert stream.count <= len(FILES[name]) + 70_000
    assert set(stream.seeks) == {0}
    values = np.frombuffer(VOXELS, "<f4").astype(np.float64)
    facts = inspection.facts
    assert (facts.min_intensity, facts.max_intensity) == (values.min(), values.max())
    assert facts.mean_intensity == pytest.approx(values.mean(), rel=1e-9)
    assert facts.std_intensity == pytest.approx(values.std(), rel=1e-9)


def test_reading_stops_when_nobody_waits_for_it():
    content = FILES["MRC"]
    stream = Counting(content)

    with pytest.raises(InspectionStoppedError):
        inspect_volume(stream, len(content), MAX_SIZE, lambda: stream.count > 300_000)

    assert stream.count < 400_000


def test_what_inflates_to_more_than_may_be_uploaded_is_refused_before_it_is_inflated():
    inflated = 352 + 30 * 200 * 100 * 4
    content = FILES["gzip"]
    stream = Counting(content)

    with pytest.raises(VolumeError) as refused:
        inspect_volume(stream, len(content), inflated - 1)

    assert refused.value.failure.details["field"] == "dim"
    assert stream.count <= 70_000
    assert inspect_volume(io.BytesIO(content), len(content), inflated).facts.shape == (100, 200, 30)
