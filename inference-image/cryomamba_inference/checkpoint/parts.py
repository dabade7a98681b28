"""What is left in the object store: parts, each with a few planes, and an index that says what they are. Pure."""

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cryomamba_inference.engine import Labels, Rung

INDEX_NAME = "index.json"
UNREADABLE = (ValueError, KeyError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)
"""What `unpack` raises about bytes that are none of `pack`'s."""
_LABELS, _PROBABILITIES = "labels.npy", "probabilities.npy"


class Part(BaseModel):
    """A few planes, by their indices along Z."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int
    stop: int
    rung: Rung | None = None
    """On which the last of them was made, where the engine says so; the planes that follow are to be made on it too."""


class Index(BaseModel):
    """What is there; written after the parts that it names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work: dict[str, Any]
    """All that decides about the last bit of a label."""
    parts: list[Part]

    @property
    def stop(self) -> int:
        """The plane after the last one that is there."""
        return self.parts[-1].stop if self.parts else 0

    def with_part(self, part: Part) -> "Index":
        """Return the index with one part more."""
        return self.model_copy(update={"parts": [*self.parts, part]})

    def name(self, part: Part) -> str:
        """Return what a part is called: whoever writes under this name writes the same planes."""
        digest = hashlib.sha256(json.dumps(self.work, sort_keys=True).encode()).hexdigest()[:16]
        return f"{digest}-{part.start}-{part.stop}"


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return in words what differs between the work of two attempts."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{name} was {json.dumps(old.get(name))} and is {json.dumps(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def pack(labels: Labels, probabilities: NDArray[np.float16] | None) -> bytes:
    """Return planes as bytes.

    Labels are deflated to a fifth and less. Probabilities are not: it would take ten times as long as to store them,
    for a fifth of their size.

    Args:
        labels: [z, y, x].
        probabilities: [z, c, y, x].
    """
    with io.BytesIO() as packed:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _write(archive, _LABELS, labels, zipfile.ZIP_DEFLATED)
            if probabilities is not None:
                _write(archive, _PROBABILITIES, probabilities, zipfile.ZIP_STORED)
        return packed.getvalue()


def unpack(data: bytes) -> tuple[Labels, NDArray[np.float16] | None]:
    """Return what was packed; raise one of `UNREADABLE`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        labels: Labels = _read(archive, _LABELS)
        return labels, _read(archive, _PROBABILITIES) if _PROBABILITIES in archive.namelist() else None


def _write(archive: zipfile.ZipFile, name: str, array: NDArray[Any], method: int) -> None:
    member = zipfile.ZipInfo(name)
    member.compress_type = method
    with archive.open(member, "w", force_zip64=True) as file:
        npy.write_array(file, array, allow_pickle=False)


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    # Whole first: at its end the checksum is looked at.
    return np.asarray(npy.read_array(io.BytesIO(archive.read(name)), allow_pickle=False))


def _flat(work: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in work.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
