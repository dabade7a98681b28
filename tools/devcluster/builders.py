"""What builders of container images have in common: an order, and what a builder can do."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Order:
    """One image to build.

    Attributes:
        context: Folder of what it is built from.
        dockerfile: Its path in the context.
        reference: The image's name and tag.
        arguments: Build arguments by name; the base image's is the builder's business.
        secrets: Files by the id under which the Dockerfile knows them.
    """

    context: Path
    dockerfile: str
    reference: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]

    def options(self, base: str) -> list[str | Path]:
        """The options that Docker and buildah have in common.

        Args:
            base: Name of the base image.
        """
        arguments = {"BASE": base, **self.arguments}
        return [
            "--file",
            self.context / self.dockerfile,
            *(word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")),
            *(word for name, file in self.secrets.items() for word in ("--secret", f"id={name},src={file}")),
        ]


class Builder(Protocol):
    """Builds images and keeps them."""

    @property
    def base_key(self) -> str:
        """Names the content of the base image."""

    def session(self) -> AbstractContextManager[None]:
        """What the other methods are called in; one process at a time."""

    def has(self, reference: str) -> bool:
        """Whether it keeps an image."""

    def build(self, order: Order) -> None:
        """Builds an image; layers that are kept already are not built again."""

    def tag(self, reference: str, other: str) -> None:
        """Gives an image another name besides."""

    def tidy(self, keep: Sequence[str]) -> None:
        """Removes older images of the names that these references have."""
