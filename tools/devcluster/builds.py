"""Builds the pinned tools into the user's cache folder, once."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devcluster import commands
from devcluster.errors import ClusterError
from devcluster.pins import Tool

log = logging.getLogger(__name__)

Install = Callable[[Tool, Path], None]


def cache_folder(environment: Mapping[str, str]) -> Path:
    """The cache of this project: in `XDG_CACHE_HOME`, else in `~/.cache`."""
    root = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "/")) / ".cache"
    return Path(root) / "cryomamba"


def uv_cache_folder(environment: Mapping[str, str]) -> Path:
    """Where uv keeps the user's wheels: in `UV_CACHE_DIR`, else beside the cache of this project."""
    return Path(environment.get("UV_CACHE_DIR") or cache_folder(environment).with_name("uv"))


def go_install(tool: Tool, folder: Path) -> None:
    """Puts a tool's binaries into a folder.

    Raises:
        ClusterError: Go is missing, or the build fails.
    """
    if shutil.which("go") is None:
        raise ClusterError(
            f"{tool.name} {tool.version} has to be built and Go is not installed.",
            "Install Go 1.26 or newer and put it on the PATH.",
        )
    settings = {"CGO_ENABLED": "0", "GOBIN": str(folder), "GOWORK": "off"}
    commands.run(
        # Builds take minutes on every core: whatever else runs on the machine goes first.
        ["nice", "-n", "10", "go", "install", *tool.install],
        folder=tool.folder or folder,
        environment={**os.environ, **settings},
    )


def binaries(tool: Tool, cache: Path, install: Install = go_install) -> Path:
    """The folder with a tool's binaries, built if the cache lacks it.

    Args:
        tool: What to build.
        cache: Folder of the cache.
        install: Puts the tool's binaries into a folder.

    Raises:
        ClusterError: The build fails or leaves out a binary.
    """
    finished = cache / "tools" / f"{tool.name}-{tool.key}" / "bin"
    if finished.is_dir():
        return finished
    finished.parent.mkdir(parents=True, exist_ok=True)
    with locked(finished.parent / "lock"):
        if finished.is_dir():
            return finished
        # A build that was killed leaves a folder that nobody looks at; the rename below is the moment it counts.
        unfinished = finished.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        log.info("building %s %s, once: this takes minutes", tool.name, tool.version)
        started = time.monotonic()
        install(tool, unfinished)
        missing = [name for name in tool.binaries if not (unfinished / name).is_file()]
        if missing:
            raise ClusterError(f"The build of {tool.name} {tool.version} left out {', '.join(missing)}.")
        unfinished.rename(finished)
        log.info("built %s in %.0f s", tool.name, time.monotonic() - started)
    return finished


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Waits for and holds the lock of a file; it goes with the process, however that ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
