"""How much at once, and where: what is given up, step by step, until a volume fits into memory."""

import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.model_gate import ModelFacts
from cryomamba_inference.engine.image import Shape
from cryomamba_inference.engine.interface import Options
from cryomamba_inference.engine.planning import Outlook, Setting
from cryomamba_inference.engine.tiling import mirrorings

_FEW_FEATURES = 16
_LEAST_CROP = 10


@dataclass(frozen=True)
class Free:
    """Bytes that may be taken; None where it is unknown, which refuses nothing."""

    host: int | None
    """Main memory."""
    device: int | None
    """The GPU's."""


@dataclass(frozen=True)
class Fit:
    """What a volume is segmented with."""

    setting: Setting
    outlook: Outlook
    steps: tuple[str, ...]
    """What was given up beforehand, in words."""


def best_setting(
    facts: ModelFacts, configuration: Mapping[str, Any], options: Options, device: Literal["cpu", "cuda"], folds: int
) -> Setting:
    """Return how a volume is best segmented where memory is no matter.

    A rule and not a timed trial, since the last bits of the result depend on the batch: two runs must give the same.
    Measured on two cores: with 4 to 16 features a pass in a batch of two takes half the time or less, as torch then
    leaves its slow path for single inputs; with 32 it takes longer. On a GPU all flips of a tile go at once.

    Args:
        facts: The model's.
        configuration: The plans' entry for it.
        options: How it is segmented.
        device: Where.
        folds: How many.
    """
    if device == "cuda":
        return Setting(device, folds, len(mirrorings(facts.mirroring_axes if options.mirroring else None)))
    few = int(configuration["architecture"]["arch_kwargs"]["features_per_stage"][0]) <= _FEW_FEATURES
    return Setting(device, folds, 2 if few else 1)


def next_step(setting: Setting, *, cpu_fallback: bool) -> tuple[Setting, str] | None:
    """Return what is given up next for memory, and that in words; None where nothing is left to give up.

    Passes that go at once are halved until it is one; then tiles are summed in main memory; then the network moves to
    the CPU, if the model allows that.
    """
    if setting.batch > 1:
        less = setting.batch // 2
        return replace(setting, batch=less), f"{less} instead of {setting.batch} passes at once"
    if setting.device == "cuda" and not setting.sums_on_host:
        return replace(setting, sums_on_host=True), "sums in main memory"
    if setting.device == "cuda" and cpu_fallback:
        return replace(setting, device="cpu", sums_on_host=False), "the network on the CPU"
    return None


def fit(
    foreseen: Callable[[Shape, Setting], Outlook], shape: Shape, setting: Setting, free: Free, *, cpu_fallback: bool
) -> Fit:
    """Give up what has to be given up for a volume to fit, or refuse it.

    Args:
        foreseen: Tells what segmenting a volume of some shape, [z, y, x], takes in a setting.
        shape: The volume's.
        setting: The best one.
        free: What there is.
        cpu_fallback: Whether the model allows the CPU where the GPU is too small.

    Raises:
        FailureError: OUT_OF_MEMORY, with what is needed, what is free, and what would fit.
    """
    outlook = foreseen(shape, setting)
    steps: tuple[str, ...] = ()
    while setting.device == "cuda" and free.device is not None and outlook.memory.device_bytes > free.device:
        step = next_step(setting, cpu_fallback=cpu_fallback)
        if step is None:
            raise _device_too_small(outlook, free.device, foreseen(shape, replace(setting, device="cpu")))
        setting, words = step
        outlook, steps = foreseen(shape, setting), (*steps, words)
    if free.host is not None and outlook.memory.host_bytes > free.host:
        raise _host_too_small(lambda cropped: foreseen(cropped, setting), shape, free.host)
    return Fit(setting, outlook, steps)


def _host_too_small(foreseen: Callable[[Shape], Outlook], shape: Shape, free: int) -> FailureError:
    outlook = foreseen(shape)
    plan = outlook.memory
    depth, height, width = shape

    def cropped(percent: int) -> Shape:
        if outlook.route is None:
            return depth * percent // 100, height, width
        # What the streaming engine holds does not grow with the planes.
        return depth, height * percent // 100, width * percent // 100

    percent = _largest(lambda share: foreseen(cropped(share)).memory.host_bytes <= free)
    way = crop = ""
    if outlook.route is None:
        way = f" by nnU-Net's own predictor, since the model {outlook.because},"
        crop = f"A crop to {cropped(percent)[0]} of the {depth} Z planes would fit. " if percent else ""
    elif percent:
        crop = f"A crop to {percent} % along X and Y would fit. "
    return FailureError(
        FailureCode.OUT_OF_MEMORY,
        f"memory: segmenting this volume{way} takes about {plan.host_bytes / 1e9:.1f} GB of main memory and "
        f"{free / 1e9:.1f} GB are free",
        hint=f"{crop}Bin or crop the volume, use a machine with more memory, or, if the voxel size makes the volume "
        "larger than it is, the spacing policy 'ignore'.",
        details={
            "needed_bytes": plan.host_bytes,
            "available_bytes": free,
            "parts": plan.host,
            "network_shape": list(outlook.seen),
        },
    )


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the most percent that fit; 0 where less than a tenth does, which helps nobody."""
    shares = range(_LEAST_CROP, 100)
    fitting = bisect.bisect_left(shares, 1, key=lambda share: not fits(share))
    return shares[fitting - 1] if fitting else 0


def _device_too_small(outlook: Outlook, free: int, on_cpu: Outlook) -> FailureError:
    plan = outlook.memory
    return FailureError(
        FailureCode.OUT_OF_MEMORY,
        f"memory: the model takes about {plan.device_bytes / 1e9:.1f} GB of the GPU's memory, with one pass at once "
        f"and tiles summed in main memory, and {free / 1e9:.1f} GB are free",
        hint="Stop what else runs on the GPU, use one with more memory, or a model with a smaller patch; a smaller "
        "volume makes no difference. On the CPU it would take about "
        f"{on_cpu.memory.host_bytes / 1e9:.1f} GB of main memory.",
        details={"needed_bytes": plan.device_bytes, "available_bytes": free, "parts": plan.device},
    )
