"""Planes that are done and not yet left: in a file, so that no memory is needed, however long they have to wait."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryomamba_inference.engine import Labels, Rung


class Waiting:
    """Planes that follow each other; those before a given one are forgotten when all are.

    An order to stop may come between any two steps: what is counted is written.

    Args:
        path: Of the file, which is made.
        start: The first plane that will come.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._path.touch()
        self._record: np.dtype[Any] | None = None
        """Of a plane: its labels and, where they come, its probabilities."""
        self._rungs: list[tuple[int, Rung | None]] = []
        """From which plane on which one held."""
        self._base = start
        """The plane at the file's beginning."""
        self.stop = start
        """The plane after the last one."""

    def size(self, start: int) -> int:
        """Return how many bytes there are from a plane on."""
        return 0 if self._record is None else (self.stop - start) * self._record.itemsize

    def add(self, labels: Labels, probabilities: NDArray[np.float16] | None, rung: Rung | None) -> None:
        """Put planes at the end.

        Args:
            labels: [z, y, x].
            probabilities: [c, z, y, x].
            rung: On which they were made.

        Raises:
            OSError: The disk is full; the planes that were there before are still there.
        """
        record = self._record = self._record or _record(labels, probabilities)
        if not self._rungs or self._rungs[-1][1] != rung:
            self._rungs.append((self.stop, rung))
        plane = np.empty(1, record)
        with self._path.open("r+b") as file:
            file.seek((self.stop - self._base) * record.itemsize)
            for index in range(len(labels)):
                plane["labels"] = labels[index]
                if probabilities is not None:
                    plane["probabilities"] = probabilities[:, index]
                file.write(plane.view(np.uint8).data)
        self.stop += len(labels)

    def read(self, start: int, size: int) -> tuple[Labels, NDArray[np.float16] | None, Rung | None]:
        """Return planes, about as many as `size` bytes hold and one at least.

        Args:
            start: The first one; it must be there.
            size: In bytes.

        Returns:
            Labels [z, y, x], probabilities [z, c, y, x], and the rung of the last of these planes.
        """
        if self._record is None or not self._base <= start < self.stop:
            raise ValueError(f"plane {start} does not wait")
        planes = min(max(1, size // self._record.itemsize), self.stop - start)
        with self._path.open("rb") as file:
            file.seek((start - self._base) * self._record.itemsize)
            records = np.frombuffer(file.read(planes * self._record.itemsize), self._record)
        rung = next(rung for first, rung in reversed(self._rungs) if first < start + planes)
        probabilities = records["probabilities"] if "probabilities" in (self._record.names or ()) else None
        return records["labels"], probabilities, rung

    def forget(self, stop: int) -> None:
        """Let the planes before one go, if these are all."""
        if stop == self.stop:
            with self._path.open("r+b") as file:
                file.truncate()
            self._base = self.stop


def _record(labels: Labels, probabilities: NDArray[np.float16] | None) -> np.dtype[Any]:
    fields: list[tuple[str, Any, tuple[int, ...]]] = [("labels", labels.dtype, labels.shape[1:])]
    if probabilities is not None:
        classes, _, *plane = probabilities.shape
        fields.append(("probabilities", probabilities.dtype, (classes, *plane)))
    return np.dtype(fields)
