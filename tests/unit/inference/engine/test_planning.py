"""What is told of memory and tiles before anything is loaded, against what then happens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import image_spacing, open_model
from cryomamba_crds.task import VoxelSize
from cryomamba_inference.commands.plan import app
from cryomamba_inference.engine.fitting import Fit, Free, best_setting, fit, next_step
from cryomamba_inference.engine.image import Shape
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.planning import Outlook, Setting, foresee
from support.model_grid import CASES, blobs, labels, of_channels
from support.peak_memory import Segmenting, peaks

EVERYTHING = Free(None, None)
ALLOWANCE = 150 * 10**6


def fit_for(
    folder: Path,
    shape: Shape,
    options: Options,
    free: Free = EVERYTHING,
    device: Any = "cpu",
    voxel_size: VoxelSize | None = None,
) -> Fit:
    inspected = open_model(folder)
    facts = inspected.facts
    configuration = inspected.plans["configurations"][facts.configuration]
    best = best_setting(facts, configuration, options, device, len(facts.folds))
    spacing = image_spacing(facts, options.spacing_policy, voxel_size)

    def foreseen(cropped: Shape, setting: Setting) -> Outlook:
        return foresee(facts, configuration, cropped, spacing, options, setting)

    return fit(foreseen, shape, best, free, cpu_fallback=options.cpu_fallback)


def outlook_for(*arguments: Any) -> Outlook:
    return fit_for(*arguments).outlook


def whole_and_coarse(**options: Any) -> dict[str, Any]:
    return {"step_size": 1.0, "mirroring": False, **options}


LARGE = {
    "four classes": ({"heads": 4, "dataset": labels(4), "patch": (32, 64, 64)}, (64, 512, 512), whole_and_coarse()),
    "forty classes, resampled": (
        {"heads": 40, "dataset": labels(40), "patch": (16, 64, 64), "spacing": (2.0, 2.0, 2.0)},
        (64, 512, 512),
        whole_and_coarse(spacing_policy="nm"),
    ),
    "sixteen classes and their probabilities": (
        {"heads": 16, "dataset": labels(16), "patch": (16, 32, 32)},
        (40, 128, 160),
        {"step_size": 0.75, "mirroring": False, "save_probabilities": True},
    ),
    "three channels, resampled": (
        {"spacing": (1.5, 1.2, 1.3), "dataset": of_channels("a", "b", "c"), "patch": (16, 32, 32)},
        (30, 200, 220),
        whole_and_coarse(spacing_policy="nm"),
    ),
}
"""Variations of the model, shapes and options, where what is there of the volume outweighs the rest."""


@pytest.fixture(scope="module")
def measured(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that tells and measures what segmenting some volumes takes, in bytes, by their names."""

    def measure(kinds: dict[str, tuple[dict[str, Any], Any, dict[str, Any], VoxelSize | None]]) -> dict[str, Any]:
        folder, told, segmentings = tmp_path_factory.mktemp("measured"), [], []
        for number, (variation, volume, options, voxel_size) in enumerate(kinds.values()):
            model, file = write_model(folder / f"{number}", **variation), folder / f"{number}.npy"
            np.save(file, volume)
            outlook = outlook_for(model, volume.shape[-3:], Options(**options), EVERYTHING, "cpu", voxel_size)
            told.append(outlook.memory.host_bytes)
            segmentings.append(Segmenting(str(model), str(file), options, voxel_size))
        return dict(zip(kinds, zip(told, peaks(segmentings), strict=True), strict=True))

    return measure


@pytest.fixture(scope="module")
def grid(measured: Callable[..., Any]) -> dict[str, tuple[int, int]]:
    options = {
        name: {
            "step_size": case.step_size,
            "mirroring": case.mirroring,
            "spacing_policy": "ignore" if case.voxel_size is None else "nm",
        }
        for name, case in CASES.items()
    }
    kinds = {name: (case.model, blobs(case), options[name], case.voxel_size) for name, case in CASES.items()}
    return cast("dict[str, tuple[int, int]]", measured(kinds))


@pytest.fixture(scope="module")
def large(measured: Callable[..., Any]) -> dict[str, tuple[int, int]]:
    rng = np.random.default_rng(0)
    kinds = {}
    for name, (variation, shape, options) in LARGE.items():
        channels = len(variation["dataset"]["channel_names"])
        volume = rng.standard_normal((channels, *shape), dtype=np.float32)
        kinds[name] = (variation, volume, options, (1.0, 1.0, 1.0))
    return cast("dict[str, tuple[int, int]]", measured(kinds))


