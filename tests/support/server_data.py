"""Things that tests of the server talk about."""

from datetime import UTC, datetime

from cryomamba_apiserver.gpus.service import Gpu
from cryomamba_apiserver.ports.job_store import JobRecord, JobRequest
from cryomamba_crds.model_card import Label, ModelCard
from cryomamba_crds.task import InferenceParams, PreviewParams

A6000 = Gpu(
    index=0,
    name="NVIDIA A6000",
    memory_total=49152 << 20,
    memory_free=30720 << 20,
    memory_used=18432 << 20,
    compute_capability="8.6",
    utilization=85,
    temperature=72,
    power_usage=280,
    power_limit=300,
)

CARD = ModelCard(
    labels=[Label(id=1, name="membrane", colour="#56b4e9")],
    spacing_policy="ignore",
    contrast="dark",
    digest="sha256:" + "0" * 64,
)


def job_request(file_id: str = "file_aaaaaaaaaaaa", owner: str = "ada", **params) -> JobRequest:
    return JobRequest(
        owner=owner,
        file_id=file_id,
        model="demo",
        model_digest=CARD.digest,
        params=InferenceParams(**params),
        preview=PreviewParams(),
        tiles=27,
    )


def job_record(job_id: str, **fields) -> JobRecord:
    now = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)
    return JobRecord(job_id=job_id, uid="u", request=job_request(), created_at=now, updated_at=now, **fields)
