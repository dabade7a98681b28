"""Label files, read back with mrcfile and nibabel."""

import gzip
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import nibabel
import numpy as np
import pytest

from cryomamba_inference.volume import Volume, open_labels, result_content_type, result_name

WriteMrc = Callable[..., Path]
Opened = Callable[[Path], Volume]
MrcResult = Callable[[Path], tuple[Any, np.ndarray[Any, Any]]]

RANDOM = np.random.default_rng(11)
CHANGED = {"mode", "dmin", "dmax", "dmean", "rms", "nsymbt", "exttyp"}


def some_labels(shape: tuple[int, ...], highest: int) -> np.ndarray[Any, Any]:
    labels = RANDOM.integers(0, highest, shape, endpoint=True).astype(np.int16)
    labels.flat[0] = highest
    return labels


def written(path: Path, like: Volume, labels: np.ndarray[Any, Any], highest: int, *, step: int = 2) -> Path:
    with open_labels(path, like, highest) as writer:
        for start in range(0, len(labels), step):
            writer.write(start, labels[start : start + step])
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "uint16", "float16"])
@pytest.mark.parametrize("highest", [2, 127, 128])
def test_labels_of_any_mrc_come_back_in_the_smallest_type(
    tmp_path: Path,
    write_mrc: WriteMrc,
    opened: Opened,
    mrc_result: MrcResult,
    dtype: str,
    order: str,
    highest: int,
) -> None:
    volume = opened(write_mrc(np.ones((5, 4, 3), dtype), order=order, extended=bytes(160), exttyp=b"FEI1"))
    labels = some_labels((5, 4, 3), highest)

    header, data = mrc_result(written(tmp_path / "segmentation.mrc", volume, labels, highest))

    np.testing.assert_array_equal(data, labels)
    assert (header.mode, data.dtype.name) == ((0, "int8") if highest <= 127 else (1, "int16"))
    assert opened(tmp_path / "segmentation.mrc").header.byte_order == order
    assert (header.nsymbt, header.exttyp.item()) == (0, b"")
    assert (tmp_path / "segmentation.mrc").stat().st_size == 1024 + labels.size * data.dtype.itemsize


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_result_keeps_the_files_order_of_axes(
    tmp_path: Path,
    write_mrc: WriteMrc,
    opened: Opened,
    mrc_result: MrcResult,
    axes: tuple[int, int, int],
    order: str,
) -> None:
    slowest_first = [3 - axis for axis in reversed(axes)]
    tomogram = np.zeros((5, 4, 3), np.float32).transpose(slowest_first)  # [z, y, x] = 5, 4, 3
    fields = {"mapc": axes[0], "mapr": axes[1], "maps": axes[2], "nxstart": 7, "nystart": 8, "nzstart": 9}
    path = write_mrc(tomogram, order=order, **fields)
    labels = some_labels((5, 4, 3), 300)

    header, data = mrc_result(written(tmp_path / "segmentation.mrc", opened(path), labels, 300))

    np.testing.assert_array_equal(data, labels.transpose(slowest_first))
    assert {name: header[name] for name in fields} == fields
    np.testing.assert_array_equal(opened(tmp_path / "segmentation.mrc").data[0], labels)


def test_the_header_of_a_real_map_survives_field_by_field(
    tmp_path: Path, emd_3197: Path, opened: Opened, mrc_result: MrcResult
) -> None:
    labels = some_labels((20, 20, 20), 2)

    path = written(tmp_path / "segmentation.mrc", opened(emd_3197), labels, 2)

    header, data = mrc_result(path)
    with mrcfile.open(emd_3197) as original:
        for name in set(header.dtype.names) - CHANGED:
            np.testing.assert_array_equal(header[name], original.header[name], err_msg=name)
    np.testing.assert_array_equal(data, labels)
    changed = {
        n for n, (a, b) in enumerate(zip(path.read_bytes(), emd_3197.read_bytes()[:1024], strict=False)) if a != b
    }
    assert changed <= {*range(12, 16), *range(76, 88), *range(216, 220)}


