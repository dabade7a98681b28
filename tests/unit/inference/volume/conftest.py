"""Volume files written with other people's means: mrcfile's layout of the header, and nibabel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from cryomamba_inference.volume import Volume, open_volume

IMOD_STAMP = 1146047817
MODES = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


@pytest.fixture
def write_mrc(tmp_path: Path) -> Callable[..., Path]:
    """Write voxels as they shall lie in the file (slowest axis first) under a header in the given byte order.

    Keywords are fields of mrcfile's header; `imod_flags` sets IMOD's stamp as well.
    """

    def write(
        data: NDArray[Any], *, order: str = "<", extended: bytes = b"", imod_flags: int | None = None, **fields: Any
    ) -> Path:
        header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
        depth, rows, columns = data.shape
        values = {
            "nx": columns,
            "ny": rows,
            "nz": depth,
            "mx": columns,
            "my": rows,
            "mz": depth,
            "mode": MODES[data.dtype.name],
            "mapc": 1,
            "mapr": 2,
            "maps": 3,
            "ispg": 1,
            "map": b"MAP ",
            "nsymbt": len(extended),
            "machst": (0x44, 0x44, 0, 0) if order == "<" else (0x11, 0x11, 0, 0),
        } | fields
        for name, value in values.items():
            header[name] = value
        raw = bytearray(header.tobytes())
        if imod_flags is not None:
            raw[152:160] = np.array([IMOD_STAMP, imod_flags], f"{order}i4").tobytes()
        path = tmp_path / "input.mrc"
        path.write_bytes(bytes(raw) + extended + data.astype(data.dtype.newbyteorder(order)).tobytes())
        return path

    return write


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[Path], Volume]:
    """Open a file with a scratch folder of the test's own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return lambda path: open_volume(path, scratch)


@pytest.fixture
def mrc_result() -> Callable[[Path], tuple[Any, NDArray[Any]]]:
    """Read a label file with mrcfile: header and voxels."""

    def read(path: Path) -> tuple[Any, NDArray[Any]]:
        with mrcfile.open(path) as result:
            return result.header.copy(), result.data.copy()

    return read


@pytest.fixture(scope="session")
def emd_3197() -> Path:
    """A real sub-tomogram average, 20 voxels along each axis, 11.4 Å."""
    return Path(__file__).parents[3] / "data" / "EMD-3197.map"
