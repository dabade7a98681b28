"""What a caller of the engine gets: ticks, slabs, previews, named failures; nnU-Net's predictor as the way out."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from numpy.typing import NDArray

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import count_tiles, image_spacing
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.engine import Options, Rung, Slab, available_memory
from cryomamba_inference.engine.fitting import Free
from cryomamba_inference.engine.image import Box
from cryomamba_inference.engine.segmenting import segment
from cryomamba_inference.model import Model, load_model
from support.nnunet_reference import nnunet_predictor

CPU = torch.device("cpu")
PLENTY = Free(None, None)
TWO_CHANNELS = {
    "channel_names": {"0": "even", "1": "odd"},
    "labels": {"background": 0, "membrane": 1, "particle": 2},
}
REGIONS = {
    "channel_names": {"0": "density"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}


@dataclass(frozen=True)
class Unread:
    """An image that nobody may read."""

    channels: int
    shape = (16, 16, 16)

    def read(self, box: Box, channel: int) -> NDArray[np.float32]:
        pytest.fail(f"{box} of channel {channel} is read")


@pytest.fixture(scope="module")
def model(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "m", folds=("0", "1")), "all", CPU)


def volume(shape: tuple[int, int, int] = (20, 26, 24), *, seed: int = 0) -> NDArray[np.float32]:
    """Return blobs of noise, so that labels form patches."""
    coarse = np.random.default_rng(seed).normal(size=[edge // 4 + 1 for edge in shape])
    fine = coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)
    return np.ascontiguousarray(fine[: shape[0], : shape[1], : shape[2]], dtype=np.float32)


@pytest.fixture
def run(collect: Callable[..., Any]) -> Callable[..., Any]:
    def segmented(
        model: Model,
        image: NDArray[np.float32],
        options: Options | None = None,
        voxel_size_nm: VoxelSize | None = None,
    ) -> Any:
        return collect(segment(model, image, voxel_size_nm=voxel_size_nm, options=options or Options()))

    return segmented


def theirs(
    model: Model, image: NDArray[np.float32], options: Options, voxel_size_nm: VoxelSize | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels and probabilities of nnU-Net's predictor with a network that nnU-Net built."""
    spacing = image_spacing(model.facts, options.spacing_policy, voxel_size_nm)
    labels, probabilities = nnunet_predictor(model, options.step_size, options.mirroring).predict_single_npy_array(
        image.reshape(-1, *image.shape[-3:]), {"spacing": list(spacing)}, save_or_return_probabilities=True
    )
    return labels, probabilities


def masked(configuration: dict[str, Any]) -> None:
    """Make a plan what the streaming engine can't express; of several channels one is enough."""
    configuration["use_mask_for_norm"][-1] = True


