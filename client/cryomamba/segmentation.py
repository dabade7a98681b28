"""One volume from disk to a folder of results through a server: what `segment` and `demo` do."""

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryomamba.client import Client
from cryomamba.errors import ApiError, CryoMambaError, UnexpectedAnswerError
from cryomamba.models import (
    Artifact,
    CompletedMessage,
    ErrorMessage,
    JobParams,
    JobProgress,
    JobRecord,
    PreviewMessage,
    ProgressMessage,
    StatisticsFile,
    UploadedFile,
)
from cryomamba.overview import write_overview
from cryomamba.planes import header_of
from cryomamba_crds.failures import FailureCode

OVERVIEW = "overview.png"
PREVIEW = "preview.png"
STATISTICS = "statistics.json"
_OVER = frozenset({404, 409, 410, 422})
"""Answers after which there is no upload to go on with."""
SEGMENTATIONS = ("segmentation.mrc", "segmentation.nii.gz")
_RESULTS = frozenset({OVERVIEW, PREVIEW, STATISTICS, "probabilities.npz", *SEGMENTATIONS})


class Observer(Protocol):
    """Who is told how a segmentation goes."""

    def note(self, text: str) -> None:
        """Something worth a line has happened."""

    def uploading(self, sent: int, total: int) -> None:
        """Bytes sent; called from several threads, never from two at once."""

    def working(self, job: JobRecord) -> None:
        """The job exists."""

    def progress(self, progress: JobProgress) -> None:
        """The job has moved on."""

    def preview(self, path: Path, count: int) -> None:
        """There is a new picture, the count-th."""

    def downloading(self, name: str, received: int, total: int) -> None:
        """Bytes of an artifact received."""


@dataclass(frozen=True)
class SegmentationRequest:
    """What is to be segmented, how, and where the results go (a folder; files of an earlier run are replaced)."""

    volume: Path
    model: str
    output: Path
    params: JobParams = field(default_factory=JobParams)
    resume: str | None = None
    """Id of an earlier upload of the same volume that broke off."""


@dataclass(frozen=True)
class Segmentation:
    """What came of it."""

    job_id: str
    labels: Path
    """The label volume."""
    statistics: StatisticsFile
    overview: Path
    files: tuple[Path, ...]
    """Everything that was written, the overview last."""
    previews: int
    """How many pictures arrived on the way."""


def run_segmentation(client: Client, request: SegmentationRequest, observer: Observer) -> Segmentation:
    """Upload a volume, have it segmented, and fetch the results.

    What can be known to fail before a byte is sent (no volume, no such model, nowhere to write) fails then. Where the
    same job is alive already, it is attached to. KeyboardInterrupt and SystemExit cancel the job that was created
    here, and go on.

    Raises:
        CryoMambaError: Something did not work; `ApiError` where the server says so, also for a job that failed.
        cryomamba_crds.volumes.VolumeError: The file is no usable volume.
    """
    header = header_of(request.volume)
    _prepare_output(request)
    _check_server(client, request.model, header.file_size)
    for warning in header.warnings:
        observer.note(f"{request.volume.name}: {warning}")
    uploaded = _upload(client, request, observer)
    job, created_here = _start_job(client, request, uploaded, observer)
    try:
        observer.working(job)
        completed, previews = _follow(client, job, request.output, observer)
    except (KeyboardInterrupt, SystemExit):
        if created_here:
            _cancel(client, job.job_id, observer)
        else:
            observer.note(f"Left job {job.job_id} running: it was started elsewhere.")
        raise
    files = [_fetch(client, artifact, request.output, observer) for artifact in completed.artifacts]
    return _finish(request, job.job_id, files, previews)


def _prepare_output(request: SegmentationRequest) -> None:
    output = request.output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CryoMambaError(
            f"{output} cannot be made a folder for the results: {error.strerror}",
            hint="Give another folder with --output.",
        ) from error
    if request.volume.name in _RESULTS and request.volume.resolve().parent == output.resolve():
        raise CryoMambaError(
            f"{request.volume} would be overwritten by the result of the same name",
            hint="Give another folder with --output, or rename the volume.",
        )


