"""What the GPU that runs a job is doing, asked of NVML."""

import logging
import os
from collections.abc import Callable

import pynvml

from cryomamba_crds.report import GpuStats

_log = logging.getLogger(__name__)
_MIB = 1 << 20
_INTERVAL_SECONDS = 5.0
_CONTEXT = 600 << 20
"""Bytes that are taken to go to CUDA itself when a process begins to use a GPU; not measured."""


class GpuWatch:
    """Reads the GPU in use every few seconds; reads nothing where a job runs on the CPU."""

    def __init__(self, clock: Callable[[], float], *, on_gpu: bool) -> None:
        self._clock = clock
        self._on_gpu = on_gpu
        self._next = 0.0

    def poll(self) -> GpuStats | None:
        """Return fresh statistics, or None where it is not time yet."""
        if not self._on_gpu or self._clock() < self._next:
            return None
        self._next = self._clock() + _INTERVAL_SECONDS
        try:
            pynvml.nvmlInit()
            try:
                return _read(_visible_gpu())
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # No report may stop the inference, and a card that does not tell will not tell later.
            _log.warning("the GPU's state cannot be read: %s", error)
            self._on_gpu = False
            return None


def free_gpu_memory() -> int | None:
    """Return the bytes that a process may take of the first GPU that it may see; None where none can be asked."""
    try:
        pynvml.nvmlInit()
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(_visible_gpu()))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return max(0, int(memory.free) - _CONTEXT)


def _visible_gpu() -> int:
    """Return NVML's index of the first GPU that this process may see."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return int(first) if first.isdigit() else 0


def _read(index: int) -> GpuStats:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuStats(
        gpu_id=index,
        memory_used=memory.used // _MIB,
        memory_total=memory.total // _MIB,
        utilization=pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
    )
