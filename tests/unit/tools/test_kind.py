import signal
from pathlib import Path

import pytest

from devcluster import kind
from devcluster.errors import ClusterError
from devcluster.state import Layout

# Write down how they were called.
DOCKER = '#!/bin/sh\necho "docker $*" >> "$CALLS"\n'
KIND = """#!/bin/sh
echo "kind $*" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" = --kubeconfig ] && echo config > "$2"; shift; done
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What docker and kind were called with, a line each."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {"docker": DOCKER, "kind": KIND}.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_up_creates_a_cluster_and_gives_its_node_gpus(calls: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")

    kubeconfig = kind.up(layout, tmp_path / "bin")

    create, wait, patch = calls.read_text().splitlines()
    assert create.startswith("kind create cluster --name cryomamba-test")
    assert "kubectl" in wait
    assert "nvidia.com~1gpu" in patch
    assert kubeconfig.read_text() == "config\n"


def test_up_leaves_a_cluster_that_serves_alone(calls: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    kind.up(layout, tmp_path / "bin")
    calls.unlink()

    kind.up(layout, tmp_path / "bin")

    (check,) = calls.read_text().splitlines()
    assert check.endswith("get --raw /readyz")


def test_down_deletes_the_cluster_once(calls: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    kind.up(layout, tmp_path / "bin")
    calls.unlink()

    kind.down(layout)
    kind.down(layout)

    assert calls.read_text() == "kind delete cluster --name cryomamba-test\n"
    assert not layout.kubeconfig.exists()


def test_an_image_is_loaded_by_kind(calls: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cluster")
    kind.up(layout, tmp_path / "bin")

    kind.load_image(layout, Path("stub.tar"))

    assert calls.read_text().splitlines()[-1] == "kind load image-archive --name cryomamba-test stub.tar"


def test_the_api_server_stays_away_when_it_is_stopped(calls: Path, tmp_path: Path) -> None:
    kind.stop_component(Layout(tmp_path / "cluster"), "kube-apiserver", signal.SIGKILL)

    away, kill, wait = calls.read_text().splitlines()
    assert "mv /etc/kubernetes/manifests/kube-apiserver.yaml /etc/kubernetes/" in away
    assert kill.endswith("pkill -9 -x kube-apiserver")
    assert "pgrep -x kube-apiserver" in wait


def test_an_unknown_component_is_refused_by_name(calls: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no component nonsense"):
        kind.stop_component(Layout(tmp_path / "cluster"), "nonsense", signal.SIGTERM)

    assert not calls.exists()
