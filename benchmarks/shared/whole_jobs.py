"""Whole jobs of the runner on a store that is a folder: prepared, run as processes, timed and weighed."""

import contextlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryomamba_crds import keys
from cryomamba_crds.model_card import ModelCard
from cryomamba_crds.model_gate import pack_model
from cryomamba_crds.task import DirectoryStore, InferenceParams, ModelReference, Task

_DEMO = files("cryomamba_apiserver") / "models" / "bundled" / "demo"
_UID = "benchmark"
_VOLUME = keys.file_volume("file_benchmark")
_POLL_SECONDS = 0.2
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    seconds: float
    megabytes: float
    """At the peak: proportional set size (PSS) of all of them, or the anonymous memory of the first one."""


def unpack_demo_model(folder: Path) -> ModelCard:
    """Unpack the model that every server has, an nnU-Net result folder; return its card."""
    with as_file(_DEMO / "model.zip") as archive, zipfile.ZipFile(archive) as members:
        members.extractall(folder)
    return ModelCard.model_validate_json((_DEMO / "model.json").read_bytes())


def write_light_model(folder: Path, patch: int) -> ModelCard:
    """Write a model with the demo model's labels and random weights whose network costs next to nothing."""
    import torch  # noqa: PLC0415 - takes seconds, and not every benchmark needs it
    from dynamic_network_architectures.architectures.unet import PlainConvUNet  # noqa: PLC0415

    card = unpack_demo_model(folder)
    plans = json.loads((folder / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"] = [patch] * 3
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments.update(
        n_stages=2,
        features_per_stage=[2, 4],
        kernel_sizes=[[1, 1, 1]] * 2,
        strides=[[1, 1, 1], [2, 2, 2]],
        n_conv_per_stage=[1, 1],
        n_conv_per_stage_decoder=[1],
    )
    (folder / "plans.json").write_text(json.dumps(plans))
    layers = {
        "conv_op": torch.nn.Conv3d,
        "norm_op": torch.nn.InstanceNorm3d,
        "nonlin": torch.nn.LeakyReLU,
    }
    torch.manual_seed(0)
    network = PlainConvUNet(1, num_classes=len(card.labels) + 1, **{**arguments, **layers}, deep_supervision=False)
    checkpoint = folder / "fold_all" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)  # our own
    content["network_weights"] = network.state_dict()
    content["init_args"]["plans"] = plans
    torch.save(content, checkpoint)
    return card


def smooth_noise(shape: tuple[int, int, int], sigma: float = 3) -> Iterator[NDArray[np.float32]]:
    """Yield planes [y, x] of a volume whose densities change over some voxels along every axis."""
    rng = np.random.default_rng(0)
    one, other = (gaussian_filter(rng.standard_normal(shape[1:]), sigma) for _ in range(2))
    for z in range(shape[0]):
        angle = z / (2 * sigma)
        yield (np.cos(angle) * one + np.sin(angle) * other).astype(np.float32)


def prepare_job(folder: Path, model: Path, card: ModelCard, shape: tuple[int, int, int], **params: object) -> Path:
    """Write a store with a volume of smooth noise and a model, and a task for them; return the task's file."""
    store = folder / "store"
    source = store / _VOLUME
    source.parent.mkdir(parents=True)
    with mrcfile.new_mmap(source, shape, mrc_mode=2) as mrc:
        mrc.voxel_size = 13.48
        for z, plane in enumerate(smooth_noise(shape)):
            mrc.data[z] = plane
    packed = folder / "model.zip"
    card = card.model_copy(update={"digest": pack_model(model, packed)})
    archive = store / keys.model_archive("benchmark", card.digest)
    archive.parent.mkdir(parents=True)
    packed.rename(archive)
    task = Task(
        job_id="job_benchmark",
        job_uid=_UID,
        attempt=1,
        input_key=_VOLUME,
        model=ModelReference(
            name="benchmark", key=str(archive.relative_to(store)), card=card, cache=str(folder / "cache")
        ),
        params=InferenceParams.model_validate(params),
        store=DirectoryStore(root=str(store)),
        output_prefix=keys.attempt_prefix(_UID, 1),
        device="cpu",
    )
    path = folder / "task.json"
    path.write_text(task.model_dump_json())
    return path


def labels_of(task: Path) -> NDArray[np.integer]:
    """Return the labels [z, y, x] that a job has stored.

    Raises:
        FileNotFoundError: It has not come to its manifest.
    """
    read = Task.model_validate_json(task.read_text())
    store = Path(read.store.root) if isinstance(read.store, DirectoryStore) else Path()
    manifest = json.loads((store / keys.job_manifest(_UID)).read_text())
    labels: NDArray[np.integer] = mrcfile.read(store / manifest["artifacts"][0]["key"])
    return labels


def runner(task: Path) -> list[str]:
    """Return the command that does a task."""
    return [sys.executable, "-P", "-m", "cryomamba_inference", str(task)]


def run_weighed(command: Sequence[str], threads: int, *, group: Path | None = None, log: Path) -> Cost:
    """Run a command to its end.

    Args:
        command: With its arguments.
        threads: That it may use.
        group: A memory control group to run it in; the memory that is told is then the anonymous one of the process.
        log: Where its output goes.

    Raises:
        subprocess.CalledProcessError: It failed, or was killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if group is not None:
        # A shell that enters the group and becomes the command.
        command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"', *command]
    start = time.perf_counter()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:  # noqa: S603 - ourselves
        peak = 0.0
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(_POLL_SECONDS)
                break
            peak = max(peak, pss_megabytes(process.pid) if group is None else anonymous_megabytes(process.pid))
    seconds = time.perf_counter() - start
    if code:
        raise subprocess.CalledProcessError(code, list(command), log.read_bytes()[-3000:])
    return Cost(seconds, peak)


def idle_megabytes(imports: str) -> float:
    """Return the proportional set size of a process that has imported some modules and waits."""
    program = f"import {imports}; print('imported', flush=True); input()"
    with subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("a process without pipes")
        while process.stdout.readline() != b"imported\n":
            if process.poll() is not None:
                raise RuntimeError(f"import {imports} failed")
        idle = pss_megabytes(process.pid)
        process.stdin.write(b"\n")
        process.stdin.close()
        return idle


def pss_megabytes(pid: int) -> float:
    """Return the proportional set size of a process and its descendants; those that have ended count nothing."""
    total, processes = 0.0, [pid]
    while processes:
        folder = Path("/proc") / str(processes.pop())
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            total += _field(folder / "smaps_rollup", "Pss")
            for children in folder.glob("task/*/children"):
                processes += [int(child) for child in children.read_text().split()]
    return total


def anonymous_megabytes(pid: int) -> float:
    """Return the anonymous memory of a process."""
    with contextlib.suppress(OSError):
        return _field(Path("/proc") / str(pid) / "status", "RssAnon")
    return 0.0


def _field(file: Path, name: str) -> float:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """Make a memory control group, of version 1 or 2, and remove it.

    Args:
        limit: Bytes that its processes may take, page cache and swap included.

    Raises:
        OSError: None can be made here.
    """
    first = _CGROUPS / "memory"
    parent, names = (
        (first, ("memory.limit_in_bytes",)) if first.is_dir() else (_CGROUPS, ("memory.max", "memory.swap.max"))
    )
    group = parent / f"cryomamba-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        for name, value in zip(names, (limit, 0), strict=False):
            (group / name).write_text(str(value))
        yield group
    finally:
        group.rmdir()
