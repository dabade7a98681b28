"""The engine on a real GPU: its sums, its bytes, its memory, and what it gives up when that runs out.

Show the figures with ``pytest -rP``.
"""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryomamba_crds.model_gate import image_spacing
from cryomamba_inference.engine import Options, Slab, Tuning
from cryomamba_inference.engine.arrival import Arrival
from cryomamba_inference.engine.fitting import best_setting
from cryomamba_inference.engine.image import ArrayImage
from cryomamba_inference.engine.ladder import stream_down_the_ladder
from cryomamba_inference.engine.lines import Corner, Lines
from cryomamba_inference.engine.planning import Setting, plan_memory
from cryomamba_inference.engine.streaming import Work, _Run, stream
from cryomamba_inference.engine.suitability import plan_route
from cryomamba_inference.engine.survey import survey
from cryomamba_inference.engine.tiling import tile_weights
from cryomamba_inference.model import Model, load_model
from support.nnunet_models import write_model
from support.nnunet_reference import nnunet_predictor, reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA driver on this machine"),
    # What torch and nnU-Net warn of on a GPU is theirs.
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(600),
]
NEAR_TIE = 1e-4
ALLOWANCE = 150 * 10**6
SMALL = {"patch": (32, 32, 32), "features": (16, 32, 64)}
FULL = {"patch": (128, 128, 128), "features": (32, 64, 128, 256, 320, 320), "convolutions": 2, "heads": 4}
"""As nnU-Net plans for large volumes."""


@pytest.fixture(scope="module")
def device() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no NVIDIA GPU that it can use")
    torch.cuda.empty_cache()
    yield torch.device("cuda", 0)
    torch.cuda.empty_cache()


@pytest.fixture
def limited(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Return a function that leaves this process so many bytes of the GPU's memory."""

    def limit(size: int) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(size / torch.cuda.get_device_properties(device).total_memory, device)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, device)


def labels(count: int) -> dict[str, Any]:
    names = {"background": 0, **{f"label{number}": number for number in range(1, count)}}
    return {"channel_names": {"0": "density"}, "labels": names, "file_ending": ".nii.gz"}


def model_at(folder: Path, device: torch.device, **plan: Any) -> Model:
    heads = plan.get("heads", 3)
    return load_model(write_model(folder, dataset=labels(heads), **plan), "all", device)


def blobs(shape: tuple[int, int, int], seed: int = 7) -> NDArray[np.float32]:
    """Return a volume in which labels form patches."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=[edge // 4 + 1 for edge in shape]).astype(np.float32)
    fine = coarse.repeat(4, axis=0).repeat(4, axis=1).repeat(4, axis=2)[tuple(slice(edge) for edge in shape)]
    return fine + 0.3 * rng.standard_normal(shape, dtype=np.float32) + 0.5


def spacing_of(model: Model) -> tuple[float, float, float]:
    return image_spacing(model.facts, "ignore", None)


def work_for(model: Model, image: NDArray[np.float32], *, batch: int = 1, **options: Any) -> Work:
    found = survey(ArrayImage(image))
    route = plan_route(model.facts, model.configuration.configuration, found.box, spacing_of(model))
    return Work(model, ArrayImage(image), found, route, Options(**options), batch=batch)


@dataclass(frozen=True)
class Done:
    labels: NDArray[Any]
    probabilities: NDArray[np.float16] | None
    summary: Any


def run(events: Any) -> Done:
    slabs, chances = [], []
    while True:
        try:
            event = next(events)
        except StopIteration as stop:
            return Done(np.concatenate(slabs), np.concatenate(chances, axis=1) if chances else None, stop.value)
        if isinstance(event, Slab):
            slabs.append(event.labels.copy())
            if event.probabilities is not None:
                chances.append(event.probabilities.copy())


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """Return the most bytes that torch held on the device."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_reserved(device)


