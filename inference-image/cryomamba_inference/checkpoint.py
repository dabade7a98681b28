"""Planes that are done, left in the object store while a job runs, for the attempt that comes after an interruption.

The engine gives the same bytes from any plane on, and statistics are taken from labels, so labels are all that is kept.
"""

import hashlib
import io
import json
import logging
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from cryomamba_crds.failures import FailureError
from cryomamba_inference.storage import Storage

_log = logging.getLogger(__name__)
_SHARE_OF_TIME = 0.02
"""What leaving planes may cost of a run's time."""
_SECONDS_BETWEEN = 20.0
_FAST = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int
    stop: int


class _Index(BaseModel):
    """What is there; written after the parts that it names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: list[_Part]


class Checkpoint:
    """The finished planes of one job.

    Whatever fails here is told in the log and costs no more than the time to do planes again.

    Args:
        storage: Where.
        prefix: Of keys; attempts at a job share it.
        work: All that decides about the last bit of a label. What was left by other work is not taken.
        scratch: Existing folder for what is fetched.
        clock: Seconds on a clock that does not jump.
        seconds_between: The least time from one writing to the next.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        work: dict[str, Any],
        scratch: Path,
        clock: Callable[[], float],
        *,
        seconds_between: float = _SECONDS_BETWEEN,
    ) -> None:
        digest = hashlib.sha256(json.dumps(work, sort_keys=True).encode()).hexdigest()[:32]
        self._storage = storage
        self._prefix = f"{prefix}{digest}/"
        self._scratch = scratch
        self._clock = clock
        self._seconds_between = seconds_between
        self._parts: list[_Part] = []
        self._waiting: list[NDArray[np.integer]] = []
        self._next = clock() + seconds_between

    @property
    def _stop(self) -> int:
        return self._parts[-1].stop if self._parts else 0

    def restore(self, add: Callable[[int, NDArray[np.integer]], None]) -> int:
        """Hand over the planes that an earlier attempt left, in their order.

        Args:
            add: Takes the index of the first plane, and labels [z, y, x].

        Returns:
            How many planes that were.
        """
        try:
            index = _Index.model_validate_json(self._read("index.json"))
            for part in index.parts:
                labels = npy.read_array(io.BytesIO(zlib.decompress(self._read(f"{part.start}"))), allow_pickle=False)
                if part.start != self._stop or len(labels) != part.stop - part.start:
                    _log.warning("checkpoint: the part at plane %d does not follow; planes are done again", part.start)
                    break
                add(part.start, labels)
                self._parts.append(part)
        except (FailureError, ValueError, zlib.error) as error:
            _log.info("checkpoint: nothing more to go on from (%s)", error)
        if self._stop:
            _log.info("checkpoint: going on from plane %d", self._stop)
        return self._stop

    def add(self, labels: NDArray[np.integer]) -> None:
        """Take the next planes, and leave what has gathered if it is time."""
        self._waiting.append(labels.copy())
        if self._clock() >= self._next:
            self.leave()

    def leave(self) -> None:
        """Store what has gathered."""
        if not self._waiting:
            return
        began = self._clock()
        labels = np.concatenate(self._waiting)
        part = _Part(start=self._stop, stop=self._stop + len(labels))
        with io.BytesIO() as packed:
            npy.write_array(packed, labels, allow_pickle=False)
            data = zlib.compress(packed.getbuffer(), _FAST)
        try:
            self._storage.put_bytes(f"{self._prefix}{part.start}", data)
            index = _Index(parts=[*self._parts, part])
            self._storage.put_bytes(f"{self._prefix}index.json", index.model_dump_json().encode())
        except FailureError as error:
            _log.warning("checkpoint: %s", error.failure.message)
        else:
            # In this order: an interruption between the two must not leave planes that would be stored twice.
            self._waiting.clear()
            self._parts.append(part)
        now = self._clock()
        self._next = now + max(self._seconds_between, (now - began) / _SHARE_OF_TIME)

    def _read(self, name: str) -> bytes:
        return self._storage.fetch(self._prefix + name, self._scratch).read_bytes()