@pytest.mark.parametrize("order", ["<", ">"])
def test_density_in_the_header_is_that_of_the_labels(
    tmp_path: Path, write_mrc: WriteMrc, opened: Opened, mrc_result: MrcResult, order: str
) -> None:
    volume = opened(write_mrc(np.ones((20, 30, 40), np.float32), order=order))
    labels = some_labels((20, 30, 40), 90)

    header, _ = mrc_result(written(tmp_path / "segmentation.mrc", volume, labels, 90, step=7))

    assert (header.dmin, header.dmax) == (labels.min(), labels.max())
    assert header.dmean == pytest.approx(labels.mean(), rel=1e-6)
    assert header.rms == pytest.approx(labels.std(), rel=1e-6)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("flags", "expected"), [(0, 1), (1, 1), (12, 13)])
def test_imods_flags_say_that_the_labels_are_signed(
    tmp_path: Path, write_mrc: WriteMrc, opened: Opened, order: str, flags: int, expected: int
) -> None:
    volume = opened(write_mrc(np.zeros((5, 4, 3), np.uint8), order=order, imod_flags=flags))

    path = written(tmp_path / "segmentation.mrc", volume, some_labels((5, 4, 3), 2), 2)

    stamp_and_flags = np.frombuffer(path.read_bytes()[152:160], f"{order}i4")
    assert list(stamp_and_flags) == [1146047817, expected]


def test_bytes_where_imods_flags_would_be_are_left_alone_without_its_stamp(
    tmp_path: Path, write_mrc: WriteMrc, opened: Opened
) -> None:
    path = write_mrc(np.zeros((5, 4, 3), np.int8), extra2=np.void(bytes(range(84))))

    result = written(tmp_path / "segmentation.mrc", opened(path), some_labels((5, 4, 3), 2), 2)

    assert result.read_bytes()[112:196] == bytes(range(84))


