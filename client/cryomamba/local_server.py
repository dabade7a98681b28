"""A server of one's own for as long as it is needed: started in a process group, and gone afterwards with all of it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cryomamba.errors import CryoMambaError
from cryomamba.interruption import undisturbed

_URL = re.compile(r"http://127\.0\.0\.1:[1-9]\d*")
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_LINES_SHOWN = 15
_STOP_SECONDS = 20.0
_KILL_SECONDS = 5.0


def serve_command(data_dir: Path) -> list[str]:
    """Return the command line of a server on a free port of this machine."""
    return [*_cryomamba(), "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(data_dir)]


def issue_token(data_dir: Path, *, timeout_seconds: float = 60.0) -> str:
    """Return a token for the server with that data directory, valid for a day.

    Raises:
        CryoMambaError: It could not be made.
    """
    command = [*_cryomamba(), "token", "create", "--data-dir", str(data_dir)]
    command += ["--subject", "demo", "--scope", "read,write", "--ttl", "24h"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    if done.returncode != 0:
        raise CryoMambaError(
            "no token could be made for the server:\n" + redacted(done.stderr.strip()),
            hint="The lines above say why.",
        )
    return done.stdout.strip()


@contextmanager
def local_server(command: Sequence[str], *, start_seconds: float = 60.0) -> Iterator[str]:
    """Run a server and yield its URL; at the end, however it comes, the server and all it started are gone.

    Args:
        command: Prints a line with ``http://127.0.0.1:PORT`` once it listens, and stops on SIGTERM.
        start_seconds: How long that line may take.

    Raises:
        CryoMambaError: The server ended or stayed silent; the message has its last lines.
    """
    process = subprocess.Popen(  # noqa: S603 - our own command
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        process_group=0,
    )
    try:
        if process.stdout is None:
            raise AssertionError("stdout was asked for")
        listener = _Listener(process.stdout)
        yield listener.url(start_seconds)
    finally:
        with undisturbed():
            _stop(process)


def redacted(text: str) -> str:
    """Replace tokens in a server's output, which may be shown or logged."""
    return _TOKEN.sub("<token>", text)


def _cryomamba() -> list[str]:
    return [sys.executable, "-m", "cryomamba"]


class _Listener:
    """Reads a server's output to its end, so that it never blocks on a full pipe, and keeps the last lines."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._last: deque[str] = deque(maxlen=_LINES_SHOWN)
        self._url: str | None = None
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._read, name="server-output", daemon=True)
        self._thread.start()

    def url(self, seconds: float) -> str:
        """Wait until the server says where it listens."""
        spoke = self._news.wait(seconds)
        if self._url is not None:
            return self._url
        what = "ended before it listened" if spoke else f"did not listen within {seconds:g} s"
        lines = redacted("\n".join(self._last)) or "(it printed nothing)"
        raise CryoMambaError(f"the server {what}; its last lines:\n{lines}", hint="The lines above say why.")

    def _read(self) -> None:
        with self._output:
            for line in self._output:
                self._last.append(line.rstrip("\n"))
                if self._url is None and (found := _URL.search(line)):
                    self._url = found.group()
                    self._news.set()
        self._news.set()


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the server to stop, which it does in order with its runners; then kill what is left of its group."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    deadline = time.monotonic() + _KILL_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.02)
