"""Makes the task that a pod is to do, from what it was handed and what the catalogue says of the model."""

from pathlib import Path

from pydantic import ValidationError

from cryomamba_crds import keys
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.ids import job_id
from cryomamba_crds.model_card import ModelCard
from cryomamba_crds.resource import SegmentationJobSpec
from cryomamba_crds.task import ModelReference, Task
from cryomamba_crds.wishes import inference_params, preview_params
from cryomamba_inference.pod.environment import PodEnvironment
from cryomamba_inference.storage import Storage


def make_task(handed: PodEnvironment, attempt: int, model: ModelReference) -> Task:
    """Return the task of one attempt (from 1)."""
    spec = handed.spec
    return Task(
        job_id=job_id(handed.job_name),
        job_uid=handed.job_uid,
        attempt=attempt,
        input_key=_input_key(spec),
        model=model,
        params=inference_params(spec.inference),
        preview=preview_params(spec.preview),
        checkpoint=handed.checkpoint,
        store=handed.store,
        output_prefix=keys.attempt_prefix(handed.job_uid, attempt),
        device=handed.device,
    )


def find_model(spec: SegmentationJobSpec, storage: Storage, *, cache: Path, scratch: Path) -> ModelReference:
    """Return the model that a job names: the one it was pinned to, else the one that the name stands for now.

    Raises:
        FailureError: NOT_FOUND, there is none; VALIDATION_ERROR, its card is none.
    """
    name, pinned = spec.model, spec.model_digest
    key = keys.model_archive_card(name, pinned) if pinned else keys.model_card(name)
    try:
        text = storage.fetch(key, scratch).read_bytes()
    except FailureError as error:
        if error.failure.code is not FailureCode.NOT_FOUND:
            raise
        raise _no_such_model(name, pinned) from None
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"The card {key} of the model {name} is not valid: {error.errors(include_url=False)[0]['msg']}.",
            hint="Push the model again; runner and API server must be of one version.",
        ) from None
    if pinned and card.digest != pinned:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"The card {key} of the model {name} is that of another model.",
            hint="Push the model again.",
        )
    return ModelReference(name=name, key=keys.model_archive(name, card.digest), card=card, cache=str(cache))


def _input_key(spec: SegmentationJobSpec) -> str:
    return spec.input.object if spec.input.object is not None else keys.file_volume(spec.input.file_id or "")


def _no_such_model(name: str, digest: str | None) -> FailureError:
    which = f"{name} with the digest {digest}" if digest else name
    return FailureError(
        FailureCode.NOT_FOUND,
        f"There is no model {which} in the catalogue.",
        hint="`cryomamba models list` shows which there are, and `cryomamba models push` adds one. Then submit the job "
        "again.",
    )
