"""The NIfTI-1 header gate, field by field."""

import math
from collections.abc import Callable

import pytest

from cryomamba_crds.volumes import NiftiHeader, VolumeError

Build = Callable[..., bytes]
Read = Callable[[bytes], NiftiHeader]
Gzipped = Callable[[bytes], bytes]

UNITS_MM, UNITS_UM, UNITS_M = 2, 3, 1

REFUSED = {
    "NIfTI-2": ({"sizeof_hdr": 540}, "magic", "NIfTI-2"),
    "a pair of files": ({"magic": b"ni1\0"}, "magic", ".hdr and .img"),
    "ANALYZE": ({"magic": bytes(4)}, "magic", "ANALYZE"),
    "wrong length of header": ({"sizeof_hdr": 349}, "sizeof_hdr", "348"),
    "no dimensions": ({"dim": (0, 5, 4, 3, 1, 1, 1, 1)}, "dim", "dim[0] = 0"),
    "eight dimensions": ({"dim": (8, 5, 4, 3, 1, 1, 1, 1)}, "dim", "dim[0] = 8"),
    "an image": ({"dim": (2, 5, 4, 1, 1, 1, 1, 1)}, "dim", "2 dimension(s) (5 x 4)"),
    "no depth": ({"dim": (3, 5, 4, 0, 1, 1, 1, 1)}, "dim", "5 x 4 x 0"),
    "negative width": ({"dim": (3, -5, 4, 3, 1, 1, 1, 1)}, "dim", "-5 x 4 x 3"),
    "more volumes than channels": ({"dim": (4, 5, 4, 3, 65, 1, 1, 1)}, "dim", "65 volumes"),
    "a vector field": ({"dim": (5, 5, 4, 3, 1, 3, 1, 1)}, "dim", "more than four dimensions (5 x 4 x 3 x 1 x 3)"),
    "fewer channels than claimed": ({"dim": (4, 5, 4, 3, 2, 1, 1, 1), "data": bytes(475)}, "size", "5 x 4 x 3 x 2"),
    "complex": ({"datatype": 32, "bitpix": 64}, "datatype", "complex64"),
    "colour": ({"datatype": 128, "bitpix": 24}, "datatype", "RGB"),
    "undefined type": ({"datatype": 3}, "datatype", "not defined"),
    "bits that do not fit the type": ({"bitpix": 16}, "bitpix", "bitpix = 16 for float32"),
    "voxels inside the header": ({"vox_offset": 348.0}, "vox_offset", "348"),
    "voxels at no place": ({"vox_offset": math.nan}, "vox_offset", "nan"),
    "voxels between two bytes": ({"vox_offset": 352.5}, "vox_offset", "352.5"),
    "voxels past the end": ({"vox_offset": 3e38}, "vox_offset", "past the end"),
    "more voxels than bytes": ({"dim": (3, 32767, 32767, 32767, 1, 1, 1, 1)}, "size", "truncated"),
    "infinite intercept": ({"scl_slope": 2.0, "scl_inter": math.inf}, "scl_inter", "inf"),
    "shear": (
        {
            "sform_code": 1,
            "srow_x": (9.0, 1.0, 0.0, 0.0),
            "srow_y": (0.0, 9.0, 0.0, 0.0),
            "srow_z": (0.0, 0.0, 9.0, 0.0),
        },
        "srow_x",
        "axes X and Y",
    ),
    "affine of zeros": ({"sform_code": 1}, "srow_x", "to nothing"),
    "affine with NaN": ({"sform_code": 1, "srow_z": (0.0, 0.0, math.nan, 0.0)}, "srow_x", "NaN"),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("fields", "field", "words"), REFUSED.values(), ids=REFUSED)
def test_a_bad_header_is_refused_with_its_field_and_a_hint(
    nifti: Build, read: Read, order: str, fields: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(VolumeError) as caught:
        read(nifti(order, **fields))

    assert caught.value.failure.details == {"field": field}
    assert words in caught.value.failure.message
    assert caught.value.failure.hint


def test_nifti_2_is_refused_by_name_by_its_own_layout(read: Read) -> None:
    content = (540).to_bytes(4, "little") + b"n+2\0\r\n\x1a\n" + bytes(900)

    with pytest.raises(VolumeError, match="NIfTI-2"):
        read(content)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("datatype", "dtype", "bits"),
    [
        (2, "uint8", 8),
        (4, "int16", 16),
        (8, "int32", 32),
        (16, "float32", 32),
        (64, "float64", 64),
        (256, "int8", 8),
        (512, "uint16", 16),
        (768, "uint32", 32),
        (1024, "int64", 64),
        (1280, "uint64", 64),
    ],
)
def test_every_real_type_is_read_in_both_byte_orders(
    nifti: Build, read: Read, gzipped: Gzipped, order: str, datatype: int, dtype: str, bits: int, *, compress: bool
) -> None:
    content = nifti(order, datatype=datatype, bitpix=bits)

    header = read(gzipped(content) if compress else content)

    assert isinstance(header, NiftiHeader)
    assert (header.dtype, header.byte_order, header.compressed) == (dtype, order, compress)
    assert (header.shape, header.file_shape, header.axis_order) == ((5, 4, 3), (5, 4, 3), (1, 2, 3))
    assert header.data_bytes == 60 * bits // 8
    assert header.header_bytes == content[:348]


