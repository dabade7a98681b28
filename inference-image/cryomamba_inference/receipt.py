"""`receipt.json`: what a result was made from and how, so that it can be made again and explained."""

import hashlib
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cryomamba_crds.report import STEPS
from cryomamba_crds.task import InferenceParams, Task
from cryomamba_inference.assemble import ResultFile
from cryomamba_inference.engine import Segmentation

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
    given_up_for_memory: list[str]
    surroundings: dict[str, Any]
    """Versions, device, processor, threads."""
    seconds: dict[str, float]
    """Of each step of this attempt up to the writing of this."""
    peak_memory_bytes: int
    """Resident, of this process; files that are mapped included."""


def write_receipt(
    task: Task,
    source: Path,
    folds: Sequence[str],
    done: tuple[Segmentation, int, dict[str, Any]],
    times: Sequence[float],
    folder: Path,
) -> ResultFile:
    """Write the receipt.

    Args:
        task: What was to be done.
        source: The input's file.
        folds: That were averaged.
        done: The engine's summary, the plane at which this attempt began, and the surroundings.
        times: When each step so far began, and the end of the last one, in seconds.
        folder: Where the file goes.
    """
    segmentation, first, surroundings = done
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    receipt = Receipt(
        job_id=task.job_id,
        attempt=task.attempt,
        input_key=task.input_key,
        input_sha256=digest,
        model=task.model.name,
        model_digest=task.model.card.digest,
        folds=list(folds),
        params=task.params,
        spacing_policy=task.params.spacing_policy or task.model.card.spacing_policy,
        engine=segmentation.engine,
        tiles=segmentation.tiles,
        passes_at_once=segmentation.passes_at_once,
        resumed_from_plane=first,
        given_up_for_memory=list(segmentation.steps),
        surroundings=surroundings,
        seconds={step: round(end - begin, 3) for step, begin, end in zip(STEPS, times[:-1], times[1:], strict=False)},
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    path = folder / RECEIPT_NAME
    path.write_text(receipt.model_dump_json(indent=2) + "\n")
    return ResultFile(path, "application/json")