def _check_server(client: Client, model: str, size: int) -> None:
    """Before gigabytes are sent: is the server there, the token good, the model known, the file not too large?"""
    server = client.server_info()
    if model not in server.available_models:
        known = ", ".join(server.available_models) or "none at all"
        raise CryoMambaError(
            f"the server at {client.url} has no model {model!r}; it has: {known}",
            hint="Choose one of these with --model, or ask whoever runs the server to add yours.",
        )
    if server.max_upload_size is not None and size > server.max_upload_size:
        raise CryoMambaError(
            f"the volume has {size:,} bytes and the server takes {server.max_upload_size:,} at most",
            hint="Bin or crop the volume, or ask whoever runs the server to raise the limit.",
        )


def _upload(client: Client, request: SegmentationRequest, observer: Observer) -> UploadedFile:
    """Upload the volume; where that breaks off for good, say how to go on with it."""
    begun: list[str] = []
    try:
        return client.upload(
            request.volume,
            resume=request.resume,
            on_progress=observer.uploading,
            on_session=begun.append,
            on_news=observer.note,
        )
    except (CryoMambaError, KeyboardInterrupt, SystemExit) as error:
        over = isinstance(error, ApiError) and error.status in _OVER
        if begun and not over:
            observer.note(f"What was sent is kept for a while; go on with --resume {begun[0]}")
        raise


def _start_job(
    client: Client, request: SegmentationRequest, uploaded: UploadedFile, observer: Observer
) -> tuple[JobRecord, bool]:
    """Return the job and whether it was created here."""
    try:
        return client.create_job(uploaded.file_id, request.model, request.params), True
    except ApiError as error:
        live = error.details.get("job_id")
        if error.code != FailureCode.CONFLICT or not isinstance(live, str):
            raise
        observer.note(f"Job {live} does the same already; following that one.")
        return client.job(live), False


def _follow(client: Client, job: JobRecord, output: Path, observer: Observer) -> tuple[CompletedMessage, int]:
    previews = 0
    for message in client.watch(job.job_id):
        match message:
            case ProgressMessage():
                observer.progress(message.progress)
            case PreviewMessage():
                previews += 1
                observer.preview(_save_preview(message, output / PREVIEW), previews)
            case CompletedMessage():
                return message, previews
            case ErrorMessage(error=error):
                raise ApiError(
                    error.code, error.message, hint=error.hint, retryable=error.retryable, details=error.details
                )
    raise UnexpectedAnswerError(f"the messages of job {job.job_id} ended without a last word", hint="Try again.")


def _save_preview(message: PreviewMessage, target: Path) -> Path:
    try:
        picture = base64.b64decode(message.preview.data, validate=True)
    except binascii.Error as error:
        raise UnexpectedAnswerError(
            "the server sent a preview that is not base64", hint="Check that client and server have the same version."
        ) from error
    partial = target.with_name(f"{target.name}.part")
    partial.write_bytes(picture)
    return partial.replace(target)


def _cancel(client: Client, job_id: str, observer: Observer) -> None:
    try:
        client.cancel(job_id)
    except ApiError as error:
        if error.code == FailureCode.CONFLICT:
            return  # it has ended meanwhile
        observer.note(f"Job {job_id} may still be running: {error.message}")
    except CryoMambaError as error:
        observer.note(f"Job {job_id} may still be running: {error.message}")
    else:
        observer.note(f"Cancelled job {job_id}.")


def _fetch(client: Client, artifact: Artifact, output: Path, observer: Observer) -> Path:
    def on_progress(received: int, total: int) -> None:
        observer.downloading(artifact.name, received, total)

    return client.download(artifact, output, on_progress=on_progress)


def _finish(request: SegmentationRequest, job_id: str, files: list[Path], previews: int) -> Segmentation:
    by_name = {file.name: file for file in files}
    labels = next((by_name[name] for name in SEGMENTATIONS if name in by_name), None)
    if labels is None or STATISTICS not in by_name:
        raise UnexpectedAnswerError(
            f"job {job_id} left {', '.join(by_name) or 'nothing'} and not the segmentation with its statistics",
            hint="Ask whoever runs the server for its log.",
        )
    statistics = StatisticsFile.model_validate_json(by_name[STATISTICS].read_bytes())
    overview = request.output / OVERVIEW
    write_overview(request.volume, labels, statistics.labels, statistics.voxel_size_nm, overview)
    return Segmentation(
        job_id=job_id,
        labels=labels,
        statistics=statistics,
        overview=overview,
        files=(*files, overview),
        previews=previews,
    )
