"""MinIO servers, as tests use them: the session's, and ones that a test stops, or starts in its own way."""

import configparser
import json
import os
import random
import secrets
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from devcluster import network
from support.kubernetes import tool
from support.waiting import until


def new_bucket(connection: S3Connection) -> S3Connection:
    """Make a bucket that nobody else has."""
    fresh = S3Connection(**{**vars(connection), "bucket": f"test-{secrets.token_hex(6)}"})
    client = S3Client(fresh)
    client.make_bucket(fresh.bucket)
    client.close()
    return fresh


@contextmanager
def session_minio(state: Path, address: str = network.LOOPBACK) -> Iterator[S3Connection]:
    """Run the tool's MinIO in a folder of its own; the bucket is for `new_bucket` to make.

    Pods reach it at the node's address, and not on the loopback.
    """
    description = json.loads(tool("minio", "up", "--state", state, "--address", address))
    credentials = configparser.ConfigParser()
    credentials.read(description["credentials"])
    try:
        yield S3Connection(
            endpoint=description["endpoint"],
            bucket="none",
            access_key=credentials["default"]["aws_access_key_id"],
            secret_key=credentials["default"]["aws_secret_access_key"],
        )
    finally:
        tool("minio", "down", "--state", state)


@dataclass
class OwnMinio:
    """A MinIO that can be stopped and comes back as it was, at the same address."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to what it needs."""
    certificates: Path | None = None
    """Folder with `public.crt` and `private.key`: it then speaks TLS."""

    def __post_init__(self) -> None:
        # None of the system's own: while the server is stopped, a client could be given its port, and meet itself.
        self._address = f"127.0.0.1:{network.free_port('127.0.0.1', random.SystemRandom())}"
        self._user, self._password = secrets.token_hex(10), secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connection(self) -> S3Connection:
        scheme = "https" if self.certificates else "http"
        return S3Connection(f"{scheme}://{self._address}", "none", self._user, self._password)

    def start(self) -> None:
        """Start it and wait until it serves."""
        certificates = ["--certs-dir", self.certificates] if self.certificates else []
        with (self.folder / "minio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    Path(tool("build", "minio")) / "minio",
                    *("server", "--quiet", "--address", self._address),
                    *certificates,
                    self.folder / "data",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.folder),
                    "MINIO_ROOT_USER": self._user,
                    "MINIO_ROOT_PASSWORD": self._password,
                    "MINIO_BROWSER": "off",
                    "MINIO_UPDATE": "off",
                    **self.environment,
                },
            )
        until(self._is_ready)

    def stop(self) -> None:
        """End it; what it holds stays."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _is_ready(self) -> bool:
        anybodys = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybodys.check_hostname = False
        anybodys.verify_mode = ssl.CERT_NONE
        try:
            health = f"{self.connection.endpoint}/minio/health/ready"
            with urllib.request.urlopen(health, timeout=5, context=anybodys) as answer:
                return answer.status == 200
        except OSError:
            return False


@contextmanager
def own_minio(folder: Path, **how) -> Iterator[OwnMinio]:
    """Run a MinIO until the end of the with statement."""
    server = OwnMinio(folder, **how)
    server.start()
    try:
        yield server
    finally:
        server.stop()
