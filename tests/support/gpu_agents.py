"""Runs `cryomamba-apiserver gpu-agent` as the chart does."""

import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.commands import START_SECONDS, environment_with

COMMAND = [sys.executable, "-m", "cryomamba_apiserver", "gpu-agent"]


@dataclass(frozen=True)
class Agent:
    process: subprocess.Popen[str]
    url: str
    errors: Path


@contextmanager
def agent(node: str, errors: Path, environment: dict[str, str], **settings: str) -> Iterator[Agent]:
    """Run an agent until the end of the with statement; it listens on a free port of the loopback unless told."""
    named = environment_with(**{"gpu_agent_host": "127.0.0.1", "gpu_agent_port": "0", **settings})
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            COMMAND, stdout=subprocess.PIPE, stderr=stderr, text=True, env=named | environment | {"NODE_NAME": node}
        )
    assert process.stdout
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else ""
        assert "http://" in line, f"the agent did not start: {line}{errors.read_text()}"
        yield Agent(process, line.rpartition(" ")[2].strip().removesuffix("/v1/node"), errors)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()
        process.stdout.close()
