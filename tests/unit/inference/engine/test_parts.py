"""The engine's parts by themselves, against what they replace."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from skimage.transform import resize

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_inference.engine.deciding import Heads, decide_on_device, decide_on_host
from cryomamba_inference.engine.host_resampling import HostResampler
from cryomamba_inference.engine.image import ArrayImage, InvertedImage, read_whole, whole
from cryomamba_inference.engine.normalisation import normalisation
from cryomamba_inference.engine.resampling import Resampling, Rule, UnsupportedError, choose_resampling, piece
from cryomamba_inference.engine.slabs import Place, ResampledSlabs
from cryomamba_inference.engine.survey import extremes_along, survey
from cryomamba_inference.engine.tiling import tile_starts, tile_volume, tile_weights


@pytest.mark.parametrize("patch", [(16, 16, 16), (7, 33, 20), (128, 24, 8), (40, 56), (1, 16, 16)])
def test_weights_are_nnunets_to_the_last_bit(patch: tuple[int, ...]) -> None:
    theirs = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10, device=torch.device("cpu"))
    compute_gaussian.cache_clear()

    assert np.array_equal(tile_weights(patch), theirs.float().numpy())


@pytest.mark.parametrize("step", [0.1, 0.25, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize(("size", "patch"), [(110, 64), (64, 64), (65, 64), (200, 33), (97, 7), (1024, 128)])
def test_tiles_begin_where_nnunets_begin(size: int, patch: int, step: float) -> None:
    [theirs] = compute_steps_for_sliding_window((size,), (patch,), step)

    assert list(tile_starts(size, patch, step)) == theirs


@pytest.mark.parametrize("rule", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("source", "target"), [(60, 97), (97, 60), (5, 23), (1, 4), (23, 5), (200, 201)])
def test_pieces_of_an_axis_are_those_of_the_whole_in_skimage(rule: Rule, source: int, target: int) -> None:
    values = np.random.default_rng(1).normal(size=source)
    order = {"nearest": 0, "linear": 1, "cubic": 3}[rule]
    theirs = resize(values, (target,), order, mode="edge", anti_aliasing=False, clip=False)

    pieces = [piece(source, target, rule, range(start, min(start + 16, target))) for start in range(0, target, 16)]
    ours = np.concatenate([part.matrix @ values[part.start : part.stop] for part in pieces])

    assert np.abs(ours - theirs).max() < 1e-12


@pytest.mark.parametrize(
    "rules",
    [("linear", "linear", "linear"), ("nearest", "linear", "same"), ("same", "nearest-exact", "linear")],
)
def test_logits_that_are_resampled_in_bands_are_those_of_the_whole(rules: tuple[Rule, Rule, Rule]) -> None:
    source, target = (7, 40, 11), (16, 101, 9)
    source = tuple(new if rule == "same" else old for old, new, rule in zip(source, target, rules, strict=True))
    logits = np.random.default_rng(1).normal(size=(3, *source))
    maps = [piece(old, new, rule, range(new)) for old, new, rule in zip(source, target, rules, strict=True)]
    z, y, x = (np.pad(part.matrix, ((0, 0), (part.start, 0))) for part in maps)
    z, y, x = (np.pad(m, ((0, 0), (0, old - m.shape[1]))) for m, old in zip((z, y, x), source, strict=True))
    whole = np.einsum("hzyx,az,by,cx->habc", logits, z, y, x)

    resampler = HostResampler(Resampling(source, target, rules), logits.dtype)
    in_bands = np.empty_like(whole)
    for planes in (range(7), range(7, 16)):
        for rows in resampler.bands():
            for head, resampled in enumerate(resampler.heads(logits, 0, planes, rows)):
                in_bands[head, planes.start : planes.stop, rows.start : rows.stop] = resampled

    assert len(resampler.bands()) > 1
    assert np.abs(in_bands - whole).max() < 1e-12


def test_logits_are_resampled_alike_on_the_host_and_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = (20, 24, 20), (33, 50, 20)
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(3, *source)))
    tiling = tile_volume(source, (8, 24, 20), (0, 1, 2), 0.5)
    place = Place(target, whole(target), tiling, Resampling(source, target, ("linear", "linear", "same")))

    def resampled(*, on_device: bool) -> tuple[np.ndarray, np.ndarray]:
        given = []
        for probabilities in (False, True):
            slabs = ResampledSlabs(Heads(3, None, np.uint8), place, 0, probabilities=probabilities, like=logits)
            if on_device:
                monkeypatch.setattr(slabs, "_on_host", None)
            for row, start in enumerate(tiling.starts[0]):
                slabs.add(start, range(source[1]), logits[:, start : tiling.final_after(row)])
                given.extend((slab.labels, slab.probabilities) for slab in slabs.slabs(tiling.final_after(row)))
        chances = [chance for _, chance in given if chance is not None]
        return np.concatenate([labels for labels, _ in given]), np.concatenate(chances, axis=1)

    host_labels, host_chances = resampled(on_device=False)
    device_labels, device_chances = resampled(on_device=True)

    assert host_labels.shape == (2 * target[0], *target[1:])
    assert np.array_equal(host_labels, device_labels)
    assert np.abs(host_chances.astype(np.float32) - device_chances).max() <= 1e-3


@pytest.mark.parametrize(("source", "target"), [(9, 40), (40, 9), (7, 8), (33, 100)])
def test_the_nearest_slice_is_torchs(source: int, target: int) -> None:
    values = torch.arange(source, dtype=torch.float32)
    theirs = torch.nn.functional.interpolate(values[None, None], (target,), mode="nearest-exact")[0, 0]

    part = piece(source, target, "nearest-exact", range(target))

    assert np.array_equal(part.matrix @ values[part.start : part.stop].double().numpy(), theirs.numpy())


@pytest.mark.parametrize("force", [None, True, False])
@pytest.mark.parametrize("current", [(1, 1, 1), (4, 1, 1), (1, 4, 1), (4, 4, 1), (3, 1, 1), (1.2, 1, 1)])
@pytest.mark.parametrize("new", [(1, 1, 1), (1, 1, 5), (2, 1, 1)])
def test_the_axis_that_is_resampled_by_itself_is_nnunets(
    force: bool | None, current: Sequence[float], new: Sequence[float]
) -> None:
    separate, axis = determine_do_sep_z_and_axis(force, current, new)
    arguments = {"order": 3, "order_z": 0, "force_separate_z": force}

    ours = choose_resampling("resample_data_or_seg_to_shape", arguments, ((8, 8, 8), (9, 9, 9)), (current, new))

    assert ours.separate == (axis if separate else None)
    assert [rule == "nearest" for rule in ours.rules] == [separate and number == axis for number in range(3)]


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("resample_data_or_seg_to_shape", {"order": 2}, "order 2"),
        ("resample_torch_fornnunet", {"mode": "nearest"}, "'nearest'"),
        ("resample_torch_simple", {}, "resample_torch_simple"),
        ("no_resampling_hack", {}, "no_resampling_hack"),
    ],
)
def test_a_resampling_that_is_not_done_here_is_named(function: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        choose_resampling(function, arguments, ((8, 8, 8), (9, 9, 9)), ((1, 1, 1), (1, 1, 1)))


@pytest.mark.parametrize("regions", [None, (1, 2, 3, 4), (3, 1, 4, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_labels_are_decided_alike_on_the_host_and_on_a_device(regions: tuple[int, ...] | None, dtype: Any) -> None:
    logits = np.random.default_rng(2).integers(-3, 4, (4, 9, 10, 11)).astype(np.float32)
    expected = logits.argmax(axis=0)
    if regions is not None:
        expected = np.zeros(logits.shape[1:], dtype)
        for one, label in zip(logits, regions, strict=True):
            expected[one > 0] = label

    host = decide_on_host(logits, regions, dtype)
    told = torch.from_numpy(logits.copy())
    device = decide_on_device(told, regions, dtype)
    told.zero_()

    assert host.dtype == device().dtype == dtype
    assert np.array_equal(host, expected)
    assert np.array_equal(device(), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_a_failure_and_not_a_label(bad: float) -> None:
    logits = np.zeros((3, 2, 2, 2), np.float32)
    logits[1, 0, 1, 0] = bad

    for decided in (
        lambda: decide_on_host(logits, None, np.uint8),
        decide_on_device(torch.from_numpy(logits), None, np.uint8),
    ):
        with pytest.raises(FailureError, match="not finite") as failed:
            decided()
        assert failed.value.failure.code is FailureCode.INFERENCE_ERROR


def test_the_survey_takes_its_figures_from_within_the_border_of_zeros() -> None:
    inside = np.random.default_rng(4).normal(1000, 3, (9, 11, 13)).astype(np.float32)
    inside[4:6, 5, 5] = 0
    image = np.pad(inside, ((2, 1), (0, 3), (4, 0)))

    found = survey(ArrayImage(image))

    assert found.box == ((2, 11), (0, 11), (4, 17))
    [channel] = found.channels
    assert (channel.low, channel.high) == (inside.min(), inside.max())
    assert channel.mean == pytest.approx(inside.mean(dtype=np.float64), rel=1e-14)
    assert channel.std == pytest.approx(inside.std(dtype=np.float64), rel=1e-12)
    low, high = extremes_along(ArrayImage(image), 0, found.box, 1)
    assert np.array_equal(low, inside.min(axis=(0, 2)))
    assert np.array_equal(high, inside.max(axis=(0, 2)))


def test_the_survey_keeps_a_voxel_where_any_channel_is_not_zero_and_tells_each_channel_by_itself() -> None:
    rng = np.random.default_rng(6)
    image = np.zeros((3, 8, 9, 10), np.float32)
    image[0, 2:5, 1:8, 3:9] = rng.normal(5, 1, (3, 7, 6))
    image[1, 3:7, 2:6, 3:7] = rng.normal(-40, 9, (4, 4, 4))

    found = survey(ArrayImage(image))

    assert found.box == ((2, 7), (1, 8), (3, 9))
    for channel, values in zip(found.channels, image[:, 2:7, 1:8, 3:9], strict=True):
        assert (channel.low, channel.high) == (values.min(), values.max())
        assert channel.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-13)
        assert channel.std == pytest.approx(values.std(dtype=np.float64), rel=1e-12)


def test_the_survey_says_in_which_channel_a_voxel_is_no_number() -> None:
    image = np.ones((2, 3, 4, 5), np.float32)
    image[1, 2, 1, 4] = np.nan

    with pytest.raises(FailureError, match=r"\[4, 1, 2\] of channel 1") as refused:
        survey(ArrayImage(image))

    assert refused.value.failure.details == {"voxel": [4, 1, 2], "channel": 1}


def test_channels_of_one_value_each_hold_nothing_to_segment() -> None:
    image = np.stack([np.full((3, 4, 5), 7, np.float32), np.zeros((3, 4, 5), np.float32)])

    with pytest.raises(FailureError, match="value 7, 0"):
        survey(ArrayImage(image))


def test_every_channel_is_inverted() -> None:
    image = np.random.default_rng(7).normal(size=(2, 3, 4, 5)).astype(np.float32)

    inverted = InvertedImage(ArrayImage(image))

    assert np.array_equal(read_whole(inverted), -image)
    assert np.array_equal(inverted.read(((1, 3), (0, 2), (2, 5)), 1), -image[1, 1:3, 0:2, 2:5])


def test_the_survey_of_a_large_volume_is_taken_block_by_block() -> None:
    image = np.random.default_rng(5).normal(50, 2, (3, 1100, 1300)).astype(np.float32)

    [found] = survey(ArrayImage(image)).channels

    assert found.mean == pytest.approx(image.mean(dtype=np.float64), rel=1e-14)
    assert found.std == pytest.approx(image.std(dtype=np.float64), rel=1e-12)


def test_a_volume_that_is_no_picture_of_bytes_is_refused_where_the_model_takes_those() -> None:
    [found] = survey(ArrayImage(np.linspace(-1, 300, 64, dtype=np.float32).reshape(4, 4, 4))).channels

    with pytest.raises(FailureError, match="0 to 255") as refused:
        normalisation("RGBTo01Normalization", found, {})

    assert refused.value.failure.code is FailureCode.VALIDATION_ERROR


def test_extremes_of_sixteen_bits_are_normalised_without_overflow() -> None:
    image = np.full((4, 4, 4), -32768, np.float32)
    image[0] = 32767
    [found] = survey(ArrayImage(image)).channels
    values = image.copy()

    normalisation("ZScoreNormalization", found, {})(values)

    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, rel=1e-6)
