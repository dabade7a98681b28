from pathlib import Path

import pytest

from devcluster import packages
from devcluster.errors import ClusterError


def test_only_what_is_absent_is_missing() -> None:
    wanted = {"etcd": "etcd-server", "ctr": "containerd", "/usr/lib/cni/bridge": "containernetworking-plugins"}

    missing = packages.missing(wanted, lambda program: program == "ctr")

    assert missing == {"etcd": "etcd-server", "/usr/lib/cni/bridge": "containernetworking-plugins"}


def test_a_path_stands_for_itself(tmp_path: Path) -> None:
    plugin = tmp_path / "bridge"
    plugin.touch(mode=0o644)

    assert packages.is_present(str(plugin))
    assert not packages.is_present(str(tmp_path / "absent"))


def test_without_root_the_error_says_what_to_install() -> None:
    wanted = {"surely-no-program-b": "beta", "surely-no-program-a": "alpha", "surely-no-program-c": "alpha"}

    with pytest.raises(ClusterError) as caught:
        packages.ensure(wanted, root=False)

    assert "surely-no-program-a, surely-no-program-b, surely-no-program-c" in caught.value.message
    assert caught.value.hint.endswith("apt-get install alpha beta")


def test_nothing_is_installed_when_all_is_there() -> None:
    packages.ensure({"sh": "dash"}, root=True)
