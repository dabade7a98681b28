"""The streaming engine against nnU-Net's own code on two cores (run with `python -P`, as `make bench` does).

Prints lines ``name ours peer ratio``; a ratio above 1 is in our favour. Each side runs in a process of its own, in turn
with the other; a ratio is the median of the rounds'. Name some lines to have these only, with those that come of the
same runs.

- ``engine-seconds``: all but the network: a sliding window of patch 128 and step 0.5 over 512 cubed, four classes and a
  network that costs next to nothing, from a file to labels; against nnU-Net's `predict_sliding_window_return_logits`.
  ``engine-network-seconds`` is what the network took on either side and is left out there. ``engine-megabytes``: by how
  much anonymous memory (RssAnon) grew at the peak. ``engine-processor-seconds``: as the first, in seconds of all
  processors, which a busy machine changes less; resampling has such lines too.
- ``engine-depth-megabytes``: the same for ours at Z = 256 as ``ours``, at Z = 1024 as ``peer``.
- ``resample-seconds``, ``resample-megabytes``: logits of sixteen classes from 96 x 192 x 192 to twice that, and the
  decision; against nnU-Net's default resampling, and (``resample-torch-...``) against `resample_torch_fornnunet`.
- ``whole-job-seconds``: a job with the demo model on 128 x 256 x 256, from the start of the runner's process to the
  manifest; against nnU-Net's `predict_from_files` with one worker a stage. Once: it takes long enough.
  ``whole-job-megabytes``: by how much the tree of processes (PSS) grew at the peak over one that has done its imports.
- ``limited-job-megabytes``: a 2 GB float32 MRC by the runner in a memory control group of 1.5 GB, which ``peer`` is:
  there is a line only if it finishes; ``ours`` is its anonymous memory. Step 1, no mirroring.

``--edge N`` makes the first volume smaller, for a try; ``--rounds N`` tells how often.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# `-P` keeps this folder, whose names are those of modules of Python, out of the path.
sys.path.append(str(Path(__file__).parent / "shared"))

import numpy as np
import whole_jobs
from volumes import write_volume

THREADS = 2
CLASSES = 4
PATCH = (128, 128, 128)
LOGITS = (16, 96, 192, 192)
VOLUME = (192, 384, 384)
DEMO_SHAPE = (128, 256, 256)
LIMITED_SHAPE = (2048, 512, 512)
LIMIT = 1_500_000_000
IDLE_PEER = "nnunetv2.inference.predict_from_raw_data"
LARGEST_DIFFERENCE = 0.01
"""Of the labels of a whole job, in part of the voxels: nnU-Net sums in float16."""


def anonymous_bytes() -> int:
    """Return this process's anonymous memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


