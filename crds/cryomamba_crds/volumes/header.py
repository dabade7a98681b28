"""What is known about a volume once its header has passed the gate."""

import math
from dataclasses import dataclass
from typing import Literal

VolumeFormat = Literal["mrc", "nifti"]
ByteOrder = Literal["<", ">"]
Triple = tuple[int, int, int]
VoxelSizeNm = tuple[float, float, float]

ITEM_SIZES = {
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
"""Bytes a voxel, by NumPy's name of the type."""

ANGSTROM_PER_NM = 10


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """A checked header: every number in it is bounded and agrees with the size of the file."""

    format: VolumeFormat
    compressed: bool
    """The whole file is gzip; offsets then count inflated bytes."""
    file_size: int
    """Bytes of the file as it lies on disk."""
    shape: Triple
    """Voxels along [X, Y, Z]."""
    channels: int = 1
    """How many volumes of this shape lie one after another in the file: the channels of one."""
    voxel_size_nm: VoxelSizeNm | None
    """Edge lengths of a voxel along [X, Y, Z] in nm; None where the file does not say, or says only a default."""
    dtype: str
    """NumPy's name of the voxels' type, without byte order."""
    byte_order: ByteOrder
    data_offset: int
    """Bytes before the first voxel."""
    data_bytes: int
    """Bytes of all voxels of all channels, inflated."""
    axis_order: Triple
    """Which axis (1 = X, 2 = Y, 3 = Z) runs fastest, middle and slowest in the file."""
    scale: tuple[float, float] = (1.0, 0.0)
    """Slope and intercept: intensity = slope x stored + intercept. MRC has none."""
    warnings: tuple[str, ...] = ()
    """What was odd but acceptable, each a sentence."""
    header_bytes: bytes
    """The fixed part of the header as it stands in the file: 1,024 bytes (MRC) or 348 (NIfTI-1)."""

    @property
    def file_shape(self) -> Triple:
        """Voxels in file order: fastest, middle, slowest axis. Slower than all is the channel."""
        fast, middle, slow = self.axis_order
        return (self.shape[fast - 1], self.shape[middle - 1], self.shape[slow - 1])

    @property
    def item_size(self) -> int:
        """Bytes a voxel has in one channel."""
        return ITEM_SIZES[self.dtype]

    @property
    def voxels(self) -> int:
        """How many voxels there are, in each channel."""
        return math.prod(self.shape)

    def facts(self) -> dict[str, str]:
        """Return what a person wants to know about the file, name to text, in the order to show it in."""
        raise NotImplementedError


def permuted(in_file_order: Triple, axis_order: Triple) -> Triple:
    """Bring three numbers from file order (fastest, middle, slowest) into [X, Y, Z]."""
    x, y, z = (in_file_order[axis_order.index(axis)] for axis in (1, 2, 3))
    return (x, y, z)


def voxel_size_from_angstrom(size: tuple[float, float, float]) -> VoxelSizeNm | None:
    """Return the voxel size in nm, or None where there is none.

    Args:
        size: Edge lengths along [X, Y, Z] in Å. Not a voxel size: zero, negative, NaN, infinite, and exactly 1.0
            along all axes, which is what writers put when they do not know.
    """
    if not all(math.isfinite(edge) and edge > 0 for edge in size) or size == (1.0, 1.0, 1.0):
        return None
    x, y, z = (edge / ANGSTROM_PER_NM for edge in size)
    return (x, y, z)


def common_facts(header: VolumeHeader) -> dict[str, str]:
    """Return the facts that every format has."""
    size = header.voxel_size_nm
    facts = {
        "size (X, Y, Z)": " x ".join(f"{n:,}" for n in header.shape) + " voxels",
        **({"channels": str(header.channels)} if header.channels > 1 else {}),
        "voxel size": "unknown" if size is None else " x ".join(f"{edge:.4g}" for edge in size) + " nm",
    }
    if size is not None:
        facts["extent"] = " x ".join(f"{n * edge:.4g}" for n, edge in zip(header.shape, size, strict=True)) + " nm"
    facts["data"] = f"{header.dtype}, {header.data_bytes:,} bytes from byte {header.data_offset:,}"
    facts["byte order"] = "little-endian" if header.byte_order == "<" else "big-endian"
    return facts
