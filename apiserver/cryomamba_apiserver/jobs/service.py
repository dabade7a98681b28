"""Jobs: a request is checked against file and model before anything is queued."""

import math

from cryomamba_apiserver.auth import Principal
from cryomamba_apiserver.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from cryomamba_apiserver.jobs.schemas import CreateJob, JobParams
from cryomamba_apiserver.models.catalogue import Catalogue, CataloguedModel
from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobPage,
    JobRecord,
    JobRequest,
    JobStatus,
    JobStore,
    QueueFullError,
)
from cryomamba_apiserver.uploads.schemas import VolumeMetadata
from cryomamba_apiserver.uploads.service import UploadService
from cryomamba_crds import keys
from cryomamba_crds.failures import FailureError
from cryomamba_crds.model_gate import check_runnable, count_tiles, image_spacing, network_shape, resolve_folds
from cryomamba_crds.task import ModelReference

_RETRY_AFTER_SECONDS = 60


class JobService:
    """Decides about jobs."""

    def __init__(self, jobs: JobStore, uploads: UploadService, catalogue: Catalogue, model_cache: str) -> None:
        self._jobs = jobs
        self._uploads = uploads
        self._catalogue = catalogue
        self._model_cache = model_cache

    async def create(self, principal: Principal, request: CreateJob) -> JobRecord:
        """Check a request and take it in.

        Raises:
            NotFoundError: no such file.
            InvalidRequestError: no such model or fold; lists what there is.
            ModelError: the catalogue's model is unsafe or not complete.
            ConflictError: the same job is queued or running.
            UnavailableError: the queue is full.
        """
        file = (await self._uploads.file(principal, request.file_id)).file
        model = await self._model(request)
        try:
            return await self._jobs.create(
                JobRequest(
                    owner=principal.subject,
                    file_id=request.file_id,
                    model=ModelReference(
                        name=model.name,
                        key=keys.model_archive(model.name, model.card.digest),
                        card=model.card,
                        cache=self._model_cache,
                    ),
                    params=request.params.to_inference(),
                    preview=request.preview_config,
                    wire_params=request.params.model_dump(mode="json", exclude_none=True),
                    tiles=_tiles(model, request.params, file.metadata),
                )
            )
        except DuplicateJobError as error:
            raise ConflictError(
                f"Job {error.job_id} is doing the same already.",
                hint="Follow that job, or cancel it first.",
                details={"job_id": error.job_id},
            ) from None
        except QueueFullError:
            raise UnavailableError(
                "The queue is full.",
                hint="Try again in a while.",
                headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
                details={"retry_after_seconds": _RETRY_AFTER_SECONDS},
            ) from None

    async def queue_position(self, record: JobRecord) -> int:
        """Return how many-th a job is in line, from 1; 0 once it runs."""
        return await self._jobs.queue_position(record)

    async def estimate_seconds(self, record: JobRecord) -> int | None:
        """Return how long a job is going to run, None where the model's speed is not known yet."""
        seconds = await self._jobs.seconds_per_tile(record.request.model.card.digest)
        return None if seconds is None else math.ceil(seconds * record.request.tiles)

    async def get(self, principal: Principal, job_id: str) -> JobRecord:
        """Return a job; raise NotFoundError, also for somebody else's."""
        try:
            record = await self._jobs.get(job_id)
        except JobMissingError:
            raise _no_job(job_id) from None
        if not principal.may_see(record.request.owner):
            raise _no_job(job_id)
        return record

    async def page(self, principal: Principal, status: JobStatus | None, limit: int, offset: int) -> JobPage:
        """Return the jobs that this principal may see, newest first."""
        return await self._jobs.list_jobs(principal.owner_filter, status, limit, offset)

    async def cancel(self, principal: Principal, job_id: str) -> JobRecord:
        """End a job; raise NotFoundError, ConflictError."""
        await self.get(principal, job_id)
        try:
            return await self._jobs.cancel(job_id)
        except JobFinishedError as error:
            raise ConflictError(
                f"The job is {error.status.value} already.",
                hint="Nothing needs to be cancelled.",
                details={"status": error.status.value},
            ) from None

    async def _model(self, request: CreateJob) -> CataloguedModel:
        try:
            return await self._catalogue.get(request.model)
        except NotFoundError as error:
            # 404 is the reference's answer for the file; a model is a parameter.
            raise InvalidRequestError(
                str(error), hint=error.failure.hint, details={"field": "model", **error.failure.details}
            ) from None


def _tiles(model: CataloguedModel, params: JobParams, volume: VolumeMetadata) -> int:
    """Return how many tiles the network runs on at most: a volume that is cropped to its content takes fewer."""
    check_runnable(model.facts)
    x, y, z = volume.shape
    try:
        folds = resolve_folds(model.facts, params.folds)
        policy = params.spacing_policy or model.card.spacing_policy
        spacing = image_spacing(model.facts, policy, params.voxel_size or volume.voxel_size)
    except FailureError as error:
        # Here it is the request's parameters that do not fit the model, not the content that is bad.
        failure = error.failure
        raise InvalidRequestError(failure.message, hint=failure.hint, details=failure.details) from None
    shape = network_shape(model.facts, (z, y, x), spacing)
    return count_tiles(shape, model.facts.patch_size, params.step_size) * len(folds)


def _no_job(job_id: str) -> NotFoundError:
    return NotFoundError(f"There is no job {job_id[:64]}.", hint="GET /v1/jobs lists your jobs.")