@pytest.mark.parametrize(
    ("pixdim", "units", "voxel_size_nm", "flagged"),
    [
        ((13.48, 13.48, 26.96), UNITS_MM, (1.348, 1.348, 2.696), True),
        ((13.48, 13.48, 26.96), 0, (1.348, 1.348, 2.696), True),
        ((-13.48, 13.48, 26.96), 0, (1.348, 1.348, 2.696), True),
        ((0.001348, 0.001348, 0.001348), UNITS_UM, (1.348, 1.348, 1.348), False),
        ((1.348e-9, 1.348e-9, 1.348e-9), UNITS_M, (1.348, 1.348, 1.348), False),
        ((1.0, 1.0, 1.0), UNITS_MM, None, True),
        ((1.0, 1.0, 2.0), UNITS_MM, (0.1, 0.1, 0.2), True),
        ((0.0, 1.5, 1.5), UNITS_UM, None, False),
        ((math.nan, 1.5, 1.5), UNITS_MM, None, True),
        ((math.inf, 1.5, 1.5), UNITS_MM, None, True),
    ],
)
def test_spacing_is_pixdim_with_micrometres_converted_and_all_else_taken_as_angstrom(
    nifti: Build,
    read: Read,
    pixdim: tuple[float, float, float],
    units: int,
    voxel_size_nm: tuple[float, float, float] | None,
    *,
    flagged: bool,
) -> None:
    header = read(nifti(pixdim=(1.0, *pixdim, 0.0, 0.0, 0.0, 0.0), xyzt_units=units | 8))

    assert header.voxel_size_nm == (None if voxel_size_nm is None else pytest.approx(voxel_size_nm))
    assert any("taken as Å" in warning for warning in header.warnings) == flagged


@pytest.mark.parametrize("rank", [4, 5, 6, 7])
def test_further_dimensions_of_one_are_accepted(nifti: Build, read: Read, rank: int) -> None:
    header = read(nifti(dim=(rank, 5, 4, 3, 1, 1, 1, 1)))

    assert (header.shape, header.channels) == ((5, 4, 3), 1)
    assert "channels" not in header.facts()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("rank", [4, 5, 7])
def test_volumes_along_the_fourth_dimension_are_channels(
    nifti: Build, read: Read, gzipped: Gzipped, rank: int, *, compress: bool
) -> None:
    content = nifti(dim=(rank, 5, 4, 3, 6, 1, 1, 1))

    header = read(gzipped(content) if compress else content)

    assert (header.shape, header.channels, header.voxels) == ((5, 4, 3), 6, 60)
    assert header.data_bytes == 6 * 60 * 4
    assert header.facts()["channels"] == "6"


@pytest.mark.parametrize(
    ("slope", "intercept", "scale"),
    [
        (2.0, -3.0, (2.0, -3.0)),
        (0.0, 5.0, (1.0, 0.0)),
        (math.nan, math.nan, (1.0, 0.0)),
        (math.inf, 1.0, (1.0, 0.0)),
    ],
)
def test_scaling_is_taken_from_the_header_unless_it_is_unset(
    nifti: Build, read: Read, slope: float, intercept: float, scale: tuple[float, float]
) -> None:
    assert read(nifti(scl_slope=slope, scl_inter=intercept)).scale == scale


def test_a_rotated_affine_is_accepted_and_one_that_contradicts_pixdim_is_remarked_on(nifti: Build, read: Read) -> None:
    rotated = {"srow_x": (0.0, -13.48, 0.0, 7.0), "srow_y": (13.48, 0.0, 0.0, 8.0), "srow_z": (0.0, 0.0, 13.48, 9.0)}

    agreeing = read(nifti(sform_code=1, **rotated))
    contradicting = read(nifti(sform_code=1, **(rotated | {"srow_z": (0.0, 0.0, 20.0, 9.0)})))

    assert not any("disagree" in warning for warning in agreeing.warnings)
    assert any("disagree" in warning for warning in contradicting.warnings)


def test_a_longer_file_is_accepted_with_a_warning(nifti: Build, read: Read) -> None:
    assert any("3 bytes longer" in warning for warning in read(nifti() + bytes(3)).warnings)


def test_more_voxels_than_any_gzip_of_that_size_can_hold_are_refused_at_the_header(
    nifti: Build, read: Read, gzipped: Gzipped
) -> None:
    with pytest.raises(VolumeError, match="gzip cannot hold") as caught:
        read(gzipped(nifti(dim=(3, 30000, 30000, 30000, 1, 1, 1, 1))))

    assert caught.value.field == "dim"


def test_facts_name_unit_scaling_and_codes(nifti: Build, read: Read, gzipped: Gzipped) -> None:
    facts = read(gzipped(nifti(sform_code=0, qform_code=1, xyzt_units=2, descrip=b"IMOD"))).facts()

    assert facts["format"] == "NIfTI-1, gzip, datatype 16 (float32)"
    assert facts["pixdim (X, Y, Z)"] == "13.48, 13.48, 13.48, unit mm"
    assert facts["scaling"] == "1 x stored + 0"
    assert facts["qform, sform codes"] == "1, 0"
    assert facts["description"] == "IMOD"
