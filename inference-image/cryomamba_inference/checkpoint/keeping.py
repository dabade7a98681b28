"""Leaves planes while a job runs, and hands them over to the attempt that follows."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import CheckpointParams
from cryomamba_inference.checkpoint.parts import INDEX_NAME, UNREADABLE, Index, Part, differences, pack, unpack
from cryomamba_inference.checkpoint.waiting import Waiting
from cryomamba_inference.engine import Labels, Rung
from cryomamba_inference.storage import Storage

_log = logging.getLogger(__name__)
_PART_BYTES = 32 << 20
"""Of planes that become one part; memory for two of it is taken while it is stored."""

Take = Callable[[int, Labels, NDArray[np.float16] | None], None]


@dataclass(frozen=True)
class Restored:
    """What an earlier attempt has done."""

    planes: int = 0
    """How many, from the first one on."""
    rung: Rung | None = None
    """On which the planes that follow are to be made; None: on the first one."""
    different: tuple[str, ...] = ()
    """Why what was left is of no use: what differs from the attempt before, in words."""


class Checkpoint:
    """The finished planes of one job.

    Whatever fails here is told in the log and costs no more than the time to do planes again.

    Args:
        storage: Where.
        prefix: Of keys; attempts at a job share it.
        work: All that decides about the last bit of a label, as JSON has it. What other work left is not taken.
        scratch: Existing folder for planes that wait and for what is fetched.
        clock: Seconds on a clock that does not jump.
        params: How often, and how much of the time it may take.
    """

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        work: dict[str, Any],
        scratch: Path,
        *,
        clock: Callable[[], float],
        params: CheckpointParams,
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._index = Index(work=json.loads(json.dumps(work)), parts=[])
        self._scratch = scratch
        self._clock = clock
        self._params = params
        self._waiting = Waiting(scratch / "checkpoint-waiting", 0)
        self._room = True
        self._known: set[str] = set()
        """Names of all objects that are or may be there, but the index."""
        self._began = self._last = clock()
        self._spent = 0.0

    def restore(self, take: Take) -> Restored:
        """Hand over the planes that an earlier attempt left, in their order.

        Args:
            take: Gets the index of the first plane, labels [z, y, x] and, where they were left, probabilities
                [c, z, y, x].
        """
        try:
            there = Index.model_validate_json(self._read(INDEX_NAME))
        except FailureError as error:
            absent = error.failure.code is FailureCode.NOT_FOUND
            _log.info("checkpoint: %s", "nothing was left" if absent else error.failure.message)
            return Restored()
        except ValueError as error:
            _log.warning("checkpoint: the index cannot be read, starting over (%s)", error)
            return Restored()
        self._known |= {there.name(part) for part in there.parts}
        if different := tuple(differences(there.work, self._index.work)):
            _log.warning(
                "checkpoint: this attempt would not give the same bytes as the one before, starting over: %s",
                "; ".join(different),
            )
            self.remove()
            return Restored(different=different)
        for part in there.parts:
            if not self._restore(part, there.name(part), take):
                break
        planes, rung = self._index.stop, self._index.parts[-1].rung if self._index.parts else None
        _log.info("checkpoint: going on from plane %d", planes)
        self._waiting = Waiting(self._scratch / "checkpoint-waiting", planes)
        return Restored(planes, rung)

    def add(self, labels: Labels, probabilities: NDArray[np.float16] | None, rung: Rung | None) -> None:
        """Take the next planes, and leave what has gathered if it is time.

        Args:
            labels: [z, y, x].
            probabilities: [c, z, y, x], where they are wanted.
            rung: On which they were made.
        """
        with self._charged():
            self._gather(labels, probabilities, rung)
        while self._is_time():
            self._last = self._clock()
            with self._charged():
                stored = self._leave_part()
            if not stored:
                break

    def leave(self) -> None:
        """Store what has gathered, whatever time it takes."""
        while self._waiting.size(self._index.stop) and self._leave_part():
            pass

    def remove(self) -> None:
        """Remove what is there, as far as the store lets it; the rest is the sweep's."""
        try:
            # First, so that nothing names what is no more.
            self._storage.remove(self._prefix + INDEX_NAME)
            for name in sorted(self._known):
                self._storage.remove(self._prefix + name)
        except FailureError as error:
            _log.info("checkpoint: what is there stays until the sweep (%s)", error.failure.message)
        else:
            self._known.clear()

    def _gather(self, labels: Labels, probabilities: NDArray[np.float16] | None, rung: Rung | None) -> None:
        if not self._room:
            return
        try:
            self._waiting.add(labels, probabilities, rung)
        except OSError as error:
            # The result's own place is reserved, so that the job need not fail of this.
            _log.warning("checkpoint: no more planes are left, the disk does not take them (%s)", error)
            self._room = False

    def _is_time(self) -> bool:
        now = self._clock()
        size, params = self._waiting.size(self._index.stop), self._params
        due = size >= _PART_BYTES or now - self._last >= params.interval_seconds
        return size > 0 and due and self._spent <= params.share_of_time * (now - self._began)

    def _leave_part(self) -> bool:
        """Store the first planes that wait; return whether the store took them."""
        start = self._index.stop
        labels, probabilities, rung = self._waiting.read(start, _PART_BYTES)
        index = self._index.with_part(Part(start=start, stop=start + len(labels), rung=rung))
        name = index.name(index.parts[-1])
        self._known.add(name)
        try:
            self._storage.put_bytes(self._prefix + name, pack(labels, probabilities))
            self._storage.put_bytes(self._prefix + INDEX_NAME, index.model_dump_json().encode())
        except FailureError as error:
            _log.warning("checkpoint: %s", error.failure.message)
            return False
        # This alone says what is left: an order to stop before it makes the planes be stored twice, and loses none.
        self._index = index
        self._waiting.forget(index.stop)
        return True

    def _restore(self, part: Part, name: str, take: Take) -> bool:
        """Hand over one part; return whether it was there."""
        try:
            labels, probabilities = unpack(self._read(name))
        except FailureError as error:
            _log.warning("checkpoint: %s", error.failure.message)
            return False
        except UNREADABLE as error:
            _log.warning("checkpoint: the part at plane %d is damaged (%s)", part.start, error)
            return False
        if part.start != self._index.stop or len(labels) != part.stop - part.start:
            _log.warning("checkpoint: the part at plane %d does not follow", part.start)
            return False
        take(part.start, labels, None if probabilities is None else probabilities.swapaxes(0, 1))
        self._index = self._index.with_part(part)
        return True

    def _read(self, name: str) -> bytes:
        # A folder of its own: what a bucket gives is a copy, which has to go, and what a directory gives must stay.
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            return self._storage.fetch(self._prefix + name, Path(folder)).read_bytes()

    @contextmanager
    def _charged(self) -> Iterator[None]:
        """Count what is done as time that leaving planes has taken."""
        began = self._clock()
        try:
            yield
        finally:
            self._spent += self._clock() - began
