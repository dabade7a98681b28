from pathlib import Path

import pytest

from devcluster.errors import ClusterError
from devcluster.pins import read_pins, required_version

PINS = """
[server]
package = "example.org/server"
version = "v1.2.3"
binaries = ["server"]

[pair]
module = "pair"
version_of = "example.org/pair"
version_variable = "example.org/pair.version"
binaries = ["one", "two"]
"""
GO_MOD = """module pair-tools

tool example.org/pair/one

require (
	example.org/other v0.1.0
	example.org/pair v3.0.1
)
"""


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pins.toml").write_text(PINS)
    (tmp_path / "pair" / "go.mod").write_text(GO_MOD)
    (tmp_path / "pair" / "go.sum").write_text("")
    return tmp_path


def test_a_package_is_installed_at_its_version(tools: Path) -> None:
    server = read_pins(tools)["server"]

    assert (server.version, server.install[-1], server.folder) == ("v1.2.3", "example.org/server@v1.2.3", None)


def test_a_module_of_its_own_gives_the_version_that_is_linked_in(tools: Path) -> None:
    pair = read_pins(tools)["pair"]

    assert pair.version == "v3.0.1"
    assert pair.install == ("-ldflags", "-s -w -X example.org/pair.version=v3.0.1", "tool")
    assert pair.folder == tools / "pair"


def test_the_key_changes_with_the_version_of_its_tool_alone(tools: Path) -> None:
    before = read_pins(tools)
    (tools / "pins.toml").write_text(PINS.replace("v1.2.3", "v1.2.4"))

    after = read_pins(tools)

    assert after["server"].key != before["server"].key
    assert after["pair"].key == before["pair"].key


def test_the_key_changes_with_the_sums_of_the_dependencies(tools: Path) -> None:
    before = read_pins(tools)["pair"].key
    (tools / "pair" / "go.sum").write_text("example.org/other v0.1.0 h1:x=\n")

    assert read_pins(tools)["pair"].key != before


def test_a_go_mod_without_the_module_is_refused_by_its_name() -> None:
    with pytest.raises(ClusterError, match=r"example\.org/absent"):
        required_version(GO_MOD, "example.org/absent")


def test_this_project_pins_kubernetes_with_all_that_a_node_needs() -> None:
    kubernetes = read_pins()["kubernetes"]

    assert kubernetes.version.startswith("v1.34.")
    assert {"kube-apiserver", "kubelet", "kubectl"} <= set(kubernetes.binaries)
