"""Times and weighs the engine on a GPU against stock nnU-Net, network included (`python -P`, as `make bench` does).

A network as nnU-Net plans it for large volumes (patch 128 cubed, 32 to 320 features, random weights, four classes,
mirrored along three axes), from a file of floats to a file of labels. Each side runs in a process of its own, which is
warmed up on a volume of one patch, so that neither CUDA's start nor nnU-Net's trials of kernels nor compiling count.

Prints the device's name, and lines ``name ours peer ratio``; a ratio above 1 is in our favour.

- ``gpu-seconds``, ``gpu-megabytes`` (of the device's memory, as torch holds it): 512 cubed, against nnU-Net's predictor
  with its results on the device. ``gpu-busy-percent``: by NVML, ten times a second, of both.
- ``gpu-depth-megabytes``: ours at Z = 256 as ``ours``, at Z = 1024 as ``peer``, 192 x 192 along Y and X.
- ``gpu-batch-1-seconds``, ``-2-``, ``-4-``: 256 cubed, eight passes at once as ``ours``, so many as ``peer``.
- ``gpu-channels-last-seconds``, ``gpu-compiled-seconds``, ``gpu-compiled-channels-last-seconds``: 256 cubed, with it as
  ``ours``, without as ``peer``.

``--edge N`` makes the first volume smaller, for a try. Takes some ten minutes on an H200, most of it the first lines.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# `-P` keeps this folder, whose names are those of modules of Python, out of the path.
sys.path.append(str(Path(__file__).parent / "shared"))
# Models and nnU-Net's predictor are made as in tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))

import numpy as np
from volumes import write_volume

CLASSES = 4
PATCH = (128, 128, 128)
FEATURES = (32, 64, 128, 256, 320, 320)
PASSES = 8
SWITCHES = {
    "channels-last": {"channels_last": True},
    "compiled": {"compiled": True},
    "compiled-channels-last": {"compiled": True, "channels_last": True},
}


@contextlib.contextmanager
def watched() -> Iterator[list[int]]:
    """Ask NVML ten times a second for the share of time, in percent, in which the GPU was at work."""
    import pynvml  # noqa: PLC0415 - only where there is a GPU

    pynvml.nvmlInit()
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    gpu = pynvml.nvmlDeviceGetHandleByIndex(int(first) if first.isdigit() else 0)
    percents: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            percents.append(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield percents
    done.set()
    watcher.join()


def measured(warm_up: Callable[[], object], work: Callable[[], object]) -> None:
    """Do some work and print its seconds, the megabytes that torch held on the device, and how busy that was."""
    import torch  # noqa: PLC0415 - only where there is a GPU

    warm_up()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with watched() as percents:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    print(seconds, torch.cuda.max_memory_reserved() / 1e6, float(np.mean(percents)))


def loaded(folder: Path) -> tuple[Any, tuple[float, float, float]]:
    """Return the model on the GPU, and the spacing under which nothing is resampled."""
    import torch  # noqa: PLC0415

    from cryomamba_crds.model_gate import image_spacing  # noqa: PLC0415
    from cryomamba_inference.model import load_model  # noqa: PLC0415

    model = load_model(folder, "all", torch.device("cuda", 0))
    return model, image_spacing(model.facts, "ignore", None)


def volume_at(path: Path, shape: tuple[int, ...]) -> Any:  # noqa: ANN401 - a memmap of whatever
    """Return a file of floats as an array."""
    return np.memmap(path, dtype=np.float32, mode="r", shape=shape)


def ours(folder: Path, path: Path, shape: tuple[int, ...], batch: int, switches: str) -> None:
    """Labels of a volume by the streaming engine, into a file."""
    from cryomamba_inference.engine import Options, Slab, Tuning  # noqa: PLC0415
    from cryomamba_inference.engine.image import ArrayImage  # noqa: PLC0415
    from cryomamba_inference.engine.streaming import Work, stream  # noqa: PLC0415
    from cryomamba_inference.engine.suitability import plan_route  # noqa: PLC0415
    from cryomamba_inference.engine.survey import survey  # noqa: PLC0415

    model, spacing = loaded(folder)
    options = Options(tuning=Tuning(**SWITCHES.get(switches, {})))

    def segment(data: Any) -> None:  # noqa: ANN401 - a memmap of whatever
        labels = np.memmap(path.with_suffix(".labels"), dtype=np.uint8, mode="w+", shape=data.shape)
        image = ArrayImage(data)
        found = survey(image)
        route = plan_route(model.facts, model.configuration.configuration, found.box, spacing)
        for event in stream(Work(model, image, found, route, options, batch=batch)):
            if isinstance(event, Slab):
                labels[event.start : event.start + len(event.labels)] = event.labels

    volume = volume_at(path, shape)
    measured(lambda: segment(volume[:128, :128, :128]), lambda: segment(volume))


def nnunet(folder: Path, path: Path, shape: tuple[int, ...]) -> None:
    """Labels of a volume by nnU-Net's predictor, into a file."""
    from support.nnunet_reference import nnunet_predictor  # noqa: PLC0415

    model, spacing = loaded(folder)
    predictor = nnunet_predictor(model, 0.5, mirroring=True, device=model.device)

    def segment(data: Any) -> None:  # noqa: ANN401 - a memmap of whatever
        found = predictor.predict_single_npy_array(np.array(data)[None], {"spacing": list(spacing)})
        np.memmap(path.with_suffix(".labels"), dtype=np.uint8, mode="w+", shape=data.shape)[:] = found

    volume = volume_at(path, shape)
    measured(lambda: segment(volume[:128, :128, :128]), lambda: segment(volume))


