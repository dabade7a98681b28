"""Starts processes, remembers them so that a reused id is never taken for them, and ends them."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BOOT = Path("/proc/sys/kernel/random/boot_id")
# Fields of /proc/PID/stat behind the program's name, which is in brackets and may hold blanks and brackets itself.
STATE_FIELD = 0
START_FIELD = 19
ENDED = frozenset("ZX")
KILL_SECONDS = 30.0


@dataclass(frozen=True)
class Process:
    """A process beyond doubt: ids are reused, an id with its start time within one boot is not.

    Attributes:
        pid: Process id.
        start: Start time in clock ticks since boot, proc(5).
        boot: The kernel's id of the boot.
    """

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The process that has this id now; None when it has ended, reaped or not."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[STATE_FIELD] in ENDED:
            return None
        return cls(pid, int(fields[START_FIELD]), BOOT.read_text().strip())

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self


def start(argv: Sequence[str | Path], log: Path, folder: Path, environment: Mapping[str, str]) -> Process:
    """Starts a program in a session of its own, so that it outlives this one, its output appended to a log.

    Raises:
        FileNotFoundError: It is not installed.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - see commands.attempt
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    # It is meant to outlive this object, which would warn about that.
    child.returncode = 0
    started = Process.of(child.pid)
    # One that ended at once is not alive, whatever its start time was.
    return started or Process(child.pid, 0, "")


def stop(process: Process, patience: float, first: signal.Signals = signal.SIGTERM) -> None:
    """Ends a process and returns when it is gone: `first`, then after `patience` seconds SIGKILL.

    Nothing happens to another process that has its id by now.
    """
    try:
        # The descriptor holds on to the process: between check and signal the id cannot go to another one.
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if process.is_alive():
            for number, seconds in ((first, patience), (signal.SIGKILL, KILL_SECONDS)):
                signal.pidfd_send_signal(descriptor, number)
                if _ended(descriptor, seconds):
                    break
    except ProcessLookupError:
        pass  # it ended between the check and the signal
    finally:
        _reap(descriptor)
        os.close(descriptor)


def _ended(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _reap(descriptor: int) -> None:
    # One that was started by another run is init's child now.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)


def find(program: str, word: str) -> list[Process]:
    """Processes of a program that have a word on their command line; both must be ours beyond doubt."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        process = Process.of(int(entry.name))
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if process is not None and Path(words[0]).name.startswith(program) and word in words:
            found.append(process)
    return found


def tail(file: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def wait(condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> bool:
    """Whether a condition came true before the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
