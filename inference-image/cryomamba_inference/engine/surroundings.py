"""What the last bits of a result depend on, beside model, volume and options; and what was taken for it."""

import importlib.metadata
import platform
from dataclasses import asdict
from typing import Any

import torch

from cryomamba_inference.engine.interface import Tuning


def surroundings(device: torch.device, tuning: Tuning) -> dict[str, Any]:
    """Return versions, device, threads and tuning: where these are equal, equal work gives equal bytes."""
    on_gpu = device.type == "cuda"
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("cryomamba", "nnunetv2", "numpy", "torch")},
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "tuning": asdict(tuning),
    }


def peak_device_memory(device: torch.device) -> int | None:
    """Return the most bytes that torch has held on a GPU in this process; None for the CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
