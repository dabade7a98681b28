"""Starts what is measured, each in a process of its own, and looks at what it costs."""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from cryomamba_apiserver.app import utc_now
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.settings import read_settings
from cryomamba_apiserver.tokens.opening import own_authority

BENCHMARKS = Path(__file__).parent.parent
OWNER = "benchmark"
ROUNDS = 3
"""How often both sides are measured; the median counts."""
_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")
_SAMPLE_SECONDS = 0.02
# No client is meant to come near these; a benchmark is many clients in one.
_NO_LIMITS = {
    "CRYOMAMBA_REQUESTS_PER_MINUTE": "1000000000",
    "CRYOMAMBA_SOCKETS_PER_SUBJECT": "1000",
}


@dataclass(frozen=True)
class Server:
    """A process that listens on the loopback."""

    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """CPU time so far, in user and kernel."""
        times = self.process.cpu_times()
        return times.user + times.system

    def memory(self) -> int:
        """Bytes that are resident now."""
        return int(self.process.memory_info().rss)

    @contextlib.contextmanager
    def peak_memory(self) -> Iterator[list[int]]:
        """Look at the memory all the time; the list has the most that was seen, in bytes."""
        peak, over = [self.memory()], threading.Event()

        def sample() -> None:
            while not over.wait(_SAMPLE_SECONDS):
                peak[0] = max(peak[0], self.memory())

        sampling = threading.Thread(target=sample)
        sampling.start()
        try:
            yield peak
        finally:
            over.set()
            sampling.join()


@contextlib.contextmanager
def started(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start a Python program that prints its address once it answers; what it prints goes to a file."""
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-P", *command],
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Server(_port(process, Path(output.name)), psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def _port(process: "subprocess.Popen[bytes]", output: Path) -> int:
    while not (found := _PORT.search(output.read_text())):
        if process.poll() is not None:
            raise RuntimeError(f"it did not start:\n{output.read_text()}")
        time.sleep(_SAMPLE_SECONDS)
    return int(found.group(1))


@contextlib.contextmanager
def cryomamba(data_dir: Path, environment: Mapping[str, str] | None = None, **settings: str) -> Iterator[Server]:
    """Start the server as its users do, with all that it does for each request; settings by their lower-case names."""
    given = {f"CRYOMAMBA_{name.upper()}": value for name, value in settings.items()}
    command = ["-m", "cryomamba", "serve", "--port", "0", "--data-dir", data_dir]
    with started(command, {**_NO_LIMITS, **given, **(environment or {})}) as server:
        yield server


def token(data_dir: Path) -> str:
    """Return a token that the server of a data directory takes."""
    settings = read_settings({}, data_dir=str(data_dir))
    scopes = frozenset({Scope.READ, Scope.WRITE})
    return own_authority(settings, utc_now).issue(OWNER, scopes, timedelta(hours=1))


@contextlib.contextmanager
def plain_uvicorn(app: str, **environment: str) -> Iterator[Server]:
    """Start an app of `peers/`, as `module:name`, with uvicorn's defaults on the same event loop and parser."""
    command = ["-m", "uvicorn", app, "--app-dir", BENCHMARKS / "peers", "--port", "0", "--no-access-log"]
    with started([*command, "--loop", "uvloop", "--http", "httptools"], environment) as server:
        yield server


def medians(ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float, float]:
    """Measure both sides in turn; return the median of each, and that of ours / peer."""
    pairs = [(ours(), peer()) for _ in range(ROUNDS)]
    return (
        statistics.median(mine for mine, _ in pairs),
        statistics.median(theirs for _, theirs in pairs),
        statistics.median(mine / theirs for mine, theirs in pairs),
    )