@pytest.fixture(scope="module")
def masked_model(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model") / "m"
    return load_model(write_model(folder, folds=("0", "1"), plans_changes=masked), "all", CPU)


@pytest.mark.parametrize(
    ("options", "voxel_size"),
    [
        pytest.param(Options(save_probabilities=True), None, id="as nnU-Net does by default"),
        pytest.param(Options(step_size=0.8, save_probabilities=True), None, id="wide steps"),
        pytest.param(Options(mirroring=False), None, id="no mirroring"),
        pytest.param(Options(spacing_policy="nm"), (1.5, 1.2, 2.5), id="resampled from nm"),
        pytest.param(Options(spacing_policy="angstrom"), (0.12, 0.14, 0.4), id="resampled from an anisotropic voxel"),
    ],
)
def test_what_streaming_cannot_express_goes_through_nnunets_predictor(
    masked_model: Model,
    caplog: pytest.LogCaptureFixture,
    options: Options,
    voxel_size: VoxelSize | None,
    run: Callable[..., Any],
) -> None:
    image = volume()

    with caplog.at_level("WARNING"):
        ours = run(masked_model, image, options, voxel_size)

    labels, probabilities = theirs(masked_model, image, options, voxel_size)
    assert ours.summary.engine == "nnunet"
    assert "use_mask_for_norm" in caplog.text
    assert np.array_equal(ours.labels, labels)
    assert ours.labels.dtype == np.uint8
    assert len(np.unique(labels)) > 1
    if options.save_probabilities:
        assert ours.probabilities is not None
        assert ours.probabilities.dtype == np.float16
        assert np.array_equal(ours.probabilities, probabilities.astype(np.float16))
    else:
        assert ours.probabilities is None


@pytest.mark.parametrize(
    "variation",
    [
        pytest.param({"transpose": (2, 0, 1), "patch": (8, 16, 16)}, id="transposed"),
        pytest.param({"transpose": (1, 2, 0), "spacing": (1.0, 1.0, 1.5)}, id="transposed and resampled"),
        pytest.param({"dataset": REGIONS, "heads": 2}, id="regions"),
        pytest.param({"network": "ResidualEncoderUNet"}, id="residual encoder"),
        pytest.param({"patch": (16, 16)}, id="2d"),
        pytest.param({"patch": (16, 16), "transpose": (1, 0, 2)}, id="2d, transposed"),
        pytest.param({"patch": (32, 32, 32)}, id="smaller than a patch"),
        pytest.param({"mirroring": (1, 2)}, id="mirrored along two axes"),
    ],
)
def test_every_kind_of_model_goes_through_it(
    write_model: Callable[..., Path], tmp_path: Path, variation: dict[str, Any], run: Callable[..., Any]
) -> None:
    model = load_model(write_model(tmp_path / "m", **variation, plans_changes=masked), "all", CPU)
    image = volume((12, 22, 18))
    options = Options(save_probabilities=True, step_size=0.75)

    ours = run(model, image, options)

    labels, probabilities = theirs(model, image, options)
    assert np.array_equal(ours.labels, labels)
    assert np.array_equal(ours.probabilities, probabilities.astype(np.float16))  # type: ignore[arg-type]  # not None
    assert (ours.ticks[-1].done, ours.ticks[-1].total) == (ours.summary.tiles, ours.summary.tiles)


def test_several_channels_go_through_it_as_well(
    write_model: Callable[..., Path], tmp_path: Path, run: Callable[..., Any]
) -> None:
    model = load_model(write_model(tmp_path / "m", dataset=TWO_CHANNELS, plans_changes=masked), "all", CPU)
    image = np.stack([volume((14, 22, 18)), volume((14, 22, 18), seed=1) * 3 + 1])
    image[1, :, :3] = 0
    options = Options(step_size=0.75, preview_plane=5)

    ours = run(model, image, options)

    assert ours.summary.engine == "nnunet"
    assert np.array_equal(ours.labels, theirs(model, image, options)[0])
    assert ours.ticks[-1].partial_labels().shape == ours.ticks[0].partial_labels().shape == (22, 18)
    # nnU-Net sums in float16: near-ties may differ.
    assert np.mean(ours.ticks[-1].partial_labels() != ours.labels[5]) < 0.01


def test_a_channel_of_one_value_is_told_and_is_as_if_it_were_zero(
    write_model: Callable[..., Path], tmp_path: Path, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(write_model(tmp_path / "m", dataset=TWO_CHANNELS), "all", CPU)
    density = volume((10, 16, 16))

    with caplog.at_level("WARNING"):
        ours = run(model, np.stack([density, np.full_like(density, 0.3)]))

    assert "channel odd has the value 0.3 in every voxel" in caplog.text
    assert np.array_equal(ours.labels, run(model, np.stack([density, np.zeros_like(density)])).labels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_of_other_channels_than_the_models_is_refused_before_it_is_read(
    write_model: Callable[..., Path], tmp_path: Path, channels: int
) -> None:
    model = load_model(write_model(tmp_path / "m", dataset=TWO_CHANNELS), "all", CPU)

    with pytest.raises(FailureError, match=r"takes 2 channels \(even, odd\)") as refused:
        next(segment(model, Unread(channels), voxel_size_nm=None, options=Options()))

    assert refused.value.failure.code is FailureCode.VALIDATION_ERROR
    assert refused.value.failure.details["channels"] == channels


def test_the_border_of_zeros_is_cropped_and_put_back(model: Model, run: Callable[..., Any]) -> None:
    image = np.zeros((24, 30, 28), dtype=np.float32)
    image[3:22, 4:29, 2:25] = volume((19, 25, 23)) + 10

    ours = run(model, image)

    # nnU-Net sums in float16: near-ties may differ.
    assert np.mean(ours.labels != theirs(model, image, Options())[0]) < 0.01
    assert not ours.labels[:3].any()
    assert not ours.labels[22:].any()
    assert not ours.ticks[-1].partial_labels()[:4].any()


def test_a_tick_is_given_for_every_tile_of_every_fold(model: Model, run: Callable[..., Any]) -> None:
    image = volume((20, 26, 24))
    a_fold = count_tiles(image.shape, (16, 16, 16), 0.5)

    ours = run(model, image)

    assert [tick.stage for tick in ours.ticks] == ["preprocess", *["infer"] * (2 * a_fold), "assemble"]
    assert [tick.done for tick in ours.ticks] == [0, *range(1, 2 * a_fold + 1), 2 * a_fold]
    assert {tick.total for tick in ours.ticks} == {2 * a_fold} == {ours.summary.tiles}
    assert ours.summary.seconds_per_tile > 0


@pytest.mark.parametrize("step", [0.1, 0.25, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("patch", [(16, 16, 16), (20, 28, 12), (64, 7, 33)])
@pytest.mark.parametrize("shape", [(64, 64, 64), (110, 31, 47), (65, 29, 200)])
def test_tiles_are_counted_as_nnunet_counts_them(shape: tuple[int, ...], patch: tuple[int, ...], step: float) -> None:
    padded = tuple(max(pair) for pair in zip(shape, patch, strict=True))

    steps = compute_steps_for_sliding_window(padded, patch, step)

    assert count_tiles(shape, patch, step) == np.prod([len(axis) for axis in steps])


@pytest.mark.parametrize(
    "variation",
    [
        pytest.param({}, id="plain"),
        pytest.param({"transpose": (2, 0, 1), "patch": (8, 16, 16)}, id="z last, y and x swapped"),
        pytest.param({"transpose": (1, 2, 0)}, id="transposed"),
        pytest.param({"dataset": REGIONS, "heads": 2}, id="regions"),
        pytest.param({"patch": (16, 16)}, id="2d"),
        pytest.param({"patch": (16, 16), "transpose": (1, 0, 2)}, id="2d across z"),
        pytest.param({"patch": (32, 32, 32)}, id="padded"),
    ],
)
def test_when_all_tiles_are_done_the_preview_is_the_slice_of_the_result(
    write_model: Callable[..., Path], tmp_path: Path, variation: dict[str, Any], run: Callable[..., Any]
) -> None:
    model = load_model(write_model(tmp_path / "m", **variation), "all", CPU)
    image = volume((12, 22, 18))

    ours = run(model, image, Options(preview_plane=5))

    preview = ours.ticks[-1].partial_labels()
    assert preview.dtype == ours.labels.dtype
    # nnU-Net sums in float16: near-ties may differ.
    assert np.mean(preview != ours.labels[5]) < 0.01


def test_the_preview_grows_tile_by_tile(model: Model) -> None:
    image = volume((16, 48, 16))
    covered = []

    for tick in segment(model, image, voxel_size_nm=None, options=Options(step_size=1.0)):
        if isinstance(tick, Slab):
            continue
        labels = tick.partial_labels()
        assert labels.shape == (48, 16)
        covered.append([bool(labels[start : start + 16].any()) for start in (0, 16, 32)])

    # Two folds, one after another in each line of tiles.
    assert covered[:6:2] + covered[5:6] == [[False] * 3, [True, False, False], [True, True, False], [True, True, True]]


def test_the_preview_of_a_resampled_volume_has_the_inputs_shape(model: Model, run: Callable[..., Any]) -> None:
    ours = run(model, volume((10, 40, 30)), Options(spacing_policy="nm"), (0.8, 0.6, 3.0))

    preview = ours.ticks[-1].partial_labels()
    assert preview.shape == (40, 30)
    assert np.mean(preview != ours.labels[5]) < 0.2


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if type(thread).__name__ != "TMonitor"}


def test_closing_the_generator_stops_the_network_and_leaves_no_thread(
    masked_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0
    forward = masked_model.network.forward

    def counted(image: torch.Tensor) -> Any:
        nonlocal passes
        passes += 1
        return forward(image)

    monkeypatch.setattr(masked_model.network, "forward", counted)
    before = _threads()
    generator = segment(masked_model, volume((64, 64, 64)), voxel_size_nm=None, options=Options(mirroring=False))
    assert [next(generator).stage for _ in range(3)] == ["preprocess", "infer", "infer"]

    generator.close()

    total = 2 * count_tiles((64, 64, 64), (16, 16, 16), 0.5)
    assert passes < total / 4
    assert _threads() == before


def test_closing_before_the_first_tick_does_nothing(model: Model) -> None:
    before = _threads()

    segment(model, volume(), voxel_size_nm=None, options=Options()).close()

    assert _threads() == before


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (RuntimeError("mat1 and mat2 do not fit"), FailureCode.INFERENCE_ERROR),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), FailureCode.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), FailureCode.GPU_ERROR),
        (MemoryError(), FailureCode.OUT_OF_MEMORY),
    ],
)
def test_what_the_network_raises_comes_out_named_and_leaves_no_thread(
    model: Model, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: FailureCode, run: Callable[..., Any]
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise raised

    monkeypatch.setattr(model.network, "forward", fail)
    before = _threads()

    with pytest.raises(FailureError) as caught:
        run(model, volume((40, 40, 40)))

    assert caught.value.failure.code is code
    assert str(raised) in caught.value.failure.message
    assert caught.value.__cause__ is raised
    # nnU-Net's feeding thread has been let go and ends by itself.
    for thread in _threads() - before:
        thread.join(timeout=5)
    assert _threads() == before


def test_a_feeding_thread_that_dies_ends_the_job_instead_of_hanging_it(
    masked_model: Model, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "clone", full)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    with pytest.raises(FailureError) as caught:
        run(masked_model, volume())

    assert caught.value.failure.code is FailureCode.OUT_OF_MEMORY


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_no_number_is_named(model: Model, bad: float, run: Callable[..., Any]) -> None:
    image = volume()
    image[3, 2, 1] = bad

    with pytest.raises(FailureError, match=r"voxel \[1, 2, 3\]") as caught:
        run(model, image)

    assert caught.value.failure.code is FailureCode.VALIDATION_ERROR


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 8), np.float32),
        np.full((8, 8, 8), 7, np.float32),
        np.ones((1, 1, 1), np.float32),
        np.zeros((0, 8, 8), np.float32),
        np.zeros((8, 8), np.float32),
        np.zeros((2, 8, 8, 8), np.float32),
    ],
    ids=lambda image: str(image.shape),
)
def test_a_volume_with_nothing_in_it_is_refused(
    model: Model, image: NDArray[np.float32], run: Callable[..., Any]
) -> None:
    with pytest.raises(FailureError) as caught:
        run(model, image)

    assert caught.value.failure.code is FailureCode.VALIDATION_ERROR


