"""Tokens that have been revoked, by their `jti`."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LARGEST_FILE = 16 << 20  # bytes

_Version = tuple[int, int, int]


class DeniedTokens:
    """The ids of a setting, and those of a file that may change while the server runs.

    Where the file goes away or can't be read, the ids that it had are kept: a slip must not bring revoked tokens back.
    """

    def __init__(
        self, jtis: Iterable[str] = (), file: Path | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file; raise OSError or ValueError where it can't be read."""
        self._fixed = frozenset(jtis)
        self._file = file
        self._monotonic = monotonic
        self._looked = monotonic()
        self._version: _Version | None = None
        self._read: frozenset[str] = frozenset()
        self._failing = False
        if file is not None:
            self._read_if_changed(file)

    def has(self, jti: str) -> bool:
        """Return whether the token of this id has been revoked, as of a second ago."""
        if self._file is not None and self._monotonic() >= self._looked + _LOOK_SECONDS:
            self._looked = self._monotonic()
            self._look(self._file)
        return jti in self._fixed or jti in self._read

    def _look(self, file: Path) -> None:
        try:
            self._read_if_changed(file)
        except (OSError, ValueError) as error:
            if not self._failing:
                _log.error("the file of revoked tokens can't be read; the ids that it had are kept: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _read_if_changed(self, file: Path) -> None:
        status = file.stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version == self._version:
            return
        if status.st_size > _LARGEST_FILE:
            raise ValueError(f"{file} is longer than {_LARGEST_FILE} bytes")
        lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
        self._read = frozenset(line for line in lines if line and not line.startswith("#"))
        self._version = version
