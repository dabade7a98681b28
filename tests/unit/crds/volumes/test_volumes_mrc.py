"""The MRC header gate, field by field."""

import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from cryomamba_crds.failures import FailureCode
from cryomamba_crds.volumes import MrcHeader, VolumeError, read_header

Build = Callable[..., bytes]
Read = Callable[[bytes], MrcHeader]

IMOD_STAMP = 1146047817

REFUSED = {
    "complex 16-bit": ({"mode": 3}, "mode", "mode 3"),
    "complex 32-bit": ({"mode": 4}, "mode", "mode 4"),
    "colour": ({"mode": 16}, "mode", "mode 16"),
    "4-bit": ({"mode": 101}, "mode", "mode 101"),
    "undefined mode": ({"mode": 7}, "mode", "mode 7"),
    "negative mode": ({"mode": -1}, "mode", "mode -1"),
    "4-bit values by IMOD's flag": ({"mode": 0, "imodStamp": IMOD_STAMP, "imodFlags": 17}, "imodFlags", "4-bit"),
    "no columns": ({"nx": 0}, "nx", "nx = 0"),
    "no rows": ({"ny": 0}, "ny", "ny = 0"),
    "negative sections": ({"nz": -3}, "nz", "nz = -3"),
    "2^63 voxels": ({"nx": 2**21, "ny": 2**21, "nz": 2**21}, "nx", "2097152 x 2097152 x 2097152"),
    "the most that the fields hold": ({"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1}, "nx", "2147483647"),
    "2^62 bytes": ({"nx": 2**20, "ny": 2**20, "nz": 2**20}, "size", "truncated"),
    "no column axis": ({"mapc": 0}, "mapc", "mapc, mapr, maps = 0, 2, 3"),
    "a fourth axis": ({"mapr": 4}, "mapr", "1, 4, 3"),
    "the same axis twice": ({"maps": 1}, "maps", "1, 2, 1"),
    "no axes": ({"mapc": 0, "mapr": 0, "maps": 0}, "mapc", "0, 0, 0"),
    "first stack of volumes": ({"ispg": 401}, "ispg", "stack of volumes"),
    "last stack of volumes": ({"ispg": 630}, "ispg", "ispg = 630"),
    "extended header past the end": ({"nsymbt": 2**31 - 1}, "nsymbt", "nsymbt = 2147483647"),
    "negative extended header": ({"nsymbt": -1}, "nsymbt", "nsymbt = -1"),
    "a voxel more than there is": ({"nx": 6, "data": bytes(240)}, "size", "1312 bytes, but the file has 1264"),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("fields", "field", "words"), REFUSED.values(), ids=REFUSED)
def test_a_bad_header_is_refused_with_its_field_and_a_hint(
    mrc: Build, read: Read, order: str, fields: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(VolumeError) as caught:
        read(mrc(order, **fields))

    failure = caught.value.failure
    assert failure.details == {"field": field}
    assert words in failure.message
    assert failure.code is FailureCode.VALIDATION_ERROR
    assert failure.hint
    assert not failure.retryable


@pytest.mark.parametrize("mode", [3, 4, 16, 101])
def test_the_hint_for_a_mode_that_is_not_read_says_how_to_convert_it(mrc: Build, read: Read, mode: int) -> None:
    with pytest.raises(VolumeError) as caught:
        read(mrc(mode=mode))

    assert "newstack -mode 2" in caught.value.failure.hint


def test_an_extended_header_that_leaves_no_room_for_the_voxels_is_refused_as_truncation(mrc: Build) -> None:
    content = mrc(nsymbt=100)[:-100]

    with pytest.raises(VolumeError, match="100 bytes of extended header") as caught:
        read_header(io.BytesIO(content), len(content))

    assert caught.value.field == "size"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("mode", "dtype", "item_size"),
    [(0, "int8", 1), (1, "int16", 2), (2, "float32", 4), (6, "uint16", 2), (12, "float16", 2)],
)
def test_every_mode_that_is_read_has_its_type_in_both_byte_orders(
    mrc: Build, read: Read, order: str, mode: int, dtype: str, item_size: int
) -> None:
    header = read(mrc(order, mode=mode))

    assert (header.dtype, header.item_size, header.byte_order) == (dtype, item_size, order)
    assert header.data_bytes == 60 * item_size
    assert header.warnings == ()


@pytest.mark.parametrize(
    ("stamp", "flags", "dtype", "words"),
    [
        (IMOD_STAMP, 0, "uint8", "taken as unsigned: IMOD's flags say so"),
        (IMOD_STAMP, 1, "int8", "taken as signed: IMOD's flags say so"),
        (IMOD_STAMP, 2, "uint8", "taken as unsigned"),
        (IMOD_STAMP, 3, "int8", "taken as signed"),
        (0, 0, "int8", "no IMOD stamp"),
        (0, 1, "int8", "no IMOD stamp"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_mode_0_is_unsigned_only_where_imod_says_so(
    mrc: Build, read: Read, order: str, stamp: int, flags: int, dtype: str, words: str
) -> None:
    header = read(mrc(order, mode=0, imodStamp=stamp, imodFlags=flags))

    assert header.dtype == dtype
    assert words in header.facts()["format"]


def test_signed_bytes_with_a_larger_maximum_in_the_header_are_remarked_on(mrc: Build, read: Read) -> None:
    header = read(mrc(mode=0, density=(0.0, 255.0, 90.0)))

    assert header.dtype == "int8"
    assert any("were they unsigned?" in warning for warning in header.warnings)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stamp", [b"\x44\x44\0\0", b"\x44\x41\0\0", b"\x11\x11\0\0", bytes(4)], ids=bytes.hex)
def test_the_byte_order_is_told_by_plausibility_whatever_the_machine_stamp_says(
    mrc: Build, read: Read, order: str, stamp: bytes
) -> None:
    header = read(mrc(order, machst=stamp))

    assert (header.byte_order, header.shape) == (order, (5, 4, 3))
    contradicts = {("<", 0x11), (">", 0x44)}
    assert any("stamp" in warning for warning in header.warnings) == ((order, stamp[0]) in contradicts)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_machine_stamp_decides_where_neither_byte_order_makes_sense(mrc: Build, read: Read, order: str) -> None:
    with pytest.raises(VolumeError, match="mode 7,"):
        read(mrc(order, nx=0, ny=0, nz=0, mode=7, mapc=0, mapr=0, maps=0))


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_file_without_the_map_mark_is_read_with_a_warning(mrc: Build, read: Read, order: str) -> None:
    header = read(mrc(order, map=bytes(4), machst=bytes(4)))

    assert header.shape == (5, 4, 3)
    assert any('"MAP "' in warning for warning in header.warnings)


def test_a_longer_file_is_accepted_with_a_warning(mrc: Build, read: Read) -> None:
    header = read(mrc() + bytes(17))

    assert header.data_bytes == 240
    assert any("17 bytes longer" in warning for warning in header.warnings)


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_any_order_of_axes_is_brought_into_x_y_z(mrc: Build, read: Read, axes: tuple[int, int, int]) -> None:
    content = mrc(
        mapc=axes[0], mapr=axes[1], maps=axes[2], nstart=(-7, -8, -9), intervals=(10, 20, 40), cell=(20.0, 80.0, 200.0)
    )

    header = read(content)

    by_axis = dict(zip(axes, (5, 4, 3), strict=True))
    starts = dict(zip(axes, (-7, -8, -9), strict=True))
    assert header.axis_order == axes
    assert header.file_shape == (5, 4, 3)
    assert header.shape == (by_axis[1], by_axis[2], by_axis[3])
    assert header.nstart == (starts[1], starts[2], starts[3])
    assert header.voxel_size_nm == pytest.approx((0.2, 0.4, 0.5)), "cell and intervals belong to X, Y, Z already"


@pytest.mark.parametrize(
    ("fields", "voxel_size_nm"),
    [
        ({"cell": (67.4, 53.92, 40.44)}, (1.348, 1.348, 1.348)),
        ({"cell": (5.0, 4.0, 6.0)}, (0.1, 0.1, 0.2)),
        ({"cell": (5.0, 4.0, 3.0)}, None),
        ({"cell": (0.0, 0.0, 0.0)}, None),
        ({"cell": (5.5, 4.4, 0.0)}, None),
        ({"cell": (-5.5, 4.4, 3.3)}, None),
        ({"cell": (math.nan, 4.4, 3.3)}, None),
        ({"cell": (math.inf, 4.4, 3.3)}, None),
        ({"intervals": (0, 4, 3)}, None),
        ({"intervals": (-5, 4, 3)}, None),
    ],
)
def test_a_voxel_size_that_cannot_be_or_is_only_the_default_is_unknown(
    mrc: Build, read: Read, fields: dict[str, object], voxel_size_nm: tuple[float, float, float] | None
) -> None:
    header = read(mrc(**fields))

    assert header.voxel_size_nm == (None if voxel_size_nm is None else pytest.approx(voxel_size_nm))
    assert any("voxel size is not set" in warning for warning in header.warnings) == (voxel_size_nm is None)


@pytest.mark.parametrize(
    ("ispg", "intervals", "suspected"), [(0, (5, 4, 3), False), (0, (5, 4, 1), True), (1, (5, 4, 1), True)]
)
def test_sections_without_depth_are_suspected_to_be_a_tilt_series(
    mrc: Build, read: Read, ispg: int, intervals: tuple[int, int, int], *, suspected: bool
) -> None:
    header = read(mrc(ispg=ispg, intervals=intervals))

    assert any("tilt series" in warning for warning in header.warnings) == suspected


@pytest.mark.parametrize("ispg", [0, 1, 400, 631])
def test_space_groups_beside_those_of_stacks_are_volumes(mrc: Build, read: Read, ispg: int) -> None:
    assert read(mrc(ispg=ispg)).ispg == ispg


def test_angles_other_than_right_ones_are_remarked_on(mrc: Build, read: Read) -> None:
    assert any("90°" in warning for warning in read(mrc(angles=(90.0, 90.0, 120.0))).warnings)


def test_the_extended_header_is_skipped(mrc: Build, read: Read) -> None:
    header = read(mrc(nsymbt=768, exttyp=b"FEI1"))

    assert (header.data_offset, header.nsymbt, header.exttyp) == (1792, 768, "FEI1")
    assert header.facts()["extended header"] == "768 bytes, type FEI1, skipped"


def test_a_volume_of_more_than_2_to_the_31_voxels_is_read(mrc: Build) -> None:
    head = mrc("<", nx=2200, ny=1000, nz=1000, mode=0)[:1024]

    header = read_header(io.BytesIO(head), 1024 + 2_200_000_000)

    assert header.data_bytes == 2_200_000_000
    assert header.shape == (2200, 1000, 1000)


def test_labels_are_shown_without_what_a_terminal_would_obey(mrc: Build, read: Read) -> None:
    header = read(mrc(nlabl=2**31 - 1, label=b"\x1b[2Jtilt \x07axis\xff"))

    assert header.labels == ("[2Jtilt axis",)


def test_the_header_keeps_the_bytes_of_the_file(mrc: Build, read: Read) -> None:
    content = mrc(">", nsymbt=8)

    assert read(content).header_bytes == content[:1024]


def test_a_real_map_is_read_with_all_its_facts(emd_3197: Path) -> None:
    with emd_3197.open("rb") as stream:
        header = read_header(stream, emd_3197.stat().st_size)

    assert isinstance(header, MrcHeader)
    assert header.shape == (20, 20, 20)
    assert header.voxel_size_nm == pytest.approx((1.14, 1.14, 1.14))
    assert header.nstart == (-2, 0, 0)
    assert header.machine_stamp == b"\x44\x41\0\0"
    assert header.labels == ("::::EMDATABANK.org::::EMD-3197::::",)
    assert header.warnings == ()
    facts = header.facts()
    assert facts["format"] == "MRC, mode 2 (float32)"
    assert facts["voxel size"] == "1.14 x 1.14 x 1.14 nm"
    assert facts["start (X, Y, Z)"] == "-2, 0, 0"
    assert facts["byte order"] == "little-endian"
