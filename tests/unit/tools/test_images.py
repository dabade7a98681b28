import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from devcluster import commands, images, packages
from devcluster.errors import ClusterError


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def test_an_archive_describes_its_layer() -> None:
    content = images.docker_archive("localhost/stub:1", b"layer", ["/bin/run"])

    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        (manifest,) = json.loads(read(archive, "manifest.json"))
        config = read(archive, manifest["Config"])
        layer = read(archive, manifest["Layers"][0])
    assert manifest["RepoTags"] == ["localhost/stub:1"]
    assert manifest["Config"] == f"{hashlib.sha256(config).hexdigest()}.json"
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert json.loads(config)["config"]["Entrypoint"] == ["/bin/run"]


def test_the_same_content_gives_the_same_bytes() -> None:
    first, second = (images.docker_archive("localhost/stub:1", b"layer", ["/bin/run"]) for _ in range(2))

    assert first == second


@pytest.fixture
def busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "busybox"
    program.write_bytes(b"static program")
    monkeypatch.setattr(packages, "find", lambda _name: str(program))
    monkeypatch.setattr(commands, "run", lambda _argv: "busybox\nsh\nsleep\n")
    return program


def test_busybox_answers_to_all_its_names(busybox: Path, tmp_path: Path) -> None:
    images.busybox_archive(tmp_path / "stub.tar", "localhost/stub:1", ["/bin/sh"], {"opt/run": b"#!/bin/sh\n"})

    with (
        tarfile.open(tmp_path / "stub.tar") as archive,
        tarfile.open(fileobj=archive.extractfile("layer.tar")) as layer,
    ):
        assert read(layer, "bin/busybox") == busybox.read_bytes()
        assert {name: layer.getmember(f"bin/{name}").linkname for name in ("sh", "sleep")} == {
            "sh": "busybox",
            "sleep": "busybox",
        }
        assert read(layer, "opt/run") == b"#!/bin/sh\n"
        assert layer.getmember("opt/run").mode & 0o111
        assert layer.getmember("tmp").mode == 0o1777


def test_a_busybox_that_needs_a_linker_is_refused(busybox: Path, tmp_path: Path) -> None:
    busybox.write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")

    with pytest.raises(ClusterError, match="not a static one") as caught:
        images.busybox_archive(tmp_path / "stub.tar", "localhost/stub:1", ["/bin/sh"])

    assert "busybox-static" in caught.value.hint
