"""Times and weighs the streaming engine against nnU-Net's own code on two cores, everything but the network itself.

Prints lines ``name ours peer ratio``; a ratio above 1 is in our favour. Each side runs in a process of its own, which
tells its wall time and by how much its anonymous memory (RssAnon) grew at the peak.

- ``engine-seconds``, ``engine-megabytes``: a sliding window of patch 128 and step 0.5 over 512 cubed, four classes and
  a network that costs next to nothing, from a file to labels; against nnU-Net's `predict_sliding_window_return_logits`.
- ``engine-depth-megabytes``: ours at Z = 256 as ``ours``, at Z = 1024 as ``peer``: what it holds must not grow with Z.
- ``resample-seconds``, ``resample-megabytes``: logits of sixteen classes from 96 x 192 x 192 to twice that, and the
  decision; against nnU-Net's default resampling, and (``resample-torch-...``) against `resample_torch_fornnunet`.

``--edge N`` makes the first volume smaller, for a try.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

THREADS = 2
CLASSES = 4
PATCH = (128, 128, 128)
LOGITS = (16, 96, 192, 192)
VOLUME = (192, 384, 384)


def anonymous_bytes() -> int:
    """Return this process's anonymous memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def measured(work: Callable[[], object]) -> None:
    """Do some work and print its seconds and by how many megabytes memory grew."""
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(seconds, (peak[0] - before) / 1e6)


def cheap_network() -> Any:  # noqa: ANN401 - torch is imported where it is needed
    """Return a network of one multiplication and one addition."""
    import torch  # noqa: PLC0415

    class Cheap(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shape = (1, CLASSES, 1, 1, 1)
            self.slope = torch.nn.Parameter(torch.linspace(-1, 1, CLASSES).view(shape))
            self.offset = torch.nn.Parameter(torch.linspace(0, 1, CLASSES).view(shape))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.addcmul(self.offset, image, self.slope)

    return Cheap().eval()


def window_ours(path: Path, shape: tuple[int, int, int]) -> None:
    """Labels of a volume by the streaming engine, into a file."""
    import torch  # noqa: PLC0415

    from cryomamba_inference.engine.image import ArrayImage  # noqa: PLC0415
    from cryomamba_inference.engine.interface import Options, Slab  # noqa: PLC0415
    from cryomamba_inference.engine.resampling import Resampling  # noqa: PLC0415
    from cryomamba_inference.engine.streaming import Work, stream  # noqa: PLC0415
    from cryomamba_inference.engine.suitability import Route  # noqa: PLC0415
    from cryomamba_inference.engine.survey import survey  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    network = cheap_network()
    facts = SimpleNamespace(
        patch_size=PATCH,
        transpose_forward=(0, 1, 2),
        label_names={number: str(number) for number in range(1, CLASSES)},
        regions=False,
        heads=CLASSES,
        mirroring_axes=None,
    )
    configuration = {"normalization_schemes": ["NoNormalization"]}
    model: Any = SimpleNamespace(
        facts=facts,
        network=network,
        parameters=[network.state_dict()],
        device=torch.device("cpu"),
        configuration=SimpleNamespace(configuration=configuration),
        plans=SimpleNamespace(plans={"foreground_intensity_properties_per_channel": {"0": {}}}),
    )
    image = ArrayImage(np.memmap(path, dtype=np.float32, mode="r", shape=shape))
    same = Resampling(shape, shape, ("same", "same", "same"))

    def work() -> None:
        labels = np.memmap(path.with_suffix(".labels"), dtype=np.uint8, mode="w+", shape=shape)
        for event in stream(Work(model, image, survey(image), Route(same, same), Options())):
            if isinstance(event, Slab):
                labels[event.start : event.start + len(event.labels)] = event.labels

    measured(work)


def window_nnunet(path: Path, shape: tuple[int, int, int]) -> None:
    """Labels of a volume by nnU-Net's predictor."""
    import torch  # noqa: PLC0415
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.configuration_manager = SimpleNamespace(patch_size=PATCH)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=CLASSES)
    predictor.network = cheap_network()
    predictor.allowed_mirroring_axes = None
    predictor.tile_step_size = 0.5

    def work() -> None:
        data = torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape((1, *shape)))
        logits = predictor.predict_sliding_window_return_logits(data)
        labels = logits.numpy().argmax(0).astype(np.uint8)
        np.memmap(path.with_suffix(".labels"), dtype=np.uint8, mode="w+", shape=shape)[:] = labels

    measured(work)