@pytest.mark.parametrize(
    ("shape", "batch", "options"),
    [
        pytest.param((61, 70, 83), 1, {}, id="one pass at once"),
        pytest.param((61, 70, 83), 8, {}, id="all flips at once"),
        pytest.param((40, 50, 90), 4, {"mirroring": False, "step_size": 0.3}, id="four tiles at once"),
        pytest.param((20, 70, 40), 8, {"tuning": Tuning(channels_last=True)}, id="channels last"),
    ],
)
def test_labels_are_those_of_float64_sums_of_the_same_outputs(
    device: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    batch: int,
    options: dict[str, Any],
) -> None:
    model = model_at(tmp_path / "m", device, **SMALL)
    work = work_for(model, blobs(shape), batch=batch, **options)
    tiling, weights = work.tiling, tile_weights(model.facts.patch_size).astype(np.float64)
    sums = np.zeros((model.facts.heads, *tiling.padded))
    counts = np.zeros(tiling.padded)
    add = _Run._add

    def add_in_float64(engine: _Run, corner: tuple[int, int, int], output: torch.Tensor) -> None:
        place = tuple(slice(start, start + edge) for start, edge in zip(corner, tiling.patch, strict=True))
        sums[:, *place] += output.double().cpu().numpy() * weights
        counts[place] += weights
        add(engine, corner, output)

    monkeypatch.setattr(_Run, "_add", add_in_float64)

    ours = run(stream(work)).labels

    inside = tuple(slice(before, before + size) for before, size in zip(tiling.padding, tiling.shape, strict=True))
    ordered = np.sort((sums / counts)[:, *inside], axis=0)
    differing = ours != sums[:, *inside].argmax(axis=0)
    print(f"{differing.sum()} of {ours.size}")
    assert differing.sum() <= max(3, 1e-5 * ours.size)
    assert ((ordered[-1] - ordered[-2])[differing] < NEAR_TIE).all()
    assert len(np.unique(ours)) > 1


@dataclass(frozen=True)
class Compared:
    """A volume, a model, and what others say of the one with the other."""

    model: Model
    image: NDArray[np.float32]
    truth: NDArray[Any]
    """Labels in float64."""
    stock: NDArray[Any]
    """nnU-Net's own."""


@pytest.fixture(scope="module")
def compared(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> list[Compared]:
    found = []
    for seed, shape in enumerate([(61, 50, 47), (48, 66, 52), (70, 44, 50)]):
        model = model_at(tmp_path_factory.mktemp("compared") / "m", device, **SMALL, seed=seed)
        image = blobs(shape, seed=seed)
        truth = reference(model, image[None], spacing_of(model), step_size=0.5, mirroring=True).labels
        predictor = nnunet_predictor(model, 0.5, mirroring=True, device=device)
        stock = predictor.predict_single_npy_array(image[None], {"spacing": list(spacing_of(model))})
        found.append(Compared(model, image, truth, stock))
    return found


@pytest.mark.parametrize(
    "tuning",
    [
        pytest.param(Tuning(), id="as it is"),
        pytest.param(Tuning(channels_last=True), id="channels last"),
        pytest.param(Tuning(compiled=True), id="compiled"),
        pytest.param(Tuning(compiled=True, channels_last=True), id="compiled, channels last"),
    ],
)
def test_labels_differ_from_those_in_float64_by_no_more_than_nnunets(
    device: torch.device, compared: list[Compared], tuning: Tuning
) -> None:
    if tuning.compiled and not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("torch.compile needs a C compiler, and there is none on this machine")

    ours = sum(
        np.count_nonzero(run(stream(work_for(one.model, one.image, batch=8, tuning=tuning))).labels != one.truth)
        for one in compared
    )

    theirs = sum(np.count_nonzero(one.stock != one.truth) for one in compared)
    print(f"ours {ours}, nnU-Net {theirs} of {sum(one.image.size for one in compared)}")
    assert ours <= max(3, 1.1 * theirs)


@pytest.mark.parametrize("voxel_size", [None, (1.9, 1.2, 1.6)], ids=["as it is", "resampled"])
def test_two_runs_give_the_same_bytes(
    device: torch.device, tmp_path: Path, voxel_size: tuple[float, float, float] | None
) -> None:
    model = model_at(tmp_path / "m", device, **SMALL, folds=("0", "1"))
    image = blobs((70, 61, 83))
    plain = work_for(model, image, batch=8, save_probabilities=True)
    spacing = image_spacing(model.facts, "nm", voxel_size) if voxel_size else spacing_of(model)
    work = replace(plain, route=plan_route(model.facts, model.configuration.configuration, plain.survey.box, spacing))

    first, second = run(stream(work)), run(stream(work))

    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.probabilities, second.probabilities)


def test_a_run_from_any_plane_on_gives_the_same_to_the_last_bit(device: torch.device, tmp_path: Path) -> None:
    work = work_for(model_at(tmp_path / "m", device, **SMALL), blobs((70, 50, 61)), batch=8)
    whole = run(stream(work)).labels

    for first in (1, 17, 40, 69):
        assert np.array_equal(run(stream(work, first=first)).labels, whole[first:])


