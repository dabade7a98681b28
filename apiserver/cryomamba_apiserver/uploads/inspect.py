"""Judges an uploaded object in one pass: checksum, header, and the statistics of its voxels."""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cryomamba_apiserver.uploads.schemas import VolumeFacts
from cryomamba_crds.volumes import VolumeError, VolumeHeader, iter_voxels, read_header

_BLOCK = 1 << 18  # bytes read at a time where nothing is computed
_VOXELS = 1 << 13  # voxels computed at a time: float64 arrays of these stay below malloc's threshold for a mapping each


@dataclass(frozen=True)
class Inspection:
    """What is known of a file once it has been read."""

    checksum: str
    facts: VolumeFacts


class InspectionStoppedError(Exception):
    """Nobody waits for the result any more."""


def inspect_volume(
    stream: BinaryIO, size: int, max_size: int, stopped: Callable[[], bool] = lambda: False
) -> Inspection:
    """Read a file of `size` bytes once, from its beginning to its end, and return what it is; blocking.

    A volume that has more than `max_size` bytes once it is inflated is refused before it is. Only the header's first
    kilobytes are read twice, and a file whose header is refused is read no further.

    Raises:
        VolumeError: it is no volume that can be segmented; names the field.
        InspectionStoppedError: `stopped` said so.
    """
    header = read_header(stream, size)
    _check_inflated(header, max_size)
    stream.seek(0)
    once = _ReadOnce(stream, stopped)
    intensity = _Intensity()
    for block in iter_voxels(once, header, block_bytes=_VOXELS * header.item_size):
        intensity.add(_as_numbers(block, header))
    return Inspection(checksum=f"sha256:{once.sha256()}", facts=intensity.describe(header))


class _ReadOnce(io.RawIOBase, BinaryIO):
    """A file that is read forwards only, every byte into a checksum: in S3 a second pass is a second download."""

    def __init__(self, stream: BinaryIO, stopped: Callable[[], bool]) -> None:
        super().__init__()
        self._stream = stream
        self._stopped = stopped
        self._digest = hashlib.sha256()
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        if self._stopped():
            raise InspectionStoppedError
        block = self._stream.read(min(size, _BLOCK) if size >= 0 else _BLOCK)
        self._digest.update(block)
        self._position += len(block)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go forwards, by reading what is between."""
        if whence != io.SEEK_SET or offset < self._position:
            raise io.UnsupportedOperation("the file is read forwards only")
        while self._position < offset and self.read(offset - self._position):
            pass
        return self._position

    def sha256(self) -> str:
        """Read to the end and return the checksum of all."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest()


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

    def describe(self, header: VolumeHeader) -> VolumeFacts:
        warnings = list(header.warnings)
        if self.not_finite:
            warnings.append(f"{self.not_finite} voxels are NaN or infinite; a job on this file will be refused.")
        known = self.count > 0
        return VolumeFacts(
            shape=header.shape,
            channels=header.channels,
            voxel_size=header.voxel_size_nm,
            dtype=header.dtype,
            min_intensity=self.minimum if known else 0.0,
            max_intensity=self.maximum if known else 0.0,
            mean_intensity=self.mean,
            std_intensity=math.sqrt(self.squares / self.count) if known else 0.0,
            warnings=warnings,
        )


def _check_inflated(header: VolumeHeader, max_size: int) -> None:
    """Refuse what gzip has made small enough to be uploaded."""
    inflated = header.data_offset + header.data_bytes
    if header.compressed and inflated > max_size:
        raise VolumeError(
            "dim",
            f"By the NIfTI header the volume has {inflated} bytes once it is inflated; at most {max_size} are taken.",
            hint="Crop or bin the volume.",
        )


def _as_numbers(block: bytes, header: VolumeHeader) -> NDArray[np.float64]:
    """Return intensities as a job sees them: what float32 cannot hold is infinite."""
    slope, intercept = header.scale
    stored = np.frombuffer(block, np.dtype(header.dtype).newbyteorder(header.byte_order)).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
        return scaled.astype(np.float32).astype(np.float64)