class Stopwatch:
    """Seconds within the network, by the clock and of the process on all processors."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.processor = 0.0


def measured(work: Callable[[], object], network: Stopwatch | None = None) -> None:
    """Do some work and print what `Side` says of it."""
    before, peak, done = anonymous_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, used = time.perf_counter(), time.process_time()
    work()
    seconds, processor = time.perf_counter() - start, time.process_time() - used
    done.set()
    watcher.join()
    network = network or Stopwatch()
    print(seconds, (peak[0] - before) / 1e6, processor, network.seconds, network.processor)


def cheap_network(stopwatch: Stopwatch) -> Any:  # noqa: ANN401 - torch is imported where it is needed
    """Return a network of one multiplication and one addition."""
    import torch  # noqa: PLC0415

    class Cheap(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            shape = (1, CLASSES, 1, 1, 1)
            self.slope = torch.nn.Parameter(torch.linspace(-1, 1, CLASSES).view(shape))
            self.offset = torch.nn.Parameter(torch.linspace(0, 1, CLASSES).view(shape))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            start, used = time.perf_counter(), time.process_time()
            output = torch.addcmul(self.offset, image, self.slope)
            stopwatch.seconds += time.perf_counter() - start
            stopwatch.processor += time.process_time() - used
            return output

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
    stopwatch = Stopwatch()
    network = cheap_network(stopwatch)
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

    measured(work, stopwatch)


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
    stopwatch = Stopwatch()
    predictor.network = cheap_network(stopwatch)
    predictor.allowed_mirroring_axes = None
    predictor.tile_step_size = 0.5

    def work() -> None:
        data = torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape((1, *shape)))
        logits = predictor.predict_sliding_window_return_logits(data)
        labels = logits.numpy().argmax(0).astype(np.uint8)
        np.memmap(path.with_suffix(".labels"), dtype=np.uint8, mode="w+", shape=shape)[:] = labels

    measured(work, stopwatch)


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
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet  # noqa: PLC0415

    logits = random_logits()
    measured(
        lambda: (
            resample_torch_fornnunet(logits, VOLUME, (2, 2, 2), (1, 1, 1), num_threads=THREADS)
            .numpy()  # as nnU-Net does, since it is faster than torch
            .argmax(0)
            .astype(np.uint8)
        )
    )


@dataclass(frozen=True)
class Side:
    """What one run of one side took."""

    seconds: float
    megabytes: float
    processor: float = 0
    """Seconds of the process on all processors, which other programs change less than those by the clock."""
    network: float = 0
    """Of the seconds, those in the network; then of the processor's."""
    network_processor: float = 0

    @property
    def outside(self) -> float:
        """Seconds, without those of the network."""
        return self.seconds - self.network