def side(name: str, folder: Path, path: Path, shape: tuple[int, ...], *more: object) -> tuple[float, float, float]:
    """Run one side in a process of its own; return its seconds, megabytes and how busy the device was."""
    command = [sys.executable, "-P", __file__, "--side", name, folder, path, *shape, *more]
    told = subprocess.run(  # noqa: S603 - ourselves
        list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    seconds, megabytes, percent = map(float, told.splitlines()[-1].split())
    return seconds, megabytes, percent


def line(name: str, ours: float, peer: float, ratio: float) -> None:
    """Print one result."""
    print(f"{name} {ours:.3g} {peer:.3g} {ratio:.2f}", flush=True)


def compare(scratch: Path, edge: int) -> None:
    """Print all lines."""
    from support.nnunet_models import write_model  # noqa: PLC0415 - torch takes seconds

    names = {"background": 0, **{f"label{number}": number for number in range(1, CLASSES)}}
    dataset = {"channel_names": {"0": "density"}, "labels": names, "file_ending": ".nii.gz"}
    model = write_model(
        scratch / "model", patch=PATCH, features=FEATURES, convolutions=2, heads=CLASSES, dataset=dataset
    )
    path = scratch / "volume"
    cube = (edge, edge, edge)
    write_volume(path, cube)
    mine, peer = side("ours", model, path, cube, PASSES, ""), side("nnunet", model, path, cube)
    line("gpu-seconds", mine[0], peer[0], peer[0] / mine[0])
    line("gpu-megabytes", mine[1], peer[1], peer[1] / mine[1])
    line("gpu-busy-percent", mine[2], peer[2], mine[2] / peer[2])
    grown = []
    for depth in (256, 1024):
        write_volume(path, (depth, 192, 192))
        grown.append(side("ours", model, path, (depth, 192, 192), PASSES, "")[1])
    line("gpu-depth-megabytes", grown[0], grown[1], grown[1] / grown[0])
    small = (256, 256, 256)
    write_volume(path, small)
    plain = side("ours", model, path, small, PASSES, "")[0]
    for batch in (1, 2, 4):
        other = side("ours", model, path, small, batch, "")[0]
        line(f"gpu-batch-{batch}-seconds", plain, other, other / plain)
    for name in SWITCHES:
        if "compiled" in name and not (shutil.which("cc") or shutil.which("gcc")):
            print(f"gpu-{name}-seconds: skipped, torch.compile needs a C compiler", flush=True)
            continue
        tuned = side("ours", model, path, small, PASSES, name)[0]
        line(f"gpu-{name}-seconds", tuned, plain, plain / tuned)


def main() -> None:
    """Print all lines, or do one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        name, folder, path, depth, height, width, *more = arguments.side
        shape = (int(depth), int(height), int(width))
        if name == "ours":
            ours(Path(folder), Path(path), shape, int(more[0]), more[1])
        else:
            nnunet(Path(folder), Path(path), shape)
        return
    import torch  # noqa: PLC0415 - takes seconds

    if not torch.cuda.is_available():
        print("engine-gpu: skipped, torch sees no NVIDIA GPU that it can use")
        return
    print(f"device: {torch.cuda.get_device_name(0)}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="cryomamba-bench-") as scratch:
        compare(Path(scratch), arguments.edge)


if __name__ == "__main__":
    main()
