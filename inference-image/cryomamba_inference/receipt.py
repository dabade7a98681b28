"""`receipt.json`: what a result was made from and how, so that it can be made again and explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cryomamba_crds.report import STEPS
from cryomamba_crds.task import InferenceParams, Task
from cryomamba_inference.assemble import ResultFile
from cryomamba_inference.checkpoint import Restored
from cryomamba_inference.engine import Segmentation
from cryomamba_inference.engine.memory import peak_resident_memory

RECEIPT_NAME = "receipt.json"


class Receipt(BaseModel):
    """The artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_id: str
    attempt: int
    input_key: str
    input_sha256: str
    model: str
    model_digest: str
    folds: list[str]
    """Those that were averaged."""
    params: InferenceParams
    spacing_policy: str
    """The one that held: the job's, or the model's."""
    engine: Literal["streaming", "nnunet"]
    tiles: int
    """Over all folds."""
    passes_at_once: int
    resumed_from_plane: int
    """Planes before this one were done by an earlier attempt."""
    started_over_because: list[str]
    """What differed from an earlier attempt whose planes were done again."""
    given_up_for_memory: list[str]
    """By this attempt and those that it goes on from."""
    surroundings: dict[str, Any]
    """Versions, device, processor, threads."""
    seconds: dict[str, float]
    """Of each step of this attempt up to the writing of this."""
    peak_memory_bytes: int
    """Resident, of this process; files that are mapped included."""
    peak_device_memory_bytes: int | None
    """Held on the GPU, memory that torch keeps for later included; None without one."""


@dataclass(frozen=True)
class Facts:
    """What only doing the task has shown."""

    input_sha256: str
    folds: Sequence[str]
    """That were averaged."""
    segmentation: Segmentation
    restored: Restored
    surroundings: dict[str, Any]
    peak_device_memory: int | None


def write_receipt(task: Task, facts: Facts, times: Sequence[float], folder: Path) -> ResultFile:
    """Write the receipt.

    Args:
        task: What was to be done.
        facts: What came of it.
        times: When each step so far began, and the end of the last one, in seconds.
        folder: Where the file goes.
    """
    segmentation = facts.segmentation
    receipt = Receipt(
        job_id=task.job_id,
        attempt=task.attempt,
        input_key=task.input_key,
        input_sha256=facts.input_sha256,
        model=task.model.name,
        model_digest=task.model.card.digest,
        folds=list(facts.folds),
        params=task.params,
        spacing_policy=task.params.spacing_policy or task.model.card.spacing_policy,
        engine=segmentation.engine,
        tiles=segmentation.tiles,
        passes_at_once=segmentation.passes_at_once,
        resumed_from_plane=facts.restored.planes,
        started_over_because=list(facts.restored.different),
        given_up_for_memory=list(segmentation.steps),
        surroundings=facts.surroundings,
        seconds={step: round(end - begin, 3) for step, begin, end in zip(STEPS, times[:-1], times[1:], strict=False)},
        peak_memory_bytes=peak_resident_memory(),
        peak_device_memory_bytes=facts.peak_device_memory,
    )
    path = folder / RECEIPT_NAME
    path.write_text(receipt.model_dump_json(indent=2) + "\n")
    return ResultFile(path, "application/json")