def random_logits() -> Any:  # noqa: ANN401 - torch is imported where it is needed
    """Return float16 logits, as nnU-Net has them."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(THREADS)
    return torch.from_numpy(np.random.default_rng(0).standard_normal(LOGITS, dtype=np.float32).astype(np.float16))


def resample_ours() -> None:
    """Resample and decide, in the rows in which logits become complete."""
    from cryomamba_inference.engine.deciding import Heads  # noqa: PLC0415
    from cryomamba_inference.engine.image import whole  # noqa: PLC0415
    from cryomamba_inference.engine.resampling import Resampling  # noqa: PLC0415
    from cryomamba_inference.engine.slabs import Place, ResampledSlabs  # noqa: PLC0415
    from cryomamba_inference.engine.tiling import tile_volume  # noqa: PLC0415

    logits = random_logits()
    source: Any = LOGITS[1:]
    tiling = tile_volume(source, (32, 192, 192), (0, 1, 2), 0.5)
    place = Place(VOLUME, whole(VOLUME), tiling, Resampling(source, VOLUME, ("linear", "linear", "linear")))

    def work() -> None:
        labels = np.empty(VOLUME, np.uint8)
        slabs = ResampledSlabs(
            Heads(LOGITS[0], None, np.uint8), place, 0, probabilities=False, like=logits.new_empty(0).float()
        )
        for row, start in enumerate(tiling.starts[0]):
            final = tiling.final_after(row)
            slabs.add(start, range(source[1]), logits[:, start:final])
            for slab in slabs.slabs(final):
                labels[slab.start : slab.start + len(slab.labels)] = slab.labels

    measured(work)


def resample_nnunet() -> None:
    """Resample as nnU-Net does by default, then decide."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape  # noqa: PLC0415

    logits = random_logits()
    arguments = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    measured(
        lambda: (
            resample_data_or_seg_to_shape(logits, VOLUME, (2, 2, 2), (1, 1, 1), **arguments).argmax(0).astype(np.uint8)
        )
    )


def resample_torch() -> None:
    """Resample by nnU-Net's torch variant, then decide."""
    import torch  # noqa: PLC0415
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet  # noqa: PLC0415

    logits = random_logits()
    measured(
        lambda: (
            resample_torch_fornnunet(logits, VOLUME, (2, 2, 2), (1, 1, 1), num_threads=THREADS)
            .argmax(0)
            .to(torch.uint8)
        )
    )


def side(name: str, *arguments: object) -> tuple[float, float]:
    """Run one side in a process of its own; return its seconds and megabytes."""
    command = [sys.executable, "-P", __file__, "--side", name, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    told = subprocess.run(  # noqa: S603 - ourselves
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    seconds, megabytes = told.splitlines()[-1].split()
    return float(seconds), float(megabytes)


def line(name: str, ours: float, peer: float) -> None:
    """Print one result."""
    print(f"{name} {ours:.3g} {peer:.3g} {peer / ours:.2f}", flush=True)


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Write noise, plane by plane."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(shape[0]):
            file.write(rng.standard_normal(shape[1:], dtype=np.float32).data)


def main() -> None:
    """Print all lines, or do one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        name, *rest = arguments.side
        if rest:
            depth, height, width = (int(edge) for edge in rest[1:])
            {"window-ours": window_ours, "window-nnunet": window_nnunet}[name](Path(rest[0]), (depth, height, width))
        else:
            {"ours": resample_ours, "nnunet": resample_nnunet, "torch": resample_torch}[name]()
        return
    with tempfile.TemporaryDirectory(prefix="cryomamba-bench-") as folder:
        path = Path(folder) / "volume"
        cube = (arguments.edge, arguments.edge, arguments.edge)
        write_volume(path, cube)
        ours, peer = side("window-ours", path, *cube), side("window-nnunet", path, *cube)
        line("engine-seconds", ours[0], peer[0])
        line("engine-megabytes", ours[1], peer[1])
        grown = []
        for depth in (256, 1024):
            write_volume(path, (depth, 192, 192))
            grown.append(side("window-ours", path, depth, 192, 192)[1])
        line("engine-depth-megabytes", *grown)
    ours = side("ours")
    for name, prefix in (("nnunet", "resample"), ("torch", "resample-torch")):
        peer = side(name)
        line(f"{prefix}-seconds", ours[0], peer[0])
        line(f"{prefix}-megabytes", ours[1], peer[1])


if __name__ == "__main__":
    main()