@pytest.mark.timeout(400)  # its first one waits for all that is measured
@pytest.mark.parametrize("name", CASES)
def test_memory_of_every_kind_of_model_is_no_more_than_was_told_and_not_much_less(
    grid: dict[str, tuple[int, int]], name: str
) -> None:
    told, peak = grid[name]

    print(f"told {told / 1e6:.1f} MB, measured {peak / 1e6:.1f} MB")
    assert peak <= told <= 1.15 * peak + ALLOWANCE


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", LARGE)
def test_memory_of_a_large_volume_is_no_more_than_was_told_and_not_much_less(
    large: dict[str, tuple[int, int]], name: str
) -> None:
    told, peak = large[name]

    print(f"told {told / 1e6:.0f} MB, measured {peak / 1e6:.0f} MB")
    assert peak <= told <= 1.15 * peak + ALLOWANCE


def test_memory_does_not_grow_with_the_number_of_planes(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")

    few = outlook_for(folder, (256, 300, 300), Options()).memory
    many = outlook_for(folder, (1024, 300, 300), Options()).memory

    assert many.host_bytes == few.host_bytes
    assert many.tiles > 3 * few.tiles


def test_the_crop_in_the_hint_fits_and_a_larger_one_does_not(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    free = outlook_for(folder, (300, 4000, 4000), Options()).memory.host_bytes // 2

    with pytest.raises(FailureError, match="GB of main memory") as refused:
        fit_for(folder, (300, 4000, 4000), Options(), Free(free, None))

    percent = int(refused.value.failure.hint.split(" %")[0].split()[-1])
    fit_for(folder, (300, 40 * percent, 40 * percent), Options(), Free(free, None))
    with pytest.raises(FailureError):
        fit_for(folder, (300, 40 * (percent + 1), 40 * (percent + 1)), Options(), Free(free, None))
    fit_for(folder, (300, 4000, 4000), Options(), Free(None, None))


def test_a_gpu_is_planned_for_without_one(write_model: Callable[..., Path], tmp_path: Path) -> None:
    memory = outlook_for(write_model(tmp_path / "m"), (64, 512, 512), Options(), EVERYTHING, "cuda").memory

    assert memory.device["sums"] > 0
    assert "sums" not in memory.host


SHAPE = (64, 512, 512)


def gpu_plan(folder: Path, batch: int, *, sums_on_host: bool = False) -> int:
    """Return the bytes that a setting takes of a GPU's memory."""
    inspected = open_model(folder)
    configuration = inspected.plans["configurations"][inspected.facts.configuration]
    spacing = image_spacing(inspected.facts, "ignore", None)
    setting = Setting("cuda", 1, batch, sums_on_host)
    return foresee(inspected.facts, configuration, SHAPE, spacing, Options(), setting).memory.device_bytes


def test_on_a_gpu_all_flips_go_at_once_where_they_fit(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", mirroring=(0, 2))

    ours = fit_for(folder, SHAPE, Options(), Free(None, gpu_plan(folder, 4)), "cuda")

    assert ours.setting == Setting("cuda", 1, 4)
    assert ours.steps == ()
    assert fit_for(folder, SHAPE, Options(mirroring=False), EVERYTHING, "cuda").setting.batch == 1


def test_the_batch_is_chosen_so_that_it_fits_the_free_memory_of_the_gpu(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "m")
    free = gpu_plan(folder, 4) - 1

    ours = fit_for(folder, SHAPE, Options(), Free(None, free), "cuda")

    assert ours.setting == Setting("cuda", 1, 2)
    assert ours.outlook.memory.device_bytes <= free
    assert ours.steps == ("4 instead of 8 passes at once", "2 instead of 4 passes at once")


def test_where_one_pass_is_too_much_beside_the_sums_they_go_to_main_memory(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "m")

    ours = fit_for(folder, SHAPE, Options(), Free(None, gpu_plan(folder, 1) - 1), "cuda")

    assert ours.setting == Setting("cuda", 1, 1, sums_on_host=True)
    assert ours.steps[-1] == "sums in main memory"
    assert ours.outlook.memory.host["sums"] > 0
    assert "sums" not in ours.outlook.memory.device


def test_a_model_that_no_step_makes_fit_the_gpu_is_refused_with_the_figures(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "m")
    needed = gpu_plan(folder, 1, sums_on_host=True)

    with pytest.raises(FailureError, match="of the GPU's memory") as refused:
        fit_for(folder, SHAPE, Options(), Free(None, needed - 1), "cuda")

    failure = refused.value.failure
    assert failure.code is FailureCode.OUT_OF_MEMORY
    assert failure.details is not None
    assert (failure.details["needed_bytes"], failure.details["available_bytes"]) == (needed, needed - 1)
    on_cpu = outlook_for(folder, SHAPE, Options(), EVERYTHING, "cpu").memory.host_bytes
    assert f"On the CPU it would take about {on_cpu / 1e9:.1f} GB" in failure.hint


def test_a_model_that_allows_it_goes_to_the_cpu_instead(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")

    ours = fit_for(folder, SHAPE, Options(cpu_fallback=True), Free(None, 1), "cuda")

    assert ours.setting == Setting("cpu", 1, 1)
    assert ours.steps[-2:] == ("sums in main memory", "the network on the CPU")
    assert ours.outlook.memory.device == {}


def test_sums_in_main_memory_must_fit_there(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    there = fit_for(folder, SHAPE, Options(), EVERYTHING, "cuda").outlook.memory.host_bytes

    with pytest.raises(FailureError, match="of main memory"):
        fit_for(folder, SHAPE, Options(), Free(there, gpu_plan(folder, 1) - 1), "cuda")


def test_what_is_given_up_comes_in_this_order() -> None:
    setting, words = Setting("cuda", 1, 4), []
    while step := next_step(setting, cpu_fallback=True):
        setting, said = step
        words.append(said)

    assert words == [
        "2 instead of 4 passes at once",
        "1 instead of 2 passes at once",
        "sums in main memory",
        "the network on the CPU",
    ]
    assert next_step(Setting("cuda", 1, 1, sums_on_host=True), cpu_fallback=False) is None
    assert next_step(Setting("cpu", 1, 1), cpu_fallback=True) is None


@pytest.fixture
def tomogram(tmp_path: Path) -> Path:
    with mrcfile.new(tmp_path / "tomogram.mrc") as mrc:
        mrc.set_data(np.zeros((20, 26, 24), np.int8))
        mrc.voxel_size = 13.48
    return tmp_path / "tomogram.mrc"


def test_the_command_says_it_all_for_people_and_programs(
    write_model: Callable[..., Path], tmp_path: Path, tomogram: Path
) -> None:
    folder = write_model(tmp_path / "m", folds=("0", "1"))

    shown = CliRunner().invoke(app, [str(tomogram), "-m", str(folder)])
    told = CliRunner().invoke(app, [str(tomogram), "-m", str(folder), "--json", "--device", "cuda"])

    assert shown.exit_code == 0, shown.output
    assert "24 over 2 folds" in shown.output
    assert "24 x 26 x 20 voxels" in shown.output
    document = json.loads(told.output)
    assert document["engine"] == "streaming"
    assert document["device_bytes"] == sum(document["device"].values()) > 0


def test_the_command_says_what_does_not_fit_a_gpu_and_fails(
    write_model: Callable[..., Path], tmp_path: Path, tomogram: Path
) -> None:
    folder = write_model(tmp_path / "m")
    on_gpu = [str(tomogram), "-m", str(folder), "--device", "cuda", "--device-memory"]

    refused = CliRunner().invoke(app, [*on_gpu, "0.0001"])
    squeezed = CliRunner().invoke(app, [*on_gpu, "0.0001", "--cpu-fallback"])
    fits = CliRunner().invoke(app, [*on_gpu, "1"])

    assert refused.exit_code == 1
    assert "of the GPU's memory" in refused.output
    assert (squeezed.exit_code, fits.exit_code) == (0, 0)
    assert "the network on the CPU" in squeezed.output
    assert "1.00 GB are free" in fits.output


def test_the_command_fails_where_main_memory_does_not_hold_it(
    write_model: Callable[..., Path], tmp_path: Path, tomogram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cryomamba_inference.engine.memory.available_memory", lambda: 1_000_000)

    refused = CliRunner().invoke(app, [str(tomogram), "-m", str(write_model(tmp_path / "m")), "--json"])

    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["free_host_bytes"] == 1_000_000
    assert "of main memory" in refused.stderr


def test_the_command_refuses_a_volume_of_other_channels_than_the_models(
    write_model: Callable[..., Path], tmp_path: Path, tomogram: Path
) -> None:
    folder = write_model(tmp_path / "m", dataset={**labels(3), "channel_names": {"0": "even", "1": "odd"}})

    with pytest.raises(FailureError, match=r"one channel and the model takes 2 channels \(even, odd\)"):
        CliRunner().invoke(app, [str(tomogram), "-m", str(folder)], catch_exceptions=False)


def test_the_command_names_what_keeps_a_model_from_streaming(
    write_model: Callable[..., Path], tmp_path: Path, tomogram: Path
) -> None:
    folder = write_model(
        tmp_path / "m", plans_changes=lambda configuration: configuration.update(use_mask_for_norm=[True])
    )

    shown = CliRunner().invoke(app, [str(tomogram), "-m", str(folder)])

    assert "use_mask_for_norm" in shown.output


def test_the_command_imports_no_torch(write_model: Callable[..., Path], tmp_path: Path, tomogram: Path) -> None:
    folder = write_model(tmp_path / "m")
    program = "import sys; from cryomamba_inference.commands.plan import app; app(standalone_mode=False); "
    program += "assert not {'torch', 'nnunetv2'} & set(sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", program, str(tomogram), "-m", str(folder)],
        capture_output=True,
        timeout=100,
        check=False,
        env=dict(os.environ),
    )

    assert done.returncode == 0, done.stderr.decode()