def test_one_channel_may_be_spelled_out(model: Model, run: Callable[..., Any]) -> None:
    image = volume()

    assert np.array_equal(run(model, image[None]).labels, run(model, image).labels)


def test_a_volume_of_one_plane_is_segmented(model: Model, run: Callable[..., Any]) -> None:
    image = volume((1, 20, 20))

    assert np.array_equal(run(model, image).labels, theirs(model, image, Options())[0])


def test_the_image_is_left_as_it_was(model: Model, run: Callable[..., Any]) -> None:
    image = volume()
    before = image.copy()

    run(model, image)

    assert np.array_equal(image, before)


def segmenting(model: Model, shape: tuple[int, int, int], free: Free, options: Options = Options()) -> Any:  # noqa: B008
    return segment(model, volume(shape), voxel_size_nm=None, options=options, free=lambda _: free)


def needed(model: Model, shape: tuple[int, int, int]) -> int:
    """Return the bytes of main memory that a volume is said to take."""
    with pytest.raises(FailureError) as refused:
        next(segmenting(model, shape, Free(1, None)))
    details = refused.value.failure.details
    assert details is not None
    return int(details["needed_bytes"])


def test_a_policy_that_needs_the_voxel_size_says_so(model: Model, run: Callable[..., Any]) -> None:
    with pytest.raises(FailureError, match="voxel size: unknown"):
        run(model, volume(), Options(spacing_policy="angstrom"))


