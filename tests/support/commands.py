"""Runs CryoMamba's commands and servers as a user does."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CRYOMAMBA = [sys.executable, "-m", "cryomamba"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("CRYOMAMBA_")}
INTERRUPTIBLE = ("env", "--default-signal=INT")
"""Goes before a command that is to be interrupted: what a shell starts in the background ignores Ctrl-C."""
START_SECONDS = 60


def environment_with(**settings: str) -> dict[str, str]:
    """Return this process's environment with the server's settings in place of those that somebody may have set."""
    return ENVIRONMENT | {f"CRYOMAMBA_{name.upper()}": value for name, value in settings.items()}


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    errors: Path
    environment: dict[str, str]

    def token(self, scope: str = "read,write") -> str:
        done = subprocess.run(
            [*CRYOMAMBA, "token", "create", "--data-dir", self.data_dir, "--subject", "ada", "--scope", scope],
            capture_output=True,
            text=True,
            check=True,
            env=self.environment,
        )
        return done.stdout.strip()


@contextmanager
def serving(data_dir: Path, prefix: tuple[str, ...] = (), **settings: str) -> Iterator[Server]:
    """Run `cryomamba serve` until the end of the with statement."""
    environment = environment_with(**settings)
    errors = data_dir.with_name(f"{data_dir.name}.stderr")
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            [*prefix, *CRYOMAMBA, "serve", "--port", "0", "--data-dir", data_dir],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    try:
        yield Server(process, _url(process, errors), data_dir, errors, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _url(process: subprocess.Popen[str], errors: Path) -> str:
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else ""
    found = re.search(r"http://\S+", line)
    assert found, f"the server did not start: {line}{errors.read_text()}"
    return found[0]
