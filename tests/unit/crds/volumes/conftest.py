"""Volume files to pass through the gate."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from cryomamba_crds.volumes import VolumeHeader, read_header
from support import volume_files

Build = Callable[..., bytes]


@pytest.fixture(scope="session")
def mrc() -> Build:
    """Build a small MRC file of float32 zeros; keywords replace header fields, `data` the voxels."""
    return volume_files.mrc


@pytest.fixture(scope="session")
def nifti() -> Build:
    """Build a small NIfTI-1 file of float32 zeros; keywords replace header fields, `data` the voxels."""
    return volume_files.nifti


@pytest.fixture(scope="session")
def read() -> Callable[[bytes], VolumeHeader]:
    """Pass bytes through the gate as if they were a file."""
    return lambda content: read_header(io.BytesIO(content), len(content))


@pytest.fixture(scope="session")
def gzipped() -> Callable[[bytes], bytes]:
    """Compress, always to the same bytes."""
    return lambda content: gzip.compress(content, mtime=0)


@pytest.fixture(scope="session")
def emd_3197() -> Path:
    """A real sub-tomogram average, 20 voxels along each axis, 11.4 Å."""
    return Path(__file__).parents[3] / "data" / "EMD-3197.map"