def side(name: str, *arguments: object) -> Side:
    """Run one side in a process of its own."""
    command = [sys.executable, "-P", __file__, "--side", name, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    told = subprocess.run(  # noqa: S603 - ourselves
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    return Side(*(float(number) for number in told.splitlines()[-1].split()))


def line(name: str, rounds: list[tuple[Side, Side]], figure: Callable[[Side], float]) -> None:
    """Print one result of rounds of both sides, ours first."""
    pairs = [(figure(ours), figure(peer)) for ours, peer in rounds]
    ours, peer = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(other / own for own, other in pairs)
    print(f"{name} {ours:.3g} {peer:.3g} {ratio:.2f}", flush=True)


def window_lines(folder: Path, arguments: argparse.Namespace) -> None:
    """Compare sliding windows."""
    path, cube = folder / "volume", (arguments.edge,) * 3
    write_volume(path, cube)
    rounds = [(side("window-ours", path, *cube), side("window-nnunet", path, *cube)) for _ in range(arguments.rounds)]
    line("engine-seconds", rounds, lambda run: run.outside)
    line("engine-processor-seconds", rounds, lambda run: run.processor - run.network_processor)
    line("engine-network-seconds", rounds, lambda run: run.network)
    line("engine-megabytes", rounds, lambda run: run.megabytes)


def depth_line(folder: Path, _: argparse.Namespace) -> None:
    """Compare a shallow volume with a deep one."""
    path, grown = folder / "volume", []
    for depth in (256, 1024):
        write_volume(path, (depth, 192, 192))
        grown.append(side("window-ours", path, depth, 192, 192))
    line("engine-depth-megabytes", [(grown[0], grown[1])], lambda run: run.megabytes)


def resampling_lines(_: Path, arguments: argparse.Namespace) -> None:
    """Compare ways to resample logits and to decide."""
    runs = [(side("ours"), side("nnunet"), side("torch")) for _ in range(arguments.rounds)]
    for index, prefix in ((1, "resample"), (2, "resample-torch")):
        rounds = [(run[0], run[index]) for run in runs]
        line(f"{prefix}-seconds", rounds, lambda run: run.seconds)
        line(f"{prefix}-processor-seconds", rounds, lambda run: run.processor)
        line(f"{prefix}-megabytes", rounds, lambda run: run.megabytes)


def whole_job_lines(folder: Path, _: argparse.Namespace) -> None:
    """Compare whole jobs, and what comes of them."""
    import nibabel as nib  # noqa: PLC0415 - seconds to import, for this line only

    model, source, target = folder / "model", folder / "volume.nii.gz", folder / "labels.nii.gz"
    card = whole_jobs.unpack_demo_model(model)
    task = whole_jobs.prepare_job(folder, model, card, DEMO_SHAPE)
    volume = np.stack(list(whole_jobs.smooth_noise(DEMO_SHAPE)))
    nib.save(nib.Nifti1Image(volume.T, np.eye(4)), source)
    idle = [whole_jobs.idle_megabytes(name) for name in ("cryomamba_inference.run", IDLE_PEER)]
    ours = whole_jobs.run_weighed(whole_jobs.runner(task), THREADS, log=folder / "ours.log")
    job = Path(__file__).parent / "peers" / "nnunet_job.py"
    command = [sys.executable, "-P", *map(str, (job, model, "all", source, target, THREADS))]
    peer = whole_jobs.run_weighed(command, THREADS, log=folder / "peer.log")
    differing = float((whole_jobs.labels_of(task) != np.asarray(nib.load(target).dataobj).T).mean())
    if differing > LARGEST_DIFFERENCE:
        raise RuntimeError(f"{differing:.2%} of the labels differ: the two did not do the same")
    rounds = [(Side(ours.seconds, ours.megabytes - idle[0]), Side(peer.seconds, peer.megabytes - idle[1]))]
    line("whole-job-seconds", rounds, lambda run: run.seconds)
    line("whole-job-megabytes", rounds, lambda run: run.megabytes)


def limited_job_line(folder: Path, _: argparse.Namespace) -> None:
    """Do a job with less memory than its volume would take."""
    model, log = folder / "model", folder / "log"
    card = whole_jobs.write_light_model(model, PATCH[0])
    task = whole_jobs.prepare_job(folder, model, card, LIMITED_SHAPE, step_size=1.0, mirroring=False)
    try:
        with whole_jobs.memory_group(LIMIT) as group:
            cost = whole_jobs.run_weighed(whole_jobs.runner(task), THREADS, group=group, log=log)
    except OSError as error:
        print(f"limited-job-megabytes: no memory control group can be made here ({error})", file=sys.stderr)
        return
    whole_jobs.labels_of(task)
    finished = Side(cost.seconds, cost.megabytes), Side(0, LIMIT / 1e6)
    line("limited-job-megabytes", [finished], lambda run: run.megabytes)


LINES: dict[Callable[[Path, argparse.Namespace], None], tuple[str, ...]] = {
    window_lines: ("engine-seconds", "engine-processor-seconds", "engine-network-seconds", "engine-megabytes"),
    depth_line: ("engine-depth-megabytes",),
    resampling_lines: tuple(
        f"{prefix}-{what}"
        for prefix in ("resample", "resample-torch")
        for what in ("seconds", "processor-seconds", "megabytes")
    ),
    limited_job_line: ("limited-job-megabytes",),
    whole_job_lines: ("whole-job-seconds", "whole-job-megabytes"),
}


def do_side(name: str, *rest: str) -> None:
    """Do one side in this process."""
    if rest:
        depth, height, width = (int(edge) for edge in rest[1:])
        {"window-ours": window_ours, "window-nnunet": window_nnunet}[name](Path(rest[0]), (depth, height, width))
    else:
        {"ours": resample_ours, "nnunet": resample_nnunet, "torch": resample_torch}[name]()


def main() -> None:
    """Print the lines that are asked for, or do one side."""
    names = [name for lines in LINES.values() for name in lines]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", metavar="LINE", help="all of them, if none is named")
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        do_side(*arguments.side)
        return
    if unknown := set(arguments.lines) - set(names):
        parser.error(f"no such line: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for measure, lines in LINES.items():
        if not arguments.lines or set(arguments.lines) & set(lines):
            with tempfile.TemporaryDirectory(prefix="cryomamba-bench-") as folder:
                measure(Path(folder), arguments)


if __name__ == "__main__":
    main()
