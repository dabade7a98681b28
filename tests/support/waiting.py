"""Waiting for conditions, and looking at processes."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def processes_with(text: str) -> list[str]:
    """Command lines of the living processes that have a text in them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if text in line and not zombie and int(folder.name) != os.getpid():
                found.append(line)
    return found
