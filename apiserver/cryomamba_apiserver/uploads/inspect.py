"""Judges an uploaded object in one pass: checksum, header, and the statistics of its voxels."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cryomamba_apiserver.uploads.schemas import VolumeMetadata
from cryomamba_crds.volumes import VolumeHeader, iter_voxels, read_header

_BLOCK = 1 << 18  # bytes held at a time; more is not faster, since a block then leaves the processor's cache


@dataclass(frozen=True)
class Inspection:
    """What is known of a file once it has been read."""

    checksum: str
    metadata: VolumeMetadata


def inspect_volume(stream: BinaryIO, size: int) -> Inspection:
    """Read a file of `size` bytes and return what it is; blocking.

    Raises:
        VolumeError: it is no volume that can be segmented; names the field.
    """
    header = read_header(stream, size)
    intensity = _Intensity()
    for block in iter_voxels(stream, header, block_bytes=_BLOCK):
        intensity.add(_as_numbers(block, header))
    return Inspection(checksum=f"sha256:{_sha256(stream)}", metadata=intensity.describe(header))


class _Intensity:
    """Minimum, maximum, mean and standard deviation of the finite voxels, merged block by block.

    Chan, Golub and LeVeque, "Algorithms for computing the sample variance", 1983.
    """

    def __init__(self) -> None:
        self.count, self.not_finite = 0, 0
        self.minimum, self.maximum = math.inf, -math.inf
        self.mean, self.squares = 0.0, 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        finite = np.isfinite(values)
        if not finite.all():
            self.not_finite += values.size - int(finite.sum())
            values = values[finite]
        if not values.size:
            return
        mean = float(values.mean())
        deviations = values - mean
        total = self.count + values.size
        delta = mean - self.mean
        self.squares += float(np.dot(deviations, deviations)) + delta * delta * self.count * values.size / total
        self.mean += delta * values.size / total
        self.count = total
        self.minimum, self.maximum = min(self.minimum, float(values.min())), max(self.maximum, float(values.max()))

    def describe(self, header: VolumeHeader) -> VolumeMetadata:
        warnings = list(header.warnings)
        if self.not_finite:
            warnings.append(f"{self.not_finite} voxels are NaN or infinite; a job on this file will be refused.")
        known = self.count > 0
        return VolumeMetadata(
            shape=header.shape,
            voxel_size=header.voxel_size_nm,
            dtype=header.dtype,
            min_intensity=self.minimum if known else 0.0,
            max_intensity=self.maximum if known else 0.0,
            mean_intensity=self.mean,
            std_intensity=math.sqrt(self.squares / self.count) if known else 0.0,
            warnings=warnings,
        )


def _as_numbers(block: bytes, header: VolumeHeader) -> NDArray[np.float64]:
    """Return intensities as a job sees them: what float32 cannot hold is infinite."""
    slope, intercept = header.scale
    stored = np.frombuffer(block, np.dtype(header.dtype).newbyteorder(header.byte_order)).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
        return scaled.astype(np.float32).astype(np.float64)


def _sha256(stream: BinaryIO) -> str:
    # Read again rather than along with the voxels: what was just read comes from the page cache, and a file
    # that the gate refuses is never read whole.
    stream.seek(0)
    digest = hashlib.sha256()
    for block in _blocks(stream):
        digest.update(block)
    return digest.hexdigest()


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block
