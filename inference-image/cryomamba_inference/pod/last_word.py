"""A failure as the termination message of a container: JSON that Kubernetes does not cut."""

import json
import logging
from pathlib import Path
from typing import Any

from cryomamba_crds.failures import Failure

_log = logging.getLogger(__name__)
LONGEST = 4096
"""Bytes that Kubernetes keeps of a termination message."""
_SHORTEST = 64


def termination_message(failure: Failure) -> bytes:
    """Return the failure as JSON of at most `LONGEST` bytes; details go first, then the middle of its texts."""
    said: dict[str, Any] = failure.model_dump()
    if len(message := _encoded(said)) <= LONGEST:
        return message
    said["details"] = {}
    while len(message := _encoded(said)) > LONGEST:
        longest = max(("message", "hint"), key=lambda name: len(said[name].encode(errors="replace")))
        text = said[longest]
        half = max(len(text) * 3 // 8, _SHORTEST // 2)
        said[longest] = f"{text[:half]}…{text[-half:]}"
    return message


def write_last_word(failure: Failure, path: Path) -> None:
    """Leave a failure where Kubernetes looks for it, and say it in the log for whoever looks there."""
    _log.error("%s: %s %s", failure.code, failure.message, failure.hint)
    try:
        path.write_bytes(termination_message(failure))
    except OSError as error:
        _log.error("the last word cannot be written to %s: %s", path, error)


def _encoded(said: dict[str, Any]) -> bytes:
    # Names of files may hold what is no text; details may hold what is no JSON.
    return json.dumps(said, ensure_ascii=False, default=str).encode(errors="replace")
