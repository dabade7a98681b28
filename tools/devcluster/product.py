"""The product's images, built when what they are built from has changed."""

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from devcluster import builds, commands, package_index, recipes
from devcluster.builders import Builder, Order

log = logging.getLogger(__name__)

UNKNOWN = "unknown"
WORKPLACE = "unfinished-"


def references(builder: Builder, root: Path = recipes.ROOT) -> dict[str, str]:
    """The name and tag of each image as the sources are now, built or not."""
    return {
        recipe.name: recipes.reference(recipe, recipes.key(recipe, builder.base_key, root))
        for recipe in recipes.RECIPES
    }


@contextmanager
def session(builder: Builder, folder: Path) -> Iterator[Path]:
    """What images are built and exported in: one process at a time, or one would remove what the other has just built.

    Args:
        builder: What builds.
        folder: Of the lock, and of a folder for files on the way, which is yielded.

    Raises:
        ClusterError: What builds cannot run here.
    """
    with builds.locked(folder / "lock"), builder.session():
        # Of work that was killed.
        for left in folder.glob(f"{WORKPLACE}*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder, prefix=WORKPLACE) as place:
            yield Path(place)


def build(builder: Builder, place: Path, *, always: bool = False) -> dict[str, str]:
    """Builds what is missing; in a session.

    Args:
        builder: What builds.
        place: The session's folder.
        always: Build also what is there, so that the labels say the revision of now; its layers are there.

    Returns:
        Name and tag of each image. Each has the product's version as a tag, too.

    Raises:
        ClusterError: A build fails.
    """
    context = place / "context"
    recipes.copy_context(context)
    wanted = references(builder, context)
    orders = [
        Order(context, recipe.dockerfile, wanted[recipe.name], _labels(recipes.ROOT), {})
        for recipe in recipes.RECIPES
        if always or not builder.has(wanted[recipe.name])
    ]
    secrets = package_index.secrets(place, package_index.pip_settings()) if orders else {}
    for order in orders:
        log.info("building %s", order.reference)
        started = time.monotonic()
        builder.build(replace(order, secrets=secrets))
        log.info("built it in %.0f s", time.monotonic() - started)
    versions = {recipe.name: recipes.reference(recipe, recipes.version()) for recipe in recipes.RECIPES}
    for name, version in versions.items():
        builder.tag(wanted[name], version)
    if orders:
        builder.tidy([*wanted.values(), *versions.values()])
    return wanted


def _labels(root: Path) -> dict[str, str]:
    """What the images' labels say of their origin."""
    revision = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *recipes.CONTEXT)
    return {
        "VERSION": recipes.version(root),
        "REVISION": (f"{revision}-changed" if changed else revision) or UNKNOWN,
        "SOURCE": without_credentials(_git(root, "remote", "get-url", "origin")) or UNKNOWN,
    }


def _git(root: Path, *words: str) -> str:
    """What git says; nothing where there is no git or no repository."""
    try:
        return commands.attempt(["git", "-C", root, *words]).stdout.strip()
    except FileNotFoundError:
        return ""


def without_credentials(url: str) -> str:
    """A URL without the user and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
