"""Asks NVML, the driver's own library, about this machine's GPUs."""

from dataclasses import dataclass

import pynvml

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
    utilization: int
    temperature: int
    power_usage: int
    power_limit: int


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
        utilization=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        temperature=pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        power_usage=pynvml.nvmlDeviceGetPowerUsage(handle) // 1000,
        power_limit=pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) // 1000,
    )


def mib(count: int) -> int:
    """Return bytes as whole MiB."""
    return count // _MIB
