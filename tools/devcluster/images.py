"""Small container images without a builder: files on top of a static busybox, as an archive that `load-image` takes."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster import commands, packages
from devcluster.errors import ClusterError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Every program that needs a dynamic linker carries its name.
LOADER = b"/ld-linux"


def busybox_archive(
    archive: Path,
    reference: str,
    command: Sequence[str],
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a docker-archive of a one-layer image: busybox with all its names in /bin, and the given files.

    Args:
        archive: Where it goes.
        reference: Name and tag, such as `localhost/stub:1`.
        command: What the image runs unless told otherwise (its entry point).
        files: Content by path without a leading slash; all are executable.

    Raises:
        ClusterError: There is no busybox here, or it needs a dynamic linker.
    """
    busybox = Path(packages.find("busybox") or "/bin/busybox")
    try:
        program = busybox.read_bytes()
    except FileNotFoundError as error:
        raise ClusterError(
            "busybox is missing.", "Install it; on Debian: sudo apt-get install busybox-static"
        ) from error
    if LOADER in program:
        raise ClusterError(f"{busybox} is not a static one.", "On Debian: sudo apt-get install busybox-static")
    links = [name for name in commands.run([busybox, "--list"]).split() if name != "busybox"]
    layer = _layer({"bin/busybox": program, **(files or {})}, {f"bin/{name}": "busybox" for name in links})
    archive.write_bytes(docker_archive(reference, layer, command))


def docker_archive(reference: str, layer: bytes, command: Sequence[str]) -> bytes:
    """An image of one layer in the format of `docker save`; the same input gives the same bytes."""
    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    }
    content = json.dumps(config).encode()
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    return _tar({name: content, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}, {})


def _layer(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    return _tar(files, links, folders=("bin", "etc", "tmp"))


def _tar(files: Mapping[str, bytes], links: Mapping[str, str], folders: Sequence[str] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            folder.mode = 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        for name, content in files.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            file.mode = 0o755
            archive.addfile(file, io.BytesIO(content))
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type = tarfile.SYMTYPE
            link.linkname = target
            archive.addfile(link)
    return buffer.getvalue()
