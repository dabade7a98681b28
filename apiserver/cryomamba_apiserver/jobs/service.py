"""Jobs: a request is checked against file and model before anything is queued."""

import hashlib
import json

from cryomamba_apiserver.auth import Principal
from cryomamba_apiserver.errors import ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from cryomamba_apiserver.jobs.schemas import CreateJob, JobParams
from cryomamba_apiserver.models.catalogue import Catalogue, CataloguedModel
from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobPage,
    JobReceipt,
    JobRecord,
    JobRequest,
    JobStatus,
    JobStore,
    QueueFullError,
    RetryKey,
    RetryKeyConflictError,
)
from cryomamba_apiserver.uploads.schemas import VolumeMetadata
from cryomamba_apiserver.uploads.service import UploadService
from cryomamba_crds.failures import FailureError
from cryomamba_crds.model_gate import (
    check_channels,
    check_runnable,
    count_tiles,
    image_spacing,
    network_shape,
    resolve_folds,
)

_RETRY_AFTER_SECONDS = 60


class JobService:
    """Decides about jobs."""

    def __init__(self, jobs: JobStore, uploads: UploadService, catalogue: Catalogue) -> None:
        self._jobs = jobs
        self._uploads = uploads
        self._catalogue = catalogue

    async def receipt(self, principal: Principal, request: CreateJob, key: str | None) -> JobReceipt | None:
        """Return what the same request was answered with under this key; None where it is new, or there is no key.

        Raises:
            ConflictError: the key was used for another request.
        """
        if key is None:
            return None
        try:
            return await self._jobs.receipt(principal.subject, _retry_key(key, request))
        except RetryKeyConflictError:
            raise _other_request() from None

    async def create(self, principal: Principal, request: CreateJob, key: str | None = None) -> JobReceipt:
        """Check a request and take it in, or return the receipt of an earlier one with the same key.

        Raises:
            NotFoundError: no such file.
            InvalidRequestError: no such model or fold; lists what there is.
            ModelError: the catalogue's model is unsafe or not complete.
            ConflictError: the same job is queued or running, or the key was used for another request.
            UnavailableError: the queue is full.
        """
        file = (await self._uploads.file(principal, request.file_id)).file
        model = await self._model(request)
        wanted = JobRequest(
            owner=principal.subject,
            file_id=request.file_id,
            model=model.name,
            model_digest=model.card.digest,
            params=request.params.to_inference(),
            preview=request.preview_config,
            tiles=_tiles(model, request.params, file.metadata),
        )
        try:
            return await self._jobs.create(wanted, _retry_key(key, request) if key is not None else None)
        except RetryKeyConflictError:
            raise _other_request() from None
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

    async def get(self, principal: Principal, job_id: str) -> JobRecord:
        """Return a job; raise NotFoundError, also for somebody else's."""
        try:
            record = await self._jobs.get(job_id)
        except JobMissingError:
            raise _no_job(job_id) from None
        if not principal.may_see(record.request.owner):
            raise _no_job(job_id)
        return record

    async def page(
        self, principal: Principal, status: JobStatus | None, limit: int, offset: int, before: str | None
    ) -> JobPage:
        """Return the jobs that a principal may see, newest first; raise InvalidRequestError for an unknown `before`."""
        try:
            return await self._jobs.list_jobs(principal.owner_filter, status, limit, offset, before)
        except JobMissingError:
            raise InvalidRequestError(
                "There is no job of the id given as before.",
                hint="Take before from the last job of a page, or follow the Link header of the answer.",
                details={"field": "query.before"},
            ) from None

    async def cancel(self, principal: Principal, job_id: str) -> JobRecord:
        """End a job, or find it cancelled; raise NotFoundError, and ConflictError for one that ended otherwise."""
        record = await self.get(principal, job_id)
        try:
            return await self._jobs.cancel(record.job_id)
        except JobFinishedError as error:
            if error.status is JobStatus.CANCELLED:
                return await self.get(principal, job_id)
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


def _retry_key(key: str, request: CreateJob) -> RetryKey:
    """Return the key with a digest of the request's meaning: how its JSON was written does not count."""
    meant = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return RetryKey(key=key, request_digest=hashlib.sha256(meant.encode()).hexdigest())


def _other_request() -> ConflictError:
    return ConflictError(
        "This Idempotency-Key was sent with another request before.",
        hint="Send the very same request again, or choose a new key for a new one.",
        details={"field": "header.Idempotency-Key"},
    )


def _tiles(model: CataloguedModel, params: JobParams, volume: VolumeMetadata) -> int:
    """Return how many tiles the network runs on at most: a volume that is cropped to its content takes fewer."""
    check_runnable(model.facts)
    x, y, z = volume.shape
    try:
        check_channels(model.facts, volume.channels)
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