def test_a_voxel_size_that_makes_the_volume_vanish_is_refused(model: Model, run: Callable[..., Any]) -> None:
    with pytest.raises(FailureError, match="voxel size"):
        run(model, volume(), Options(spacing_policy="nm"), (1e-4, 1e-4, 1e-4))


def test_a_volume_that_would_not_fit_is_refused_before_anything_is_allocated(model: Model) -> None:
    fits = needed(model, (20, 260, 240))

    with pytest.raises(FailureError) as caught:
        next(segmenting(model, (20, 260, 240), Free(fits - 1_000_000, None)))

    assert caught.value.failure.code is FailureCode.OUT_OF_MEMORY
    assert "along X and Y would fit" in caught.value.failure.hint


def test_a_model_that_streaming_cannot_express_is_refused_as_well_where_its_volume_would_not_fit(
    masked_model: Model,
) -> None:
    free = needed(masked_model, (16, 260, 240))

    with pytest.raises(FailureError, match="main memory") as caught:
        next(segmenting(masked_model, (20, 260, 240), Free(free, None)))

    assert "A crop to 16 of the 20 Z planes would fit" in caught.value.failure.hint


def test_a_model_that_would_not_fit_the_gpu_is_refused_before_it_is_there(model: Model) -> None:
    # There is no GPU here: whatever is brought to it fails otherwise.
    on_gpu = replace(model, device=torch.device("cuda", 0))

    with pytest.raises(FailureError, match="of the GPU's memory") as caught:
        next(segmenting(on_gpu, (20, 26, 24), Free(None, 100_000)))

    assert caught.value.failure.code is FailureCode.OUT_OF_MEMORY


