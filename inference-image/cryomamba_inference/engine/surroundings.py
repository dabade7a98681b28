"""What the last bits of a result depend on, beside model, volume and options; and what was taken for it."""

import importlib.metadata
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cryomamba_inference.engine.interface import Tuning


def surroundings(device: torch.device, tuning: Tuning) -> dict[str, Any]:
    """Return versions, device, threads and tuning: where these are equal, equal work gives equal bytes."""
    on_gpu = device.type == "cuda"
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "versions": {name: importlib.metadata.version(name) for name in ("cryomamba", "nnunetv2", "numpy", "torch")},
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "processor": processor if on_gpu else f"{processor} {_processor_model()}".strip(),
        "threads": torch.get_num_threads(),
        "tuning": asdict(tuning),
    }


def _processor_model(information: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, empty where it is not told: the kernels of a network go by its vendor and caches."""
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def peak_device_memory(device: torch.device) -> int | None:
    """Return the most bytes that torch has held on a GPU in this process; None for the CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
