"""Looks at a checkpoint's pickle without running it: only the opcodes and the names that nnU-Net's own contain pass.

A checkpoint is a zip that torch.save wrote. Its `data.pkl` is walked opcode by opcode; values that are of no interest
are not built, so a large or a hostile one costs no more memory than a small one. torch's own ``weights_only`` loading
comes after this, not instead of it.
"""

import io
import pickletools
import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cryomamba_crds.model_gate.archive import LONGEST_READ, open_zip
from cryomamba_crds.model_gate.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

ALLOWED_GLOBALS: Final = frozenset(
    {
        "_codecs encode",
        "collections OrderedDict",
        "numpy dtype",
        "numpy._core.multiarray scalar",
        "numpy.core.multiarray scalar",
        "torch Size",
        "torch device",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        "torch BFloat16Storage",
        "torch BoolStorage",
        "torch ByteStorage",
        "torch CharStorage",
        "torch DoubleStorage",
        "torch FloatStorage",
        "torch HalfStorage",
        "torch IntStorage",
        "torch LongStorage",
        "torch ShortStorage",
    }
)
"""What a checkpoint's pickle may name ("module name"); all of it builds data and does nothing else."""

_LARGEST_PICKLE = 32 * 1024**2
_DEEPEST_STACK = 8_000  # the pickler works in batches of 1,000 pairs
_MOST_MEMORIES = 2500  # the largest nnU-Net presets, trained with Adam, need about 1,700
_LONGEST_WORD = 64
_WANTED = frozenset({"init_args", "configuration", "trainer_name", "inference_allowed_mirroring_axes"})
_RECORD = re.compile(
    r"^[^/]+/(data\.pkl|byteorder|version|data/[0-9]+|\.data/serialization_id|\.format_version|\.storage_alignment)$"
)
_WORD = re.compile(r"^(?![0-9]+$)[A-Za-z0-9_-]+$")
_LEGACY_HINT = (
    "Write it again in torch's zip format: python -c \"import torch; p = 'checkpoint_final.pth'; "
    'torch.save(torch.load(p, weights_only=False), p)" (only if you trust the file: this runs what it contains).'
)


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself."""

    configuration: str
    trainer_name: str
    mirroring_axes: tuple[int, ...] | None
    """Axes of the plan that training mirrored; None where it did not."""


def inspect_checkpoint(file: BinaryIO, field: str) -> CheckpointFacts:
    """Check a checkpoint and read what it says of itself, running nothing of it.

    Args:
        file: A seekable file.
        field: How failures call it.

    Raises:
        ModelError: It is no zip of torch's, its pickle has an opcode or a name that nnU-Net's checkpoints have not,
            or it does not say which configuration and trainer it belongs to.
    """
    start = file.read(4)
    file.seek(0)
    if start != b"PK\x03\x04":
        raise ModelError(field, "is not a zip but a legacy torch pickle or something else", hint=_LEGACY_HINT)
    with open_zip(file, field) as archive:
        record = _pickle_record(archive, field)
        try:
            with archive.open(record) as stream:
                top = _Walk(field).run(_Bytes(stream, field))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ModelError(field, f"is damaged ({error})") from error
    return _facts(top, field)


def _pickle_record(archive: zipfile.ZipFile, field: str) -> zipfile.ZipInfo:
    entries = archive.infolist()
    if len({entry.filename.split("/", 1)[0] for entry in entries}) != 1:
        raise ModelError(field, "has more than one top folder; torch.save writes one")
    for entry in entries:
        if not _RECORD.match(entry.filename):
            raise ModelError(field, f"has a record {entry.filename[:200]!r} that torch.save does not write")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ModelError(field, f"has a compressed record {entry.filename[:200]!r}; torch.save stores them")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelError(field, "has no data.pkl, so torch.save did not write it")
    if pickles[0].file_size > _LARGEST_PICKLE:
        raise ModelError(field, f"has a data.pkl of more than {_LARGEST_PICKLE >> 20} MiB")
    return pickles[0]


def _facts(top: object, field: str) -> CheckpointFacts:
    outer = top if isinstance(top, dict) else {}
    arguments = outer.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    trainer_name = outer.get("trainer_name")
    axes = outer.get("inference_allowed_mirroring_axes")
    if not isinstance(configuration, str):
        raise ModelError(f"{field}: init_args.configuration", "is missing: this is no checkpoint of nnU-Net v2")
    if not isinstance(trainer_name, str):
        raise ModelError(f"{field}: trainer_name", "is missing: this is no checkpoint of nnU-Net v2")
    if axes is not None and not (isinstance(axes, tuple) and set(axes) <= {0, 1, 2} and len(set(axes)) == len(axes)):
        raise ModelError(f"{field}: inference_allowed_mirroring_axes", "is no list of axes")
    return CheckpointFacts(configuration, trainer_name, axes or None)


class _Bytes(io.BufferedReader):
    """A pickle's bytes, of which no single argument may be long."""

    def __init__(self, stream: Any, field: str) -> None:  # noqa: ANN401  # zipfile's IO[bytes] is no RawIOBase to mypy
        super().__init__(stream, 64 * 1024)
        self._field = field

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LONGEST_READ:
            raise ModelError(self._field, f"has a pickle with a value of {size} bytes")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        del size
        return super().readline(512)  # a name without its end is then refused as unknown


