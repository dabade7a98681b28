from pathlib import Path

import pytest

from devcluster import kernel

MOUNTS = """22 27 0:21 / /proc rw,relatime - proc proc rw
40 27 254:0 /c /state/cluster/kubelet rw - ext4 /dev/vda rw
41 40 0:50 / /state/cluster/kubelet/pods/a/volumes/secret rw - tmpfs tmpfs rw
42 27 0:51 / /state/cluster/with\\040blank rw shared:1 - tmpfs tmpfs rw
43 27 0:52 / /state/cluster2 rw - tmpfs tmpfs rw
"""


def test_mounts_of_the_folder_are_found_the_innermost_first() -> None:
    assert kernel.mounts_below(Path("/state/cluster"), MOUNTS) == [
        "/state/cluster/with blank",
        "/state/cluster/kubelet/pods/a/volumes/secret",
        "/state/cluster/kubelet",
    ]


def test_version_2_has_one_hierarchy(tmp_path: Path) -> None:
    for name in ("cgroup.controllers", "cgroup.procs"):
        (tmp_path / name).touch()
    (tmp_path / "user.slice").mkdir()

    assert kernel.hierarchies(tmp_path) == [tmp_path]


def test_version_1_has_one_for_each_controller(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "no-cgroup").mkdir()

    assert kernel.hierarchies(tmp_path) == [tmp_path / "cpu,cpuacct", tmp_path / "memory"]


def test_settings_that_differ_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "SYSCTLS", tmp_path)
    (tmp_path / "vm").mkdir()
    overcommit = tmp_path / "vm/overcommit_memory"
    overcommit.write_text("0\n")
    before = kernel.settings()
    overcommit.write_text("1\n")

    kernel.restore_settings(before)

    assert before == {"vm/overcommit_memory": "0"}
    assert overcommit.read_text() == "0"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's folders outside of the cluster's."""
    names = {"SHIM_SOCKETS": "run", "NETWORK_RESULTS": "cni", "DEVICE_PLUGINS": "kubelet", "LOG_LINKS": "containers"}
    for constant, name in names.items():
        (tmp_path / name).mkdir()
        monkeypatch.setattr(kernel, constant, tmp_path / name)
    monkeypatch.setattr(kernel, "OUTSIDE", tuple(tmp_path / name for name in names.values()))
    return tmp_path


def test_paths_that_were_not_there_before_go_altogether(outside: Path) -> None:
    (outside / "cni/results").mkdir()
    (outside / "kubelet").rmdir()

    absent = kernel.absent_paths()
    (outside / "kubelet").mkdir()
    (outside / "kubelet/device.sock").touch()
    kernel.remove_paths(absent, outside / "state")

    assert absent == [str(outside / "kubelet")]
    assert not (outside / "kubelet").exists()
    assert (outside / "cni/results").exists()


def test_from_folders_that_were_there_only_ours_goes(outside: Path) -> None:
    state, results = outside / "state", outside / "cni/results"
    results.mkdir()
    for name in ("cryomamba-aa11-eth0", "cni-loopback-aa11-lo", "cni-loopback-bb22-lo", "other-bb22-eth0"):
        (results / name).touch()
    (outside / "containers/ours.log").symlink_to(state / "pod-logs/0.log")
    (outside / "containers/theirs.log").symlink_to("/var/log/pods/0.log")
    for socket in ("ours", "theirs"):
        (outside / "run" / socket).touch()
    bundle = state / "containerd/state/io.containerd.runtime.v2.task/k8s.io/aa11"
    bundle.mkdir(parents=True)
    (bundle / "address").write_text(f"unix://{outside}/run/ours")

    kernel.remove_paths([], state)

    assert sorted(path.name for path in results.iterdir()) == ["cni-loopback-bb22-lo", "other-bb22-eth0"]
    assert [path.name for path in (outside / "containers").iterdir()] == ["theirs.log"]
    assert [path.name for path in (outside / "run").iterdir()] == ["theirs"]
