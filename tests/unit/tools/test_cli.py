from pathlib import Path

import pytest

from devcluster import cleanup, cli, kind, local


@pytest.fixture(autouse=True)
def without_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker, no cluster on this machine, and a cache of the test's own."""
    monkeypatch.setattr(kind, "docker_answers", lambda: False)
    monkeypatch.setattr(cleanup, "MACHINE", tmp_path / "machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["kubeconfig"], "No cluster runs here.\nStart one: up\n"),
        (["stop-component", "etcd"], "No cluster runs here.\nStart one: up\n"),
        (["start-component", "etcd"], "No cluster runs here.\nStart one: up\n"),
        (["load-image", "stub.tar"], "No cluster runs here.\nStart one: up\n"),
        (["logs", "etcd"], "There is no log of etcd.\nThere are: none.\n"),
    ],
)
def test_without_a_cluster_the_error_says_what_to_do(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == 1
    assert capsys.readouterr().err == message


def test_an_unknown_tool_is_refused_before_anything_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["build", "kubernetes", "nonsense"]) == 1
    assert capsys.readouterr().err.startswith("No tool is called nonsense.\nThere are: kubernetes,")


def test_a_log_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "cryomamba/cluster/logs/etcd.log"
    log.parent.mkdir(parents=True)
    log.write_text("ready\n")

    assert cli.main(["logs", "etcd"]) == 0
    assert capsys.readouterr().out == "ready\n"


def test_neither_root_nor_docker_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local.os, "geteuid", lambda: 1000)

    assert cli.main(["up"]) == 1

    said = capsys.readouterr().err
    assert "needs root or Docker" in said
    assert "up --control-plane" in said
