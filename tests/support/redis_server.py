"""A real Redis for a test."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from devcluster import packages
from support.waiting import until

PASSWORD = "a-password-of-redis"


@dataclass
class RedisServer:
    """A server that a test may stop, and start again with nothing in it."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = packages.find("redis-server")
        assert program, "there is no redis-server: install the Debian package, or run tools/cluster.py packages"
        configuration = self.folder / "redis.conf"
        # In a file: what is an argument, everybody on the machine can read.
        configuration.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {PASSWORD}\n"
            f'save ""\nappendonly no\ndir {self.folder}\nlogfile {self.folder}/redis.log\n'
        )
        self.process = subprocess.Popen([program, configuration])
        until(self._answers)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "redis.log").read_text()
        try:
            with closing(redis.Redis.from_url(self.url)) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@contextmanager
def redis_running(folder: Path) -> Iterator[RedisServer]:
    """Run a server on a free port until the end of the with statement."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = RedisServer(port, folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
