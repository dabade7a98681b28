from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Semaphore

import pytest

from devcluster import builds
from devcluster.builds import binaries, cache_folder
from devcluster.errors import ClusterError
from devcluster.pins import Tool

TOOL = Tool("server", "v1", ("server",), "0123", ("example.org/server@v1",), None)


class Installer:
    """Counts its calls and leaves the named files."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.calls = 0

    def __call__(self, _tool: Tool, folder: Path) -> None:
        self.calls += 1
        for name in self.names:
            (folder / name).touch()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache/cryomamba"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": ""}, "/home/a/.cache/cryomamba"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/scratch"}, "/scratch/cryomamba"),
    ],
)
def test_the_cache_is_where_the_user_has_caches(environment: dict[str, str], folder: str) -> None:
    assert cache_folder(environment) == Path(folder)


def test_a_tool_is_built_once(tmp_path: Path) -> None:
    install = Installer("server")

    first = binaries(TOOL, tmp_path, install)
    second = binaries(TOOL, tmp_path, install)

    assert first == second == tmp_path / "tools" / "server-0123" / "bin"
    assert (first / "server").exists()
    assert install.calls == 1


def test_a_failed_build_does_not_count(tmp_path: Path) -> None:
    def fail(_tool: Tool, folder: Path) -> None:
        (folder / "half").touch()
        raise ClusterError("no compiler")

    with pytest.raises(ClusterError, match="no compiler"):
        binaries(TOOL, tmp_path, fail)
    folder = binaries(TOOL, tmp_path, Installer("server"))

    assert [file.name for file in folder.iterdir()] == ["server"]


def test_a_build_that_leaves_out_a_binary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="left out server"):
        binaries(TOOL, tmp_path, Installer("client"))


def test_of_two_runs_at_once_one_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_wait, building, lock, calls = Semaphore(0), Event(), builds.locked, []

    def locked(file: Path) -> AbstractContextManager[None]:
        both_wait.release()
        return lock(file)

    def slow(_tool: Tool, folder: Path) -> None:
        calls.append(folder)
        building.set()
        for _ in range(2):
            assert both_wait.acquire(timeout=10)
        (folder / "server").touch()

    monkeypatch.setattr(builds, "locked", locked)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(binaries, TOOL, tmp_path, slow)
        assert building.wait(10)
        second = pool.submit(binaries, TOOL, tmp_path, slow)
        assert first.result(20) == second.result(20)

    assert len(calls) == 1
