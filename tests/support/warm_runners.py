"""Runners as real processes that come to life at once: forks of a process that has imported what a runner needs.

An import of torch takes seconds, and a test of interruptions needs dozens of runners. A fork runs the same `__main__`
as `python -m cryomamba_inference` does, with its own stdin, stdout and stderr.

Run as a program (by `warm_runners`), this is the process that is forked.
"""

import fcntl
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process with threads of its libraries cannot be forked safely."""
_LONGEST_MESSAGE = 1 << 16
_ONE_PAGE = 4096


@dataclass
class WarmRunner:
    """A runner at work.

    It is never more than one line ahead of whoever reads its lines: each fills its stdout.
    """

    _line: socket.socket
    _pid: int
    _process: int
    _stdin: int
    _stdout: int

    def lines(self) -> Iterator[str]:
        """Yield what it writes to stdout, line by line, until its end."""
        rest = b""
        while data := os.read(self._stdout, _LONGEST_MESSAGE):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield line.decode()

    def send_signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self._process, number)

    def wait(self) -> int:
        """Return its exit code, or the negative number of the signal that ended it; its lines are read away."""
        for _ in self.lines():
            pass
        code = os.waitstatus_to_exitcode(int(self._line.recv(_LONGEST_MESSAGE)))
        for descriptor in (self._process, self._stdin, self._stdout):
            os.close(descriptor)
        return code


@dataclass
class WarmRunners:
    """Starts runners, one at a time."""

    _line: socket.socket

    def start(self, *arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> WarmRunner:
        """Start one.

        Args:
            arguments: Of `python -m cryomamba_inference`.
            log: Gets its stderr.
            environment: Added to that of the process that is forked.
        """
        stdin, our_stdin = os.pipe2(os.O_CLOEXEC)
        our_stdout, stdout = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)  # a page a write
        fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, _ONE_PAGE)
        with log.open("ab") as errors:
            message = json.dumps({"arguments": arguments, "environment": dict(environment or {})}).encode()
            socket.send_fds(self._line, [message], [stdin, stdout, errors.fileno()])
        os.close(stdin)
        os.close(stdout)
        pid = int(self._line.recv(_LONGEST_MESSAGE))
        return WarmRunner(self._line, pid, os.pidfd_open(pid), our_stdin, our_stdout)


@contextmanager
def warm_runners() -> Iterator[WarmRunners]:
    """Run the process that is forked until the end of the with statement."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=os.environ | ONE_THREAD
        )
        theirs.close()
        try:
            yield WarmRunners(ours)
        finally:
            ours.close()
            process.wait(60)


def _serve(line: socket.socket) -> None:
    import cryomamba_inference.run
    import cryomamba_inference.storage.s3  # noqa: F401 - for runners that use it

    while True:
        message, descriptors, _, _ = socket.recv_fds(line, _LONGEST_MESSAGE, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            line.close()
            _become(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        line.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        line.send(str(status).encode())


def _become(asked: dict[str, object], descriptors: list[int]) -> None:
    """Be a runner."""
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.setsid()
    os.environ.update(asked["environment"])
    sys.argv = ["cryomamba_inference", *asked["arguments"]]
    try:
        runpy.run_module("cryomamba_inference", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # The interpreter's own end would tear down all that was imported: a second, of which nothing is to be learnt.
        sys.stderr.flush()
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
