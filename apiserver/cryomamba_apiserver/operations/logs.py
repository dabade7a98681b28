"""Logs: one handler on the standard library's root logger, its lines written by structlog."""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import structlog

from cryomamba_apiserver.operations.redaction import redact

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being served; every line that is logged meanwhile carries it."""

_Renderer = Callable[[Any, str, dict[str, Any]], str | bytes]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""What every record has; the rest was given by whoever logged it."""
_OWN = ("cryomamba_apiserver", "cryomamba_crds")
# What these say at a lower level has paths with queries in it, and so tokens.
_OTHERS_THAT_SHOW_QUERIES = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "websockets", "urllib3", "aiohttp", "httpx")


def configure_logs(log_format: Literal["auto", "console", "json"], level: str, stream: TextIO = sys.stderr) -> None:
    """Send the logs of the whole process to a stream.

    Args:
        log_format: `json`, `console`, or `auto`: console where the stream is a terminal.
        level: The least important messages of ours that are logged; other packages say nothing below `info`.
        stream: Where lines go.
    """
    for_people = log_format == "console" or (log_format == "auto" and stream.isatty())
    handler = _Handler(stream)
    handler.setFormatter(_Formatter(_for_people(colors=stream.isatty()) if for_people else _json()))
    least = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(least, logging.INFO))
    for name in _OWN:
        logging.getLogger(name).setLevel(least)
    for name in _OTHERS_THAT_SHOW_QUERIES:
        logging.getLogger(name).setLevel(max(least, logging.WARNING))
    logging.captureWarnings(capture=True)
    # No line has these, and asking for them is a good part of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _json() -> _Renderer:
    # Made once: structlog's own way makes one for each line.
    encode = json.JSONEncoder(default=repr).encode

    def render(_: Any, __: str, event: dict[str, Any]) -> str:  # noqa: ANN401 - structlog's signature
        return encode(event)

    return render


def _for_people(*, colors: bool) -> _Renderer:
    # Its own choice for tracebacks would be some with the values of variables.
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


class _Formatter(logging.Formatter):
    """Makes an event of a record and has it rendered, in half the time of structlog's own formatter."""

    def __init__(self, render: _Renderer) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, without what looks like a secret."""
        event: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if current := request_id.get():
            event["request_id"] = current
        fields = record.__dict__
        event.update([(name, fields[name]) for name in fields if name not in _STANDARD])
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return redact(str(self._render(None, event["level"], event)))


class _Handler(logging.StreamHandler[TextIO]):
    """Says that a line could not be written without showing its arguments, as the standard handler does."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        """Say where the line came from and what went wrong."""
        self.stream.write(redact(f"{record.name}: a line could not be logged\n{traceback.format_exc()}"))
