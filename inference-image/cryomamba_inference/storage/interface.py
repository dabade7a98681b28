"""What a runner needs of an object store."""

from pathlib import Path
from typing import Protocol

from cryomamba_crds.failures import FailureCode, FailureError

OUTAGE_SECONDS = 300.0
"""For how long a store that does not answer is waited for: one that is restarted, or whose node moves, is back before,
and a GPU that waits for longer is wasted."""


class Storage(Protocol):
    """Objects by key."""

    def fetch(self, key: str, scratch: Path) -> Path:
        """Return a file that holds an object, for reading only; raise FailureError NOT_FOUND."""

    def put_file(self, key: str, source: Path) -> None:
        """Store a file as an object, whole or not at all; the file is used up."""

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store or replace a small object that a job can do without, whole or not at all; it is not tried for long."""

    def put_once(self, key: str, data: bytes) -> bool:
        """Store a small object if there is none under its key; return whether there was none."""

    def remove(self, key: str) -> None:
        """Remove an object that a job can do without, if it is there; it is not tried for long."""


def missing(key: str) -> FailureError:
    """Return the failure for an object that is not there."""
    return FailureError(
        FailureCode.NOT_FOUND,
        f"The object {key} is not in the store.",
        hint="Upload the volume again, or push the model again, whichever is meant.",
    )
