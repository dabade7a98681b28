"""How much host memory nnU-Net's predictor takes for a volume, and how much there is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_MARGIN = 1.15


@dataclass(frozen=True)
class Workload:
    """What memory depends on. Shapes are in one axis order, whichever."""

    input_shape: Sequence[int]
    network_shape: Sequence[int]
    """After resampling, padded to the patch."""
    resampled: bool
    heads: int
    folds: int
    regions: bool
    probabilities: bool
    channels: int = 1
    network_bytes: int = 0
    """What one pass of the network takes for its weights and activations."""


def host_memory_needed(load: Workload) -> int:
    """Estimate the peak of nnU-Net's predictor in bytes of host memory, the input array not included.

    Between 1.0 and 2.2 times of what was measured as RssAnon on volumes of 3 to 6 million voxels.

    Bytes a voxel of the arrays that live at once in each of its three stages, from reading nnU-Net 2.8.1
    (`run_case_npy`, `predict_logits_from_preprocessed_data`, `convert_predicted_logits_to_segmentation...`).
    """
    n = math.prod(load.input_shape)
    m = math.prod(load.network_shape)
    # The copy, the non-zero mask and its filling, the temporary of the standard deviation; resampling is in float64.
    preprocess = load.channels * (12 * n + (16 * n + 24 * m if load.resampled else 0))
    # The network's input (twice where it is padded), float16 logits and weights, the search for infinities.
    infer = (8 * load.channels + 2) * m + load.heads * m * (5 + (2 if load.folds > 1 else 0))
    export = 2 * load.heads * m + (8 * load.heads * m + 2 * load.heads * n + 16 * (m + n) if load.resampled else 0)
    decide = 9 * n + load.heads * n * (2 + (8 if load.regions else 0) + (14 if load.probabilities else 0))
    return int(_MARGIN * max(preprocess, infer, export + decide)) + load.network_bytes


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of main memory that this process may still take; None where the system does not say.

    The least of what the machine has available and what the control group (version 1 or 2) leaves; page cache that
    can be dropped counts as free.
    """
    proc, cgroup = root / "proc", root / "sys" / "fs" / "cgroup"
    candidates = [_machine(proc / "meminfo")]
    candidates.append(_group(cgroup, "memory.max", "memory.current", "inactive_file"))
    candidates.append(
        _group(cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    known = [value for value in candidates if value is not None]
    return min(known) if known else None


def peak_resident_memory(status: Path = Path("/proc/self/status")) -> int:
    """Return the most bytes that were resident of this process, since it became this program.

    Args:
        status: As proc(5) describes it. `getrusage` would count what the parent had before.

    Raises:
        OSError: The system has none.
    """
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(fields["VmHWM"].split()[0]) * 1024


def _machine(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _group(folder: Path, limit: str, usage: str, droppable: str) -> int | None:
    files = [folder / limit, folder / usage, folder / "memory.stat"]
    if not all(file.is_file() for file in files):
        return None
    most, used, statistics = (file.read_text().strip() for file in files)
    if not most.isdigit():
        return None
    cached = dict(line.split(" ", 1) for line in statistics.splitlines() if " " in line).get(droppable, "0")
    return max(0, int(most) - int(used) + int(cached))