def nifti(path: Path, order: str = "<", dtype: str = "int16") -> Path:
    header = nibabel.Nifti1Header(endianness=order)
    affine = np.array([[0, -13.48, 0, 5], [13.48, 0, 0, 6], [0, 0, 26.96, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.arange(60, dtype=dtype).reshape(3, 4, 5), affine, header)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("micron", "sec")
    image.header.set_slope_inter(0.5, 3.0)
    image.header["descrip"] = b"made by hand"
    image.header["cal_max"] = 500
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of the input"))
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["input.nii", "input.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("highest", "result_type"), [(2, "uint8"), (255, "uint8"), (256, "int16")])
def test_labels_of_nifti_keep_affine_codes_units_and_text(
    tmp_path: Path, opened: Opened, order: str, name: str, highest: int, result_type: str
) -> None:
    original = nibabel.load(nifti(tmp_path / name, order))
    labels = some_labels((5, 4, 3), highest)

    written(tmp_path / "segmentation.nii.gz", opened(tmp_path / name), labels, highest)

    result = nibabel.load(tmp_path / "segmentation.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(result.dataobj), labels.transpose())
    assert result.get_data_dtype() == np.dtype(result_type).newbyteorder(order)
    np.testing.assert_array_equal(result.affine, original.affine)
    reset = {"datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "cal_max", "cal_min"}
    for field in set(result.header.keys()) - reset:
        np.testing.assert_array_equal(result.header[field], original.header[field], err_msg=field)
    assert (int(result.header["qform_code"]), int(result.header["sform_code"])) == (1, 2)
    assert result.header.get_xyzt_units() == ("micron", "sec")
    assert result.dataobj.slope == 1
    assert result.dataobj.inter == 0
    assert len(result.header.extensions) == 0


def test_a_fourth_dimension_of_one_is_kept(tmp_path: Path, opened: Opened) -> None:
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5, 1)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / "input.nii")
    labels = some_labels((5, 4, 3), 2)

    written(tmp_path / "segmentation.nii.gz", opened(tmp_path / "input.nii"), labels, 2)

    result = nibabel.load(tmp_path / "segmentation.nii.gz")
    assert result.shape == (3, 4, 5, 1)
    np.testing.assert_array_equal(np.asanyarray(result.dataobj)[..., 0], labels.transpose())


def test_equal_labels_give_equal_nifti_files_without_a_time_or_a_name(tmp_path: Path, opened: Opened) -> None:
    volume = opened(nifti(tmp_path / "input.nii"))
    labels = some_labels((5, 4, 3), 2)

    first = written(tmp_path / "a.nii.gz", volume, labels, 2).read_bytes()
    second = written(tmp_path / "b.nii.gz", volume, labels, 2, step=5).read_bytes()

    assert first[:8] == b"\x1f\x8b\x08\0\0\0\0\0"
    assert first == second
    assert len(gzip.decompress(first)) == 352 + 60


def test_names_and_types_follow_the_input(tmp_path: Path, emd_3197: Path, opened: Opened) -> None:
    mrc = opened(emd_3197).header
    nii = opened(nifti(tmp_path / "input.nii")).header

    assert (result_name(mrc), result_content_type(mrc)) == ("segmentation.mrc", "application/octet-stream")
    assert (result_name(nii), result_content_type(nii)) == ("segmentation.nii.gz", "application/gzip")


@pytest.mark.parametrize("kind", ["mrc", "nifti"])
def test_nothing_stays_where_planes_are_missing(tmp_path: Path, emd_3197: Path, opened: Opened, kind: str) -> None:
    volume = opened(emd_3197 if kind == "mrc" else nifti(tmp_path / "input.nii"))
    out = tmp_path / "out"
    out.mkdir()
    plane = np.zeros((1, *volume.shape[1:]), np.uint8)

    path = out / result_name(volume.header)

    with pytest.raises(ValueError, match="1 of"), open_labels(path, volume, 2) as writer:
        writer.write(0, plane)

    assert list(out.iterdir()) == []


@pytest.mark.parametrize("kind", ["mrc", "nifti"])
def test_the_file_appears_only_when_it_is_complete(tmp_path: Path, emd_3197: Path, opened: Opened, kind: str) -> None:
    volume = opened(emd_3197 if kind == "mrc" else nifti(tmp_path / "input.nii"))
    path = tmp_path / result_name(volume.header)

    with open_labels(path, volume, 2) as writer:
        writer.write(0, np.zeros(volume.shape, np.uint8))
        assert not path.exists()

    assert path.exists()


def test_labels_of_several_channels_are_one_volume_of_the_same_grid(tmp_path: Path, opened: Opened) -> None:
    affine = np.diag([13.48, 13.48, 13.48, 1])
    affine[:3, 3] = (5, 6, 7)
    channels = np.zeros((5, 4, 3, 2), np.float32)
    nibabel.save(nibabel.Nifti1Image(channels, affine), tmp_path / "input.nii")
    labels = np.arange(60).reshape(3, 4, 5) % 3

    with open_labels(tmp_path / "segmentation.nii.gz", opened(tmp_path / "input.nii"), 2) as writer:
        writer.write(0, labels)

    result = nibabel.load(tmp_path / "segmentation.nii.gz")
    assert result.shape == (5, 4, 3)
    np.testing.assert_array_equal(np.asanyarray(result.dataobj).transpose(), labels)
    np.testing.assert_allclose(result.affine, affine, rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "shape", "value", "words"),
    [
        (1, (1, 20, 20), 0, "does not follow"),
        (0, (1, 20, 19), 0, "does not follow"),
        (0, (21, 20, 20), 0, "does not follow"),
        (0, (1, 20, 20), 3, "not within 0 to 2"),
        (0, (1, 20, 20), -1, "not within 0 to 2"),
    ],
)
def test_a_slab_that_does_not_fit_is_refused(
    tmp_path: Path, emd_3197: Path, opened: Opened, start: int, shape: tuple[int, int, int], value: int, words: str
) -> None:
    with (
        pytest.raises(ValueError, match=words),
        open_labels(tmp_path / "segmentation.mrc", opened(emd_3197), 2) as writer,
    ):
        writer.write(start, np.full(shape, value, np.int16))


def test_more_labels_than_a_file_can_hold_are_refused(tmp_path: Path, emd_3197: Path, opened: Opened) -> None:
    with pytest.raises(ValueError, match="32768"), open_labels(tmp_path / "out.mrc", opened(emd_3197), 32768):
        pass


def test_a_full_disk_is_an_error_before_the_first_plane(
    tmp_path: Path, emd_3197: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(OSError, match="No space"), open_labels(tmp_path / "out.mrc", opened(emd_3197), 2):
        pytest.fail("no plane can be written")

    assert list(tmp_path.glob("*out.mrc*")) == []
