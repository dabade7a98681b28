"""How a command is told to stop, and how it finishes cleaning up."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal unwind the stack like Ctrl-C does, as SystemExit(128 + signal)."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with _handlers(dict.fromkeys(_STOPPING, stop)):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish what is short and must be finished, whatever keys are pressed meanwhile."""
    with _handlers(dict.fromkeys((signal.SIGINT, *_STOPPING), signal.SIG_IGN)):
        yield


@contextmanager
def _handlers(wanted: dict[signal.Signals, object]) -> Iterator[None]:
    """Only the main thread may set handlers; in any other there is nothing to set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
