from pathlib import Path

import pytest

from devcluster.errors import ClusterError
from devcluster.processes import Process
from devcluster.state import Layout, Record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = Record(
        "local",
        with_node=True,
        address="198.19.0.1",
        ports={"etcd": 20001},
        binaries={"kubernetes": "/cache/bin"},
        processes={"etcd": Process(42, 1234567, "boot")},
        sysctls={"net/ipv4/ip_forward": "0"},
        absent=["/var/lib/cni"],
    )

    record.write(tmp_path / "record.json")

    assert Record.read(tmp_path / "record.json") == record
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_without_a_file_there_is_no_record(tmp_path: Path) -> None:
    assert Record.read(tmp_path / "record.json") is None


def test_a_folder_too_deep_for_a_node_s_sockets_is_refused() -> None:
    with pytest.raises(ClusterError, match="too long for sockets") as caught:
        Layout(Path("/tmp") / ("deep" * 20)).require_sockets()

    assert "--state" in caught.value.hint


def test_a_user_s_cache_folder_is_not_too_deep() -> None:
    Layout(Path("/home/somebody.with-a-long.name/.cache/cryomamba/cluster")).require_sockets()


def test_everything_of_a_cluster_is_in_its_folder() -> None:
    layout = Layout.at(Path("/tmp/cluster"))

    for path in (
        layout.record,
        layout.kubeconfig,
        layout.certificates,
        layout.configuration,
        layout.containerd_socket,
        layout.log("etcd"),
    ):
        assert path.is_relative_to("/tmp/cluster")
