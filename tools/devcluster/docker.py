"""Builds images with Docker and leaves keeping them to it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from devcluster import commands
from devcluster.builders import Order

PUBLIC_BASE = "python:3.11-slim-bookworm"


class Docker:
    """The builder of a machine where Docker answers.

    Args:
        base: Name of the base image; None: the one that the Dockerfiles name.
    """

    def __init__(self, base: str | None = None) -> None:
        self._base = base or PUBLIC_BASE

    @property
    def base_key(self) -> str:
        """Names the content of the base image, as far as a name can."""
        return self._base

    @contextmanager
    def session(self) -> Iterator[None]:
        """What the other methods are called in."""
        yield

    def has(self, reference: str) -> bool:
        """Whether it keeps an image."""
        return commands.attempt(["docker", "image", "inspect", reference]).returncode == 0

    def build(self, order: Order) -> None:
        """Builds an image; layers that are kept already are not built again.

        Raises:
            ClusterError: The build fails.
        """
        commands.run(
            ["docker", "build", *order.options(self._base), "--tag", order.reference, order.context],
            # The old builder knows no mounts.
            environment={**os.environ, "DOCKER_BUILDKIT": "1"},
        )

    def tag(self, reference: str, other: str) -> None:
        """Gives an image another name besides."""
        commands.run(["docker", "tag", reference, other])

    def tidy(self, keep: Sequence[str]) -> None:
        """Removes older images of the names that these references have."""
        names = commands.run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).split()
        ours = {reference.rpartition(":")[0] for reference in keep}
        old = [name for name in names if name.rpartition(":")[0] in ours and name not in keep]
        if old:
            commands.run(["docker", "rmi", *old])
