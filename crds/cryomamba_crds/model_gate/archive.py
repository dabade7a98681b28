"""Reads and writes model archives in bounded memory: a result folder, or a zip of one, possibly a hostile zip.

Nothing is unpacked while looking: entries are read through windows of at most `LONGEST_READ` bytes, and only the
files that a model needs (`is_needed`) are ever opened.
"""

import contextlib
import hashlib
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from cryomamba_crds.model_gate.errors import ModelError

LONGEST_READ = 160 * 1024
"""No single read of untrusted bytes is longer; a zip's directory is one read, so this bounds the entries as well."""

CHECKPOINT = "checkpoint_final.pth"

_TAIL = 192 * 1024  # longer than LONGEST_READ, so that a zip's directory and its end record lie within
_CHUNK = 64 * 1024
_MOST_ENTRIES = 2048
_LARGEST_TOTAL = 16 * 1024**3
_FREE_SIZE = 16 * 1024**2
_LARGEST_RATIO = 50  # weights hardly compress; a momentum of zeros is at most half of a checkpoint
_NEEDED = re.compile(r"^(plans\.json|dataset\.json|fold_(0|[1-9][0-9]{0,2}|all)/checkpoint_final\.pth)$")
_BROKEN_ZIP = (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, RuntimeError, OSError, ValueError)


def is_needed(name: str) -> bool:
    """Whether a file of a result folder, named relative to it, is needed to run the model."""
    return _NEEDED.match(name) is not None


class ModelFiles(Protocol):
    """The needed files of one model, named relative to its result folder."""

    def names(self) -> list[str]:
        """Return the names, sorted."""

    def size(self, name: str) -> int:
        """Return the size in bytes, uncompressed."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for seeking reads of at most `LONGEST_READ` bytes each; what is longer raises ModelError."""


class _Bounded(io.RawIOBase):
    """A seekable file that refuses long reads, so that no length field can ask for the memory of the process."""

    def __init__(self, file: BinaryIO, field: str) -> None:
        super().__init__()
        self._file = file
        self._field = field

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(LONGEST_READ + 1 if size < 0 or size > LONGEST_READ else size)
        if len(data) > LONGEST_READ:
            raise ModelError(self._field, f"holds a record of more than {LONGEST_READ} bytes where a short one belongs")
        return data


class _EntryFile(io.RawIOBase):
    """An entry of a zip as a seekable file that holds its tail and streams the rest.

    A checkpoint is a zip itself, whose directory is at its end and whose first record is the one to look at. Seeking
    in a compressed entry means inflating it again from its start; keeping the tail makes that one pass, which also
    checks the entry's CRC, and the short way to the record.
    """

    def __init__(self, open_stream: Callable[[], BinaryIO], size: int) -> None:
        super().__init__()
        self._open_stream = open_stream
        self._size = size
        self._position = 0
        self._tail_start = max(0, size - _TAIL)
        self._tail: bytes | None = None
        self._stream: BinaryIO | None = None
        self._stream_position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a seek to before the start")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._position)
        size = left if size < 0 else min(size, left)
        data = self._from_tail(size) if self._position >= self._tail_start else self._from_stream(size)
        self._position += len(data)
        return data

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        super().close()

    def _from_tail(self, size: int) -> bytes:
        if self._tail is None:
            self._wind_to(self._tail_start)
            pulled = []
            while self._stream_position < self._size:
                pulled.append(self._pull(min(_CHUNK, self._size - self._stream_position)))
            self._tail = b"".join(pulled)
        start = self._position - self._tail_start
        return self._tail[start : start + size]

    def _from_stream(self, size: int) -> bytes:
        self._wind_to(self._position)
        return self._pull(size)

    def _wind_to(self, position: int) -> None:
        if self._stream is None or self._stream_position > position:
            if self._stream is not None:
                self._stream.close()
            self._stream = self._open_stream()
            self._stream_position = 0
        while self._stream_position < position:
            self._pull(min(_CHUNK, position - self._stream_position))

    def _pull(self, size: int) -> bytes:
        if self._stream is None:
            raise ValueError("nothing is open")
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("the entry ends early")
        self._stream_position += size
        return data


def open_zip(file: BinaryIO, field: str) -> zipfile.ZipFile:
    """Open a zip, possibly a hostile one, in bounded memory.

    Args:
        file: A seekable file.
        field: How failures call it.

    Raises:
        ModelError: It is no zip, has too many entries, names a path outside of itself, names one twice, holds a link
            or an encrypted entry, is packed in an unusual way, or would unpack to far more than weights do.
    """
    try:
        archive = zipfile.ZipFile(_Bounded(file, field))
    except _BROKEN_ZIP as error:
        raise ModelError(field, f"is no readable zip ({error})") from error
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise ModelError(field, f"has {len(entries)} entries; a model has fewer than {_MOST_ENTRIES}")
    if sum(entry.file_size for entry in entries) > _LARGEST_TOTAL:
        raise ModelError(field, f"unpacks to more than {_LARGEST_TOTAL >> 30} GiB")
    if len({entry.filename for entry in entries}) != len(entries):
        raise ModelError(field, "names an entry twice")
    for entry in entries:
        problem = _problem_of(entry)
        if problem:
            raise ModelError(field, f"entry {entry.orig_filename[:200]!r} {problem}")
    return archive