class _Opaque:
    """Stands for every value that is of no interest."""


_OPAQUE: Final = _Opaque()
_MARK: Final = _Opaque()


class _Walk:
    """A walk over a pickle's opcodes that keeps words, small tuples of axes and the dicts around them."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}
        push = self._push
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "GLOBAL": self._global,
            "MARK": lambda _: push(_MARK),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(_OPAQUE),
            "NEWFALSE": lambda _: push(_OPAQUE),
            "BININT": push,
            "BININT1": push,
            "BININT2": push,
            "LONG1": lambda _: push(_OPAQUE),
            "BINFLOAT": lambda _: push(_OPAQUE),
            "BINUNICODE": self._word,
            "SHORT_BINSTRING": lambda _: push(_OPAQUE),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push(_OPAQUE),
            "EMPTY_TUPLE": lambda _: push(()),
            "EMPTY_SET": lambda _: push(_OPAQUE),
            "TUPLE": lambda _: self._tuple(self._since_mark()),
            "TUPLE1": lambda _: self._tuple(self._pop(1)),
            "TUPLE2": lambda _: self._tuple(self._pop(2)),
            "TUPLE3": lambda _: self._tuple(self._pop(3)),
            "APPEND": lambda _: self._drop(self._pop(1)),
            "APPENDS": lambda _: self._drop(self._since_mark()),
            "SETITEM": lambda _: self._set_items(self._pop(2)),
            "SETITEMS": lambda _: self._set_items(self._since_mark()),
            "NEWOBJ": lambda _: self._replace(self._pop(2)),
            "REDUCE": lambda _: self._replace(self._pop(2)),
            "BUILD": lambda _: self._drop(self._pop(1)),
            "BINPERSID": lambda _: self._replace(self._pop(1)),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "BINGET": self._recall,
            "LONG_BINGET": self._recall,
        }

    def run(self, pickle: BinaryIO) -> object:
        """Return the pickle's value, with everything uninteresting left out."""
        try:
            for opcode, argument, position in pickletools.genops(pickle):
                if opcode.name == "STOP":
                    return self._pop(1)[0]
                step = self._steps.get(opcode.name)
                if step is None:
                    raise ModelError(
                        self._field, f"has a pickle with opcode {opcode.name} at byte {position}; torch.save uses none"
                    )
                step(argument)
        except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
            raise ModelError(self._field, f"has a broken pickle ({error})") from error
        raise ModelError(self._field, "has a pickle without an end")

    def _push(self, value: object) -> None:
        if len(self._stack) >= _DEEPEST_STACK:
            raise ModelError(self._field, "has a pickle with an unusually deep stack")
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count or any(value is _MARK for value in self._stack[-count:]):
            raise IndexError("the stack ends early")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _since_mark(self) -> list[Any]:
        start = len(self._stack) - 1
        while start >= 0 and self._stack[start] is not _MARK:
            start -= 1
        if start < 0:
            raise IndexError("a mark is missing")
        taken = self._stack[start + 1 :]
        del self._stack[start:]
        return taken

    def _drop(self, values: list[Any]) -> None:
        del values

    def _replace(self, values: list[Any]) -> None:
        # What it makes is of no interest; an OrderedDict of weights comes through here too.
        del values
        self._push(_OPAQUE)

    def _global(self, name: str) -> None:
        if name not in ALLOWED_GLOBALS:
            raise ModelError(
                self._field,
                f"has a pickle that names {name[:200].replace(' ', '.')!r}, which no checkpoint of nnU-Net needs",
                hint="Loading such a file in Python would run code. Get the model again from where it was trained.",
            )
        self._push(_OPAQUE)

    def _word(self, text: str) -> None:
        self._push(text if len(text) <= _LONGEST_WORD and _WORD.match(text) else _OPAQUE)

    def _tuple(self, values: list[Any]) -> None:
        axes = len(values) <= 3 and all(isinstance(value, int) and 0 <= value <= 2 for value in values)  # noqa: PLR2004  # three axes
        self._push(tuple(values) if axes else _OPAQUE)

    def _set_items(self, values: list[Any]) -> None:
        target = self._pop(1)[0]
        if isinstance(target, dict):
            pairs = zip(values[::2], values[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, str) and key in _WANTED)
        self._push(target)

    def _remember(self, index: int) -> None:
        value = self._pop(1)[0]
        self._push(value)
        if value is _OPAQUE or value is None or len(self._memory) >= _MOST_MEMORIES:
            self._memory.pop(index, None)
        else:
            self._memory[index] = value

    def _recall(self, index: int) -> None:
        self._push(self._memory.get(index, _OPAQUE))