def test_a_model_that_allows_it_is_run_on_the_cpu_where_it_would_not_fit_the_gpu(
    model: Model, collect: Callable[..., Any], run: Callable[..., Any]
) -> None:
    on_gpu = replace(model, device=torch.device("cuda", 0))

    ours = collect(segmenting(on_gpu, (20, 26, 24), Free(None, 100_000), Options(cpu_fallback=True)))

    assert ours.summary.steps[-1] == "the network on the CPU"
    assert ours.ticks[0].steps == ours.ticks[-1].steps == ours.summary.steps
    assert np.mean(ours.labels != run(model, volume()).labels) < 1e-3


def test_a_job_that_goes_on_begins_with_what_was_given_up_before(model: Model, collect: Callable[..., Any]) -> None:
    rung = Rung(1, steps=("1 instead of 2 passes at once", "the network on the CPU"), on_cpu=True)
    on_gpu = replace(model, device=torch.device("cuda", 0))

    ours = collect(segment(on_gpu, volume(), voxel_size_nm=None, options=Options(), rung=rung, free=lambda _: PLENTY))
    expected = collect(segment(model, volume(), voxel_size_nm=None, options=Options(), rung=Rung(1)))

    assert ours.summary.steps == rung.steps
    assert np.array_equal(ours.labels, expected.labels)


def test_nnunets_own_predictor_is_run_on_the_cpu_as_well(masked_model: Model, collect: Callable[..., Any]) -> None:
    on_gpu = replace(masked_model, device=torch.device("cuda", 0))

    ours = collect(segmenting(on_gpu, (20, 26, 24), Free(None, 100_000), Options(cpu_fallback=True)))

    assert (ours.summary.engine, ours.summary.steps[-1]) == ("nnunet", "the network on the CPU")


def test_a_voxel_size_in_the_wrong_unit_is_refused_instead_of_filling_memory(
    model: Model, run: Callable[..., Any]
) -> None:
    with pytest.raises(FailureError) as caught:
        run(model, volume((100, 100, 100)), Options(spacing_policy="angstrom"), (13.48, 13.48, 13.48))

    assert caught.value.failure.code is FailureCode.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   60 kB\n"}, 60 * 1024),
        (
            {
                "proc/meminfo": "MemAvailable: 60 kB\n",
                "sys/fs/cgroup/memory.max": "50000\n",
                "sys/fs/cgroup/memory.current": "30000\n",
                "sys/fs/cgroup/memory.stat": "anon 1\ninactive_file 5000\n",
            },
            25_000,
        ),
        (
            {
                "proc/meminfo": "MemAvailable: 60 kB\n",
                "sys/fs/cgroup/memory.max": "max\n",
                "sys/fs/cgroup/memory.current": "30000\n",
                "sys/fs/cgroup/memory.stat": "inactive_file 5000\n",
            },
            60 * 1024,
        ),
        (
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "50000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "30000\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 1000\n",
            },
            21_000,
        ),
        ({}, None),
    ],
)
def test_free_memory_is_the_least_of_what_machine_and_control_group_leave(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_memory(tmp_path) == expected
