"""Fills a data directory with jobs, by the server's own classes, before the server is started on it."""

import os
from pathlib import Path

from servers import OWNER

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.app import utc_now
from cryomamba_apiserver.ports.job_store import JobRecord, JobRequest, JobStatus
from cryomamba_crds import keys
from cryomamba_crds.report import Artifact, Manifest, Statistics
from cryomamba_crds.task import InferenceParams, PreviewParams

ARTIFACT = "segmentation.mrc"
_BLOCK = 1 << 20


class PreparedJobs:
    """The jobs of a data directory whose server does not run."""

    def __init__(self, data_dir: Path) -> None:
        self._root = DirectoryObjectStore(data_dir / "store").root
        self._table = JobTable(data_dir / "jobs.sqlite", utc_now)

    def close(self) -> None:
        """Let the server have them."""
        self._table.close()

    def queued(self, file_id: str = "file_aaaaaaaaaaaa") -> JobRecord:
        """Add a job that waits."""
        request = JobRequest(
            owner=OWNER,
            file_id=file_id,
            model="membranes",
            model_digest="sha256:" + "0" * 64,
            params=InferenceParams(),
            preview=PreviewParams(),
            tiles=75,
        )
        record = self._table.insert(request, max_queued=10).record
        if record is None:
            raise RuntimeError("no job was made")
        return record

    def completed(self, size: int = 4096) -> JobRecord:
        """Add a job that has ended well; return it. Its artifact is yet to be written."""
        job = self.queued()
        key = keys.attempt_prefix(job.uid, 1) + ARTIFACT
        artifact = Artifact(
            name=ARTIFACT, key=key, size=size, content_type="application/octet-stream", created_at=utc_now()
        )
        statistics = Statistics(label_counts={"1": 6}, physical_volume_nm3={"1": 6.0}, surface_area_nm2={"1": 12.0})
        changes = {
            "status": JobStatus.COMPLETED,
            "attempt": 1,
            "started_at": utc_now(),
            "completed_at": utc_now(),
            "result": Manifest(attempt=1, artifacts=[artifact], statistics=statistics, seconds_per_tile=2.0),
        }
        return self._table.change(job.job_id, changes)

    def write_artifact(self, job: JobRecord) -> Path:
        """Write a completed job's artifact, of noise; return where it is."""
        if job.result is None:
            raise ValueError("the job has no result")
        artifact = job.result.artifacts[0]
        path = self._root / artifact.key
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            for _ in range(artifact.size // _BLOCK):
                file.write(os.urandom(_BLOCK))
        return path