def _problem_of(entry: zipfile.ZipInfo) -> str | None:
    parts = entry.filename.removesuffix("/").split("/")
    outside = {"", ".", ".."} & set(parts) or "\\" in entry.filename or ":" in parts[0]
    if outside or "\0" in entry.orig_filename:
        return "has a path that leads outside of the archive"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed with something other than deflate"
    if entry.file_size > _FREE_SIZE + _LARGEST_RATIO * entry.compress_size:
        return f"would unpack from {entry.compress_size} to {entry.file_size} bytes"
    return None


class FolderFiles:
    """A model as a folder on disk: one that this process unpacked, or a user's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = [name for name in ("plans.json", "dataset.json") if (folder / name).is_file()]
        found += [path.relative_to(folder).as_posix() for path in folder.glob(f"fold_*/{CHECKPOINT}")]
        self._names = sorted(name for name in found if is_needed(name))

    def names(self) -> list[str]:
        """See `ModelFiles`."""
        return self._names

    def size(self, name: str) -> int:
        """See `ModelFiles`."""
        return (self._folder / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        """See `ModelFiles`."""
        return (self._folder / name).open("rb")


class ZipFiles:
    """A model as a zip: the result folder's content, at the root or below one folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        root = _root_of([entry.filename for entry in archive.infolist()])
        self._entries = {
            entry.filename.removeprefix(root): entry
            for entry in archive.infolist()
            if entry.filename.startswith(root) and is_needed(entry.filename.removeprefix(root))
        }

    def names(self) -> list[str]:
        """See `ModelFiles`."""
        return sorted(self._entries)

    def size(self, name: str) -> int:
        """See `ModelFiles`."""
        return self._entries[name].file_size

    def stream(self, name: str) -> BinaryIO:
        """Open a file for reading from start to end."""
        return self._archive.open(self._entries[name])  # type: ignore[return-value]  # typeshed says IO[bytes]

    def open(self, name: str) -> BinaryIO:
        """See `ModelFiles`."""
        return _EntryFile(lambda: self.stream(name), self.size(name))  # type: ignore[return-value]  # reads only


def _root_of(names: list[str]) -> str:
    roots = sorted(name.removesuffix("plans.json") for name in names if name.rsplit("/", 1)[-1] == "plans.json")
    if not roots:
        raise ModelError("plans.json", "is not in the archive")
    if len(roots) > 1:
        listed = ", ".join(root or "the top" for root in roots[:5])
        raise ModelError(
            "plans.json",
            f"is there {len(roots)} times (in {listed}); an archive holds one model",
            hint="Export one configuration at a time: nnUNetv2_export_model_to_zip ... -c 3d_fullres",
        )
    return roots[0]


@contextlib.contextmanager
def model_files(model: Path | BinaryIO) -> Iterator[ModelFiles]:
    """Open a result folder (a path), or a zip of one (a path or a seekable file).

    Raises:
        ModelError: See `open_zip`; also for what turns out to be broken while the block reads it.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(model, Path) and model.is_dir():
            yield FolderFiles(model)
            return
        file = stack.enter_context(model.open("rb")) if isinstance(model, Path) else model
        archive = stack.enter_context(open_zip(file, "archive"))
        try:
            yield ZipFiles(archive)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ModelError("archive", f"is damaged ({error})") from error


def extract_model(archive: Path | BinaryIO, folder: Path) -> None:
    """Unpack the needed files of a model's zip (a path or a seekable file) into an existing empty folder.

    Raises:
        ModelError: See `open_zip`.
        OSError: The disk is full, and the like.
    """
    with model_files(archive) as files:
        if not isinstance(files, ZipFiles):
            raise ModelError("archive", "is a folder where a zip belongs")
        for name in files.names():
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            with files.stream(name) as source, target.open("xb") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)


def pack_model(folder: Path, destination: Path) -> str:
    """Write a model's zip: the needed files of an nnU-Net result folder and nothing else, byte for byte reproducible.

    Entries are stored, not deflated: weights hardly compress, and deflated bytes differ from one zlib to the next.

    Args:
        folder: Holds plans.json, dataset.json and fold_*/checkpoint_final.pth; what else is there is left out.
        destination: The zip; replaced if it exists.

    Returns:
        ``sha256:`` and the digest of the zip.

    Raises:
        ModelError: plans.json, dataset.json or every checkpoint is missing.
    """
    names = FolderFiles(folder).names()
    refuse_incomplete(names)
    partial = destination.with_name(destination.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.create_system = 3  # Unix, on every system
            entry.file_size = (folder / name).stat().st_size
            with (folder / name).open("rb") as source, archive.open(entry, "w") as sink:
                while chunk := source.read(_CHUNK):
                    sink.write(chunk)
    partial.replace(destination)
    return digest_of(destination)


def digest_of(archive: Path) -> str:
    """Return ``sha256:`` and the digest of a file, as the catalogue pins models."""
    with archive.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def refuse_incomplete(names: list[str]) -> None:
    """Refuse a model of which a file is missing.

    Raises:
        ModelError: It names the first one.
    """
    for name in ("plans.json", "dataset.json"):
        if name not in names:
            raise ModelError(name, "is missing")
    if not any(name.endswith(CHECKPOINT) for name in names):
        raise ModelError(
            f"fold_*/{CHECKPOINT}",
            "is missing",
            hint="nnU-Net writes checkpoint_final.pth when training ends. To use an unfinished training, "
            "copy checkpoint_best.pth of the fold to checkpoint_final.pth.",
        )
