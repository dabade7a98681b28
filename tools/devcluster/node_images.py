"""The product's images in a node's containerd: only blobs that it has not got are moved, and they outlive the cluster.

What else is in containerd's root goes when the next cluster starts, not when one ends: one that crashed has no end.
"""

import contextlib
import json
import logging
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast

from devcluster import commands, components
from devcluster.buildah import Buildah
from devcluster.errors import ClusterError
from devcluster.state import Layout

log = logging.getLogger(__name__)

BLOBS = Path("blobs/sha256")
# Names of the product's images, in containerd's root.
KEPT = "kept-images.json"
# What is below containerd's root besides images: of pods, and of unpacking.
LEFTOVERS = ("io.containerd.grpc.v1.cri", "io.containerd.runtime.v2.task", "tmpmounts")
BLOCK_BYTES = 1 << 20


def missing(layout: Layout, references: Iterable[str]) -> list[str]:
    """Those of the images that the node has not got."""
    there = set(commands.run(components.ctr(layout, "images", "ls", "--quiet")).split())
    return [reference for reference in references if reference not in there]


def load(layout: Layout, builder: Buildah, references: Iterable[str], place: Path) -> None:
    """Puts images on the node.

    Args:
        layout: The cluster's files.
        builder: What keeps the images.
        references: Their names and tags.
        place: Folder for files on the way, on a disk with room for the images.

    Raises:
        ClusterError: The builder keeps no such image, or containerd refuses it.
    """
    for reference in references:
        started = time.monotonic()
        folder = place / "layout"
        link_known(_content(layout) / BLOBS, folder / BLOBS)
        builder.export(reference, folder)
        moved = _import(layout, folder)
        shutil.rmtree(folder)
        log.info("put %s on the node: %d MB in %.0f s", reference, moved / 1e6, time.monotonic() - started)


def remember(layout: Layout, references: Iterable[str]) -> None:
    """Makes images outlive the cluster.

    Args:
        layout: The cluster's files.
        references: Their names and tags.
    """
    (_content(layout).parent / KEPT).write_text(json.dumps([*references]))


def remove_leftovers(root: Path) -> None:
    """Removes what an earlier cluster left in containerd's root besides images, while containerd does not run."""
    for name in LEFTOVERS:
        shutil.rmtree(root / name, ignore_errors=True)


def forget_containers(layout: Layout) -> bool:
    """Removes the containers of an earlier cluster, none of which runs; whether there were any."""
    containers = commands.run(components.ctr(layout, "containers", "ls", "--quiet")).split()
    if containers:
        commands.run(components.ctr(layout, "containers", "rm", *containers))
    return bool(containers)


def tidy(layout: Layout, root: Path) -> None:
    """Removes all images but those that are to outlive a cluster.

    Args:
        layout: The cluster's files.
        root: containerd's root folder.
    """
    file = root / KEPT
    kept = set(json.loads(file.read_text())) if file.exists() else set()
    old = removable(commands.run(components.ctr(layout, "images", "ls")), kept)
    if old:
        commands.run(components.ctr(layout, "images", "rm", "--sync", *old))


def removable(listing: str, kept: set[str]) -> list[str]:
    """The names of all images but some.

    Args:
        listing: What `ctr images ls` prints: a head, and lines of name, type, digest and more.
        kept: Names of images to keep; their other names, which are made of ids, stay as well.
    """
    lines = [line.split() for line in listing.splitlines()[1:]]
    digests = {line[2] for line in lines if line[0] in kept}
    return [
        line[0] for line in lines if line[0] not in kept and not (line[0].startswith("sha256:") and line[2] in digests)
    ]


def _content(layout: Layout) -> Path:
    """The folder of containerd's content store."""
    listing = commands.run(components.ctr(layout, "plugins", "ls", "--detailed", "type==io.containerd.content.v1"))
    words = listing.split()
    return Path(words[words.index("root") + 1])


def link_known(content: Path, blobs: Path) -> None:
    """Lets an OCI layout's blobs begin with links to all that containerd has.

    Args:
        content: Folder of containerd's blobs.
        blobs: Folder of the layout's; made here.
    """
    blobs.mkdir(parents=True)
    for blob in content.iterdir():
        (blobs / blob.name).symlink_to(blob)


def _import(layout: Layout, folder: Path) -> int:
    """Streams what is new of an OCI layout into containerd; how many bytes that were."""
    argv = [str(word) for word in components.ctr(layout, "images", "import", "-")]
    moved = 0
    with tempfile.TemporaryFile() as said:
        importer = subprocess.Popen(  # noqa: S603 - a list of our own words and paths, no shell
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        # One that ends early says why on its standard error.
        with contextlib.suppress(BrokenPipeError), importer:
            moved = move_new(folder, cast("IO[bytes]", importer.stdin))
        if importer.returncode:
            said.seek(0)
            raise ClusterError(f"containerd does not take the image: {said.read().decode(errors='replace').strip()}")
    return moved


def move_new(folder: Path, stream: IO[bytes]) -> int:
    """Writes an OCI layout as a tar archive without the blobs that are links; how many bytes its files have.

    Each file is removed once it is written: a third copy of gigabytes need not be on the disk while containerd unpacks.
    """
    moved = 0
    with tarfile.open(fileobj=stream, mode="w|", bufsize=BLOCK_BYTES) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                moved += file.stat().st_size
                archive.add(file, str(file.relative_to(folder)))
                file.unlink()
    return moved
