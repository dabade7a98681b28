from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import cleanup, processes
from devcluster.errors import ClusterError
from devcluster.processes import Process
from devcluster.state import Layout, Record


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = processes.start(["sleep", "600"], tmp_path / "log", tmp_path, {"PATH": "/usr/bin:/bin"})
    yield process
    processes.stop(process, 10)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock file of a machine on which we are root; nothing of the real one is touched."""
    file = tmp_path / "machine"
    monkeypatch.setattr(cleanup, "MACHINE", file)
    monkeypatch.setattr(cleanup.os, "geteuid", lambda: 0)
    return file


def a_cluster(folder: Path, process: Process) -> Layout:
    layout = Layout(folder)
    layout.logs.mkdir(parents=True)
    layout.log("etcd").write_text("its last words")
    layout.certificates.mkdir()
    layout.kubeconfig.touch()
    (folder / "link").symlink_to(layout.logs)
    Record("local", processes={"etcd": process}).write(layout.record)
    return layout


def test_processes_end_and_all_but_the_logs_goes(tmp_path: Path, process: Process) -> None:
    layout = a_cluster(tmp_path / "cluster", process)

    cleanup.clean(layout, owns_machine=False)

    assert not process.is_alive()
    assert [path.name for path in layout.folder.iterdir()] == ["logs"]
    assert layout.log("etcd").read_text() == "its last words"


def test_cleaning_where_nothing_is_does_nothing(tmp_path: Path) -> None:
    cleanup.clean(Layout(tmp_path / "absent"), owns_machine=False)

    assert not (tmp_path / "absent").exists()


def test_the_machine_is_one_cluster_s_at_a_time(machine: Path, tmp_path: Path, process: Process) -> None:
    other = a_cluster(tmp_path / "other", process)
    machine.write_text(str(other.folder))

    with pytest.raises(ClusterError, match="runs already") as caught, cleanup.machine(Layout(tmp_path / "ours")):
        pass

    assert caught.value.hint.endswith(f"down --state {other.folder}")
    assert process.is_alive()


def test_down_leaves_another_folder_s_cluster_alone(machine: Path, tmp_path: Path, process: Process) -> None:
    other = a_cluster(tmp_path / "other", process)
    machine.write_text(str(other.folder))

    cleanup.down(Layout(tmp_path / "ours"))

    assert process.is_alive()
    assert machine.read_text() == str(other.folder)


def test_a_cluster_has_the_machine_from_its_record_to_its_end(machine: Path, tmp_path: Path, process: Process) -> None:
    layout = Layout(tmp_path / "cluster")

    with cleanup.machine(layout):
        a_cluster(layout.folder, process)
    assert machine.read_text() == str(layout.folder)

    with cleanup.machine(layout) as owns_machine:
        assert owns_machine
        layout.record.unlink()
    assert machine.read_text() == ""


def test_without_root_nothing_of_the_machine_is_a_cluster_s(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup.os, "geteuid", lambda: 1000)

    with cleanup.machine(Layout(tmp_path / "cluster")) as owns_machine:
        assert not owns_machine

    assert not machine.exists()
