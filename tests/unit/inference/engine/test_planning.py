"""What is told of memory and tiles before anything is loaded, against what then happens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from typer.testing import CliRunner

from cryomamba_crds.failures import FailureError
from cryomamba_crds.model_gate import open_model
from cryomamba_inference.commands.plan import app
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.planning import Setting, choose_batch, foresee, refuse_what_does_not_fit

ALLOWANCE = 150 * 10**6

MEASURE = """
import sys, threading, time
import numpy as np, torch
from pathlib import Path
from cryomamba_inference.engine import Options
from cryomamba_inference.engine.segmenting import segment
from cryomamba_inference.model import load_model

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

torch.set_num_threads(1)
volume = np.load(sys.argv[2], mmap_mode="r")
model = load_model(Path(sys.argv[1]), "all", torch.device("cpu"))
before, peak, done = anonymous(), [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
for _ in segment(model, volume, voxel_size_nm=(1.0, 1.0, 1.0), options=Options(**eval(sys.argv[3]))):
    pass
done.set()
watcher.join()
print(peak[0] - before)
"""


def labels(count: int) -> dict[str, Any]:
    names = {"background": 0, **{f"label{number}": number for number in range(1, count)}}
    return {"channel_names": {"0": "density"}, "labels": names, "file_ending": ".nii.gz"}


def outlook_for(folder: Path, shape: tuple[int, int, int], options: Options, device: Any = "cpu") -> Any:
    inspected = open_model(folder)
    facts = inspected.facts
    configuration = inspected.plans["configurations"][facts.configuration]
    setting = Setting(device, len(facts.folds), choose_batch(configuration, device))
    spacing = (1.0, 1.0, 1.0) if options.spacing_policy == "nm" else tuple(facts.original_median_spacing)
    return foresee(facts, configuration, shape, spacing, options, setting)


@pytest.mark.parametrize(
    ("variation", "shape", "options"),
    [
        pytest.param({}, (48, 256, 256), {"step_size": 1.0, "mirroring": False}, id="as it is"),
        pytest.param(
            {"heads": 16, "dataset": labels(16)},
            (40, 128, 160),
            {"step_size": 0.75, "mirroring": False, "save_probabilities": True},
            id="sixteen classes and their probabilities",
        ),
        pytest.param(
            {"spacing": (1.5, 2.0, 2.0)},
            (60, 300, 320),
            {"step_size": 1.0, "mirroring": False, "spacing_policy": "nm"},
            id="resampled",
        ),
    ],
)
def test_memory_is_no_more_than_was_told_and_not_much_less(
    write_model: Callable[..., Path],
    tmp_path: Path,
    variation: dict[str, Any],
    shape: tuple[int, int, int],
    options: dict[str, Any],
) -> None:
    folder = write_model(tmp_path / "m", patch=(16, 32, 32), **variation)
    np.save(tmp_path / "volume.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))

    told = outlook_for(folder, shape, Options(**options)).memory.host_bytes
    command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / "volume.npy"), repr(options)]
    measured = int(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=100, text=True).stdout)

    print(f"told {told / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")
    assert measured <= told <= 1.15 * measured + ALLOWANCE


def test_memory_does_not_grow_with_the_number_of_planes(write_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")

    few = outlook_for(folder, (256, 300, 300), Options()).memory
    many = outlook_for(folder, (1024, 300, 300), Options()).memory

    assert many.host_bytes == few.host_bytes
    assert many.tiles > 3 * few.tiles


def test_the_crop_in_the_hint_fits(write_model: Callable[..., Path], tmp_path: Path) -> None:
    outlook = outlook_for(write_model(tmp_path / "m"), (300, 4000, 4000), Options())
    free = outlook.memory.host_bytes // 2

    with pytest.raises(FailureError, match="GB of main memory") as refused:
        refuse_what_does_not_fit(outlook, 300, free)

    percent = int(refused.value.failure.hint.split(" %")[0].split()[-1])
    edge = 4000 * percent // 100
    cropped = outlook_for(tmp_path / "m", (300, edge, edge), Options())
    refuse_what_does_not_fit(cropped, 300, free)
    refuse_what_does_not_fit(outlook, 300, None)


def test_a_gpu_is_planned_for_without_one(write_model: Callable[..., Path], tmp_path: Path) -> None:
    memory = outlook_for(write_model(tmp_path / "m"), (64, 512, 512), Options(), "cuda").memory

    assert memory.device["sums"] > 0
    assert "sums" not in memory.host


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

    assert shown.exit_code == 0
    assert "24 over 2 folds" in shown.output
    assert "24 x 26 x 20 voxels" in shown.output
    document = json.loads(told.output)
    assert document["engine"] == "streaming"
    assert document["device_bytes"] == sum(document["device"].values()) > 0


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
