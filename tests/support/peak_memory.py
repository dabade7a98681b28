"""Measures by how much anonymous memory grows while volumes are segmented, each in a fresh copy of an idle process.

The copies are forked from one that has imported all that is needed and computed nothing, which spares each the seconds
that imports take. It looks at them from outside, every millisecond, so that what they compute is not held up.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryomamba_crds.task import VoxelSize

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_EVERY_SECONDS = 0.001


@dataclass(frozen=True)
class Segmenting:
    """A volume and how it is segmented."""

    folder: str
    """An nnU-Net result folder."""
    volume: str
    """File of an array [z, y, x]."""
    options: dict[str, Any]
    voxel_size_nm: VoxelSize | None = None


def peaks(segmentings: Sequence[Segmenting]) -> list[int]:
    """Return the growth at the peak of each, in bytes, from before its model is loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "support.peak_memory"],
        input=json.dumps([asdict(one) for one in segmentings]),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    grown: list[int] = json.loads(done.stdout)
    return grown


def growth_of(work: Callable[[], object]) -> int:
    """Return by how many bytes the anonymous memory of a fork of this process grows at the peak of some work."""
    begin, go = os.pipe()
    child = os.fork()
    if child == 0:
        failed = 1
        with contextlib.suppress(BaseException):
            os.read(begin, 1)
            work()
            failed = 0
        os._exit(failed)
    before = peak = _anonymous_bytes(child)
    os.write(go, b"!")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        peak = max(peak, _anonymous_bytes(child))
        time.sleep(_LOOK_EVERY_SECONDS)
    os.close(begin)
    os.close(go)
    if status:
        raise ChildProcessError(f"the work that was to be measured failed ({status})")
    return peak - before


def _anonymous_bytes(process: int) -> int:
    fields = Path(f"/proc/{process}/statm").read_text().split()
    # A process that has ended has no memory.
    return (int(fields[1]) - int(fields[2])) * _PAGE


def _main() -> None:
    import numpy as np
    import torch

    from cryomamba_inference.engine import Options
    from cryomamba_inference.engine.segmenting import segment
    from cryomamba_inference.model import load_model

    def work(one: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        volume = np.load(one["volume"], mmap_mode="r")
        model = load_model(Path(one["folder"]), "all", torch.device("cpu"))
        for _ in segment(model, volume, voxel_size_nm=one["voxel_size_nm"], options=Options(**one["options"])):
            pass

    print(json.dumps([growth_of(lambda one=one: work(one)) for one in json.load(sys.stdin)]))


if __name__ == "__main__":
    _main()
