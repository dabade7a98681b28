"""The product's images: what each is built from, and the names under which the result is known."""

import hashlib
import platform
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `.dockerignore` lets through.
CONTEXT = (
    "LICENSE",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "apiserver/cryomamba_apiserver",
    "client/cryomamba",
    "crds/cryomamba_crds",
    "inference-image/cryomamba_inference",
    "operator/cryomamba_operator",
)
BYTE_CODE = "__pycache__"
KEY_CHARACTERS = 16


@dataclass(frozen=True)
class Recipe:
    """How one image is made.

    Attributes:
        name: Of the image, without registry and tag.
        dockerfile: Its path in the repository.
    """

    name: str
    dockerfile: str


SERVER = Recipe("cryomamba-server", "server-image/Dockerfile")
INFERENCE = Recipe("cryomamba-inference", "inference-image/Dockerfile")
# The small one first: it tells soon whether the package index can be reached.
RECIPES = (SERVER, INFERENCE)


def copy_context(folder: Path, root: Path = ROOT) -> None:
    """Copies everything that images are built from, so that what is built is what the key says whatever is edited.

    Args:
        folder: Where it goes; does not exist yet.
        root: The repository's.
    """
    for name in (*CONTEXT, ".dockerignore", *(recipe.dockerfile for recipe in RECIPES)):
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(BYTE_CODE))
        else:
            shutil.copy2(source, target)


def key(recipe: Recipe, base: str, root: Path = ROOT) -> str:
    """Names the content of an image: it changes with whatever the image is built from, and with nothing else.

    Args:
        recipe: Of the image.
        base: Names the content of the base image.
        root: The repository's, or that of a copy of the context.
    """
    digest = hashlib.sha256(f"{base}\0{platform.machine()}\0".encode())
    for file in _files((*CONTEXT, ".dockerignore", recipe.dockerfile), root):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:KEY_CHARACTERS]


def _files(names: tuple[str, ...], root: Path) -> list[Path]:
    found = []
    for path in (root / name for name in names):
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in found if BYTE_CODE not in file.parts)


def version(root: Path = ROOT) -> str:
    """The product's version."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def reference(recipe: Recipe, tag: str) -> str:
    """An image's full name on this machine."""
    return f"localhost/{recipe.name}:{tag}"