def test_passes_at_once_are_halved_until_they_fit_into_a_gpu(
    device: torch.device, tmp_path: Path, limited: Callable[[int], None]
) -> None:
    model = model_at(tmp_path / "m", device, patch=(64, 64, 64), features=(32, 64, 128))
    work = work_for(model, blobs((80, 96, 70)), batch=8)
    one, all_at_once = (peak(device, lambda batch=batch: run(stream(replace(work, batch=batch)))) for batch in (1, 8))
    print(f"one pass {one / 1e6:.0f} MB, eight {all_at_once / 1e6:.0f} MB")

    limited((one + all_at_once) // 2)
    ours = run(stream_down_the_ladder(work))
    limited(torch.cuda.get_device_properties(device).total_memory)

    assert ours.summary.steps[0] == "4 instead of 8 passes at once"
    assert 1 <= ours.summary.passes_at_once <= 4
    expected = run(stream(replace(work, batch=ours.summary.passes_at_once))).labels
    # Where memory is short cuDNN may take other kernels.
    assert np.mean(ours.labels != expected) < 5e-3


def test_sums_move_to_main_memory_when_one_pass_is_all_there_is(
    device: torch.device, tmp_path: Path, limited: Callable[[int], None]
) -> None:
    model = model_at(tmp_path / "m", device, patch=(64, 64, 64), features=(8, 16), heads=12)
    work = work_for(model, blobs((96, 768, 768)), mirroring=False, step_size=1.0)
    on_host = replace(work, sums_on=torch.device("cpu"))
    labelled: list[NDArray[Any]] = []
    less = peak(device, lambda: labelled.append(run(stream(on_host)).labels))
    more = peak(device, lambda: labelled.append(run(stream(work)).labels))
    print(f"sums on the host {less / 1e6:.0f} MB, on the device {more / 1e6:.0f} MB")

    limited((less + more) // 2)
    ours = run(stream_down_the_ladder(work))

    assert ours.summary.steps == ("sums in main memory",)
    for other in labelled:
        assert np.mean(ours.labels != other) < 5e-3


def test_device_memory_does_not_grow_with_the_planes(device: torch.device, tmp_path: Path) -> None:
    model = model_at(tmp_path / "m", device, **FULL)

    few, many = (
        peak(device, lambda depth=depth: run(stream(work_for(model, blobs((depth, 192, 192)), mirroring=False))))
        for depth in (256, 1024)
    )

    print(f"Z = 256: {few / 1e6:.0f} MB, Z = 1024: {many / 1e6:.0f} MB")
    assert many <= 1.1 * few


@pytest.mark.parametrize(
    ("plan", "shape", "options"),
    [
        pytest.param(FULL, (150, 256, 256), {"step_size": 1.0}, id="full size, all flips at once"),
        pytest.param(FULL, (150, 256, 256), {"step_size": 1.0, "mirroring": False}, id="full size, one pass"),
        pytest.param({**SMALL, "heads": 16}, (70, 400, 400), {"mirroring": False}, id="sixteen classes"),
    ],
)
def test_device_memory_is_no_more_than_was_told_and_not_much_less(
    device: torch.device, tmp_path: Path, plan: dict[str, Any], shape: tuple[int, int, int], options: dict[str, Any]
) -> None:
    model = model_at(tmp_path / "m", device, **plan)
    configuration, choices = model.configuration.configuration, Options(**options)
    setting: Setting = best_setting(model.facts, configuration, choices, "cuda", len(model.folds))
    work = work_for(model, blobs(shape), batch=setting.batch, **options)
    told = plan_memory(model.facts, configuration, shape, work.route, choices, setting).device_bytes

    measured = peak(device, lambda: run(stream(work)))

    print(f"told {told / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    print(f"of which arrays {torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB")
    assert measured <= told <= 1.15 * measured + ALLOWANCE


def test_lines_are_whole_however_busy_the_device_is(device: torch.device) -> None:
    corners: list[Corner] = [(number, 0) for number in range(24)]
    shape = (1, 32, 256, 256)
    busy = torch.rand((2048, 2048), device=device)
    sums = []

    def fill(corner: Corner, into: NDArray[Any]) -> None:
        into[:] = corner[0] + 1

    lines = Lines(fill, corners, shape, dtype=torch.float32, device=device, buffers=2)
    with contextlib.closing(lines):
        for _ in corners:
            seen = lines.take()
            for _ in range(20):
                busy = torch.tanh(busy @ busy)
            # Behind all that, when the thread has long been at the lines that follow.
            sums.append(seen.double().sum())

    assert [one.item() / math.prod(shape) for one in sums] == [number + 1 for number, _ in corners]


def test_what_is_on_its_way_home_is_what_it_was_when_it_left(device: torch.device) -> None:
    values = torch.zeros((64, 256, 256), dtype=torch.uint8, device=device)
    arrivals = []
    for number in range(20):
        values.fill_(number)
        arrivals.append(Arrival(values))

    assert [set(np.unique(arrival.values())) for arrival in arrivals] == [{number} for number in range(20)]
