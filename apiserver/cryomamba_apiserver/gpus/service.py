"""Asks NVML, the driver's own library, about this machine's GPUs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pynvml

_log = logging.getLogger(__name__)
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """What NVML says of one GPU: bytes, percent, °C, W."""

    index: int
    name: str
    memory_total: int
    memory_free: int
    memory_used: int
    compute_capability: str
    utilization: int | None
    temperature: int | None
    power_usage: int | None
    power_limit: int | None
    """The last four are None on cards that do not tell: laptops, MIG."""


@dataclass(frozen=True)
class GpuInventory:
    """This machine's GPUs; the version is None where there is no driver."""

    cuda_version: str | None
    gpus: tuple[Gpu, ...]


def read_gpus() -> GpuInventory:
    """Return this machine's GPUs; a machine without a driver has none, which is no error."""
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return GpuInventory(None, ())
    except pynvml.NVMLError as error:
        _log.warning("the NVIDIA driver does not answer, so no GPU is used: %s", error)
        return GpuInventory(None, ())
    try:
        version = pynvml.nvmlSystemGetCudaDriverVersion()
        return GpuInventory(
            cuda_version=f"{version // 1000}.{version % 1000 // 10}",
            gpus=tuple(_read(index) for index in range(pynvml.nvmlDeviceGetCount())),
        )
    finally:
        pynvml.nvmlShutdown()


def _read(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total=memory.total,
        memory_free=memory.free,
        memory_used=memory.used,
        compute_capability=f"{major}.{minor}",
        utilization=_told(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        temperature=_told(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        power_usage=_told(lambda: pynvml.nvmlDeviceGetPowerUsage(handle) // 1000),
        power_limit=_told(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) // 1000),
    )


def _told(reading: Callable[[], int]) -> int | None:
    try:
        return reading()
    except pynvml.NVMLError_NotSupported:
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


def mib(count: int) -> int:
    """Return bytes as whole MiB."""
    return count // _MIB
