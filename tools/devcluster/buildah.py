"""Builds images with buildah, which needs root and no service, and keeps them in the user's cache folder."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devcluster import base_image, commands, kernel, packages
from devcluster.builders import Order
from devcluster.errors import ClusterError

PACKAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "skopeo": "skopeo"}
# On a file system that is empty after a start of the machine, for it says what is mounted.
RUN = Path("/run/cryomamba-images")
DRIVER = "overlay"
BASE = f"localhost/cryomamba-base:{base_image.KEY}"
# The stage whose image, kept, spares all others when only our code has changed.
KEPT_STAGE = "requirements"
UV_CACHE_ID = "cryomamba-uv"


class Buildah:
    """The builder of a machine without Docker.

    Args:
        folder: Where images and layers are kept.
        uv_cache: The user's folder of wheels, so that none is downloaded twice.
        base: Name of a base image in a registry; None: one is made from Debian packages.
    """

    def __init__(self, folder: Path, uv_cache: Path, base: str | None = None) -> None:
        # As the table of mounts names it.
        self._folder = folder.resolve()
        self._storage = self._folder / "storage"
        self._scratch = self._folder / "scratch"
        self._uv_cache = uv_cache
        self._base = base
        self._program: list[str | Path] = ["--root", self._storage, "--runroot", RUN, "--storage-driver", DRIVER]

    @property
    def base_key(self) -> str:
        """Names the content of the base image."""
        return self._base or base_image.KEY

    @contextmanager
    def session(self) -> Iterator[None]:
        """What the other methods are called in; leaves nothing mounted.

        Raises:
            ClusterError: There is no root, or a program is missing and cannot be installed.
        """
        if os.geteuid() != 0:
            raise ClusterError(
                "Building images needs Docker or root, and there is neither.",
                "Start Docker (https://docs.docker.com/engine/install/) or run this as root.",
            )
        packages.ensure(PACKAGES, root=True)
        # Of builds that were killed. What is mounted is not ours to remove: the cache of wheels, for one.
        self._unmount()
        shutil.rmtree(self._scratch, ignore_errors=True)
        caches = self._scratch / "buildah-cache"
        caches.mkdir(parents=True)
        # buildah keeps the folder of a cache mount here, under the mount's id.
        shared = caches / UV_CACHE_ID
        self._uv_cache.mkdir(parents=True, exist_ok=True)
        shared.symlink_to(self._uv_cache)
        try:
            self._run("rm", "--all")
            yield
        finally:
            self._unmount()

    def _unmount(self) -> None:
        kernel.unmount_below(self._folder)
        kernel.unmount_below(RUN)

    def has(self, reference: str) -> bool:
        """Whether it keeps an image."""
        return commands.attempt(self._argv("inspect", "--type", "image", reference)).returncode == 0

    def build(self, order: Order) -> None:
        """Builds an image; layers that are kept already are not built again.

        Raises:
            ClusterError: The build fails.
        """
        if self._base is None and not self.has(BASE):
            self._make_base()
        options = ["--isolation", "chroot", "--layers", "--format", "oci", *order.options(self._base or BASE)]
        self._run("bud", *options, "--tag", order.reference, order.context)
        self._run("bud", *options, "--target", KEPT_STAGE, "--tag", _stage(order.reference), order.context)

    def _make_base(self) -> None:
        archive = self._scratch / "base.tar"
        base_image.write_root(archive)
        container = self._run("from", "scratch").strip()
        self._run("add", "--quiet", container, archive, "/")
        self._run("config", "--cmd", "python3", container)
        self._run("commit", "--quiet", "--rm", container, BASE)
        archive.unlink()

    def tag(self, reference: str, other: str) -> None:
        """Gives an image another name besides."""
        self._run("tag", reference, other)

    def tidy(self, keep: Sequence[str]) -> None:
        """Removes older images of the names that these references have, and layers that no image needs any more."""
        names = self._run("images", "--format", "{{.Name}}:{{.Tag}}").split()
        kept = {BASE, *keep, *map(_stage, keep)}
        ours = {reference.rpartition(":")[0] for reference in kept}
        old = [name for name in names if name.rpartition(":")[0] in ours and name not in kept]
        if old:
            self._run("rmi", *old)
        self._run("rmi", "--prune")

    def export(self, reference: str, layout: Path) -> None:
        """Writes an image as an OCI layout, uncompressed, without the blobs that are there already.

        Args:
            reference: Of the image.
            layout: The layout's folder; blobs in it, or links to such, are not written again.

        Raises:
            ClusterError: It keeps no such image.
        """
        source = f"containers-storage:[{DRIVER}@{self._storage}+{RUN}]{reference}"
        # Compressing takes a minute for each gigabyte, and nobody far away waits for it.
        uncompressed = ["--quiet", "--dest-oci-accept-uncompressed-layers"]
        self._call(["skopeo", "copy", *uncompressed, source, f"oci:{layout}:{reference}"])

    def _argv(self, *words: str | Path) -> list[str | Path]:
        return ["buildah", *self._program, *words]

    def _run(self, *words: str | Path) -> str:
        return self._call(self._argv(*words))

    def _call(self, argv: list[str | Path]) -> str:
        # Layers on their way are as big as the image, too big for a /tmp in memory.
        return commands.run(argv, environment={**os.environ, "TMPDIR": str(self._scratch)})


def _stage(reference: str) -> str:
    name, _, tag = reference.rpartition(":")
    return f"{name}-{KEPT_STAGE}:{tag}"
