"""Objects in a directory."""

import os
import secrets
import shutil
from pathlib import Path

from cryomamba_inference.storage.interface import missing


class DirectoryStorage:
    """Objects as files below a folder, as the API server's local profile keeps them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def fetch(self, key: str, scratch: Path) -> Path:  # noqa: ARG002 - a file can be read where it is
        """Return the object's own file."""
        path = self._root / key
        if not path.is_file():
            raise missing(key)
        return path

    def put_file(self, key: str, source: Path) -> None:
        """Move a file to its place; the copy is made beside it where the two are on different file systems."""
        target = self._prepared(key)
        temporary = self._temporary(target)
        shutil.move(source, temporary)
        _sync(temporary)
        temporary.replace(target)

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write a small object."""
        target = self._prepared(key)
        self._written(target, data).replace(target)

    def put_once(self, key: str, data: bytes) -> bool:
        """Write a small object unless it is there."""
        target = self._prepared(key)
        temporary = self._written(target, data)
        try:
            os.link(temporary, target)  # fails where the target exists, unlike a rename
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def remove(self, key: str) -> None:
        """Remove an object's file; its folder is the sweep's."""
        (self._root / key).unlink(missing_ok=True)

    def _prepared(self, key: str) -> Path:
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _written(self, target: Path, data: bytes) -> Path:
        temporary = self._temporary(target)
        temporary.write_bytes(data)
        _sync(temporary)
        return temporary

    @staticmethod
    def _temporary(target: Path) -> Path:
        return target.with_name(f".{target.name}.{secrets.token_hex(8)}")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
