"""A real MinIO server for the tests; it knows nothing of the cluster."""

import os
import random
import secrets
import shutil
from pathlib import Path

from devcluster import api, builds, network, processes
from devcluster.errors import ClusterError
from devcluster.running import SYSTEM_PATH
from devcluster.state import Layout, Record

NAME = "minio"
SECONDS = 30.0
STOP_SECONDS = 5.0


def up(layout: Layout, binaries: Path, address: str) -> dict[str, str]:
    """Starts the server unless it runs.

    Args:
        layout: Its files.
        binaries: Folder of its binary.
        address: Where it listens; pods reach the node's address and not the loopback.

    Returns:
        `endpoint`, a URL, and `credentials`, the path of a file in the format of AWS' shared credentials.

    Raises:
        ClusterError: It does not come up, or runs at another address.
    """
    with builds.locked(_lock(layout)):
        record = Record.read(layout.record)
        if record is not None and _answers(record):
            if record.address != address:
                raise ClusterError(f"MinIO runs already, at {record.address}.", "Stop it, or name another --state.")
            return _description(layout, record)
        _remove(layout, record)
        record = Record(NAME, address=address, ports={NAME: network.free_port(address, random.SystemRandom())})
        _start(layout, record, binaries)
        process = record.processes[NAME]
        processes.wait(lambda: _answers(record) or not process.is_alive(), SECONDS)
        if not process.is_alive() or not _answers(record):
            file = layout.log(NAME)
            end = processes.tail(file)
            _remove(layout, record)
            raise ClusterError(f"minio does not come up. The end of {file}:\n{end}")
        return _description(layout, record)


def down(layout: Layout) -> None:
    """Stops the server and removes its objects and credentials; nothing when it does not run."""
    with builds.locked(_lock(layout)):
        _remove(layout, Record.read(layout.record))


def _lock(layout: Layout) -> Path:
    return layout.folder.with_name(f"{layout.folder.name}.lock")


def _start(layout: Layout, record: Record, binaries: Path) -> None:
    layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout.logs.mkdir(exist_ok=True)
    user, password = secrets.token_hex(10), secrets.token_urlsafe(30)
    credentials = layout.folder / "credentials"
    # Made private before there is something in it.
    descriptor = os.open(credentials, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"[default]\naws_access_key_id = {user}\naws_secret_access_key = {password}\n")
    environment = {
        "PATH": SYSTEM_PATH,
        "HOME": str(layout.folder),
        "MINIO_ROOT_USER": user,
        "MINIO_ROOT_PASSWORD": password,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    server = f"{record.address}:{record.ports[NAME]}"
    argv = (binaries / NAME, "server", "--quiet", "--address", server, layout.folder / "data")
    record.processes[NAME] = processes.start(argv, layout.log(NAME), layout.folder, environment)
    record.write(layout.record)


def _answers(record: Record) -> bool:
    if not record.processes[NAME].is_alive():
        return False
    try:
        return api.plain(record.address, record.ports[NAME], "/minio/health/ready").ok
    except OSError:
        return False


def _description(layout: Layout, record: Record) -> dict[str, str]:
    return {
        "endpoint": f"http://{record.address}:{record.ports[NAME]}",
        "credentials": str(layout.folder / "credentials"),
    }


def _remove(layout: Layout, record: Record | None) -> None:
    if record is not None:
        processes.stop(record.processes[NAME], STOP_SECONDS)
    for entry in ("data", ".minio", ".mc"):
        shutil.rmtree(layout.folder / entry, ignore_errors=True)
    for file in (layout.folder / "credentials", layout.record):
        file.unlink(missing_ok=True)
