"""Asks NVML, the driver's own library, about this machine's GPUs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pynvml

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MIB = 1 << 20
# MIG, laptops, cards that share the machine's memory, containers that may not ask, drivers older than the question.
_NOT_TOLD = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_NoData,
    pynvml.NVMLError_NotReady,
    pynvml.NVMLError_FunctionNotFound,
)


@dataclass(frozen=True)
class Gpu:
    """What NVML says of one GPU: bytes, percent, °C, W. None is what the card does not tell."""

    index: int
    name: str
    memory_total: int | None
    memory_free: int | None
    memory_used: int | None
    compute_capability: str
    utilization: int | None
    temperature: int | None
    power_usage: int | None
    power_limit: int | None


@dataclass(frozen=True)
class GpuInventory:
    """A machine's GPUs; the version is None where there is no driver."""

    cuda_version: str | None
    gpus: tuple[Gpu, ...]
    problems: tuple[str, ...] = ()
    """Why the driver, or a GPU that it has, could not be asked."""


def read_gpus() -> GpuInventory:
    """Return this machine's GPUs; a machine without a driver has none, which is no error.

    Takes as long as the driver does, which may be for ever.
    """
    try:
        pynvml.nvmlInit()
        try:
            return _read_all()
        finally:
            # Not kept open: as long as somebody uses them, GPUs can be neither reset nor partitioned.
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return GpuInventory(None, ())
    except pynvml.NVMLError as error:
        return _unreadable(error)


def _unreadable(error: pynvml.NVMLError) -> GpuInventory:
    _log.warning("the NVIDIA driver does not answer, so no GPU is used: %s", error)
    return GpuInventory(None, (), (f"the NVIDIA driver does not answer: {error}",))


def _read_all() -> GpuInventory:
    version = pynvml.nvmlSystemGetCudaDriverVersion()
    gpus, problems = [], []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_read(index))
        except pynvml.NVMLError as error:
            # One that has fallen off the bus does not take the others with it.
            _log.warning("GPU %d does not answer, so it is not used: %s", index, error)
            problems.append(f"GPU {index} does not answer: {error}")
    return GpuInventory(f"{version // 1000}.{version % 1000 // 10}", tuple(gpus), tuple(problems))


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total=None if memory is None else memory.total,
        memory_free=None if memory is None else memory.free,
        memory_used=None if memory is None else memory.used,
        compute_capability=f"{major}.{minor}",
        utilization=_told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        temperature=_told(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power_usage=_told(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) // 1000),
        power_limit=_told(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) // 1000),
    )


def _told(reading: Callable[[], _T]) -> _T | None:
    try:
        return reading()
    except _NOT_TOLD:
        return None


def usable_gpus(inventory: GpuInventory, cuda_visible_devices: str | None) -> tuple[int, ...]:
    """Return the indices of the GPUs that jobs may use: those that whoever started the server left visible.

    Args:
        inventory: What there is.
        cuda_visible_devices: The environment variable, None where it is not set: indices with commas between them.

    Raises:
        ValueError: It names GPUs in another way; the message says so.
    """
    there = tuple(gpu.index for gpu in inventory.gpus)
    if cuda_visible_devices is None:
        return there
    names = [name.strip() for name in cuda_visible_devices.split(",") if name.strip()]
    if not all(name.isdecimal() or name == "-1" for name in names):
        raise ValueError(f"CUDA_VISIBLE_DEVICES is {cuda_visible_devices!r}; give indices such as 0,1")
    return tuple(index for index in there if str(index) in names)


def mib(count: int | None) -> int | None:
    """Return bytes as whole MiB, None as None."""
    return None if count is None else count // _MIB
