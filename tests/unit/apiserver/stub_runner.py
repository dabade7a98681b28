"""Stands in for the runner: does what a script says, one word a line. The real one is in the end-to-end tests."""

import json
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cryomamba_crds import keys
from cryomamba_crds.failures import ExitCode, Failure, FailureCode
from cryomamba_crds.report import Artifact, GpuStats, Manifest, Preview, Progress, Report, Statistics
from cryomamba_crds.task import Task

CONTENT = b"labels"


def main(script: Path, task: Task) -> int:  # noqa: C901, PLR0912 - a list of words and what they do
    store = Path(task.store.root)
    for word in script.read_text().split():
        name, _, value = word.partition("=")
        if name == "progress":
            say(Report(progress=Progress(current_step=3, percentage=int(value), message="Processing tile 1/2")))
        elif name == "gpu":
            say(Report(gpu=GpuStats(gpu_id=0, memory_used=1, memory_total=2, utilization=3)))
        elif name == "preview":
            key = task.output_prefix + "preview-live.png"
            (store / key).parent.mkdir(parents=True, exist_ok=True)
            (store / key).write_bytes(b"PNG " + value.encode())
            say(Report(preview=Preview(sequence=int(value), key=key, scale=4, shape=(5, 5, 5), slice_idx=2)))
        elif name == "environment":
            path = Path(value) / f"{task.job_id}.environment"
            path.with_suffix(".part").write_text(json.dumps(dict(os.environ)))
            path.with_suffix(".part").rename(path)
        elif name == "touch":
            Path(value).touch()
        elif name == "wait":
            while not Path(value).exists():
                time.sleep(0.01)
        elif name == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif name == "child":
            if os.fork() == 0:
                time.sleep(600)
        elif name == "result":
            say(Report(result=result(task, store)))
        elif name == "manifest":
            result(task, store)
        elif name == "fail":
            code = FailureCode(value or "INFERENCE_ERROR")
            failure = Failure(code=code, message="It broke.", hint="Mend it.", retryable=code.retryable)
            print(failure.model_dump_json(), flush=True)
            return ExitCode.FAILED
        elif name == "exit":
            return int(value)
        elif name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise ValueError(word)
    return ExitCode.SUCCEEDED


def say(report: Report) -> None:
    print(report.model_dump_json(exclude_none=True), flush=True)


def result(task: Task, store: Path) -> Manifest:
    key = task.output_prefix + "segmentation.mrc"
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    (store / key).write_bytes(CONTENT)
    manifest = Manifest(
        attempt=task.attempt,
        artifacts=[
            Artifact(
                name="segmentation.mrc",
                key=key,
                size=len(CONTENT),
                content_type="application/octet-stream",
                created_at=datetime.now(UTC),
            )
        ],
        statistics=Statistics(label_counts={"1": 6}, physical_volume_nm3={"1": 6.0}, surface_area_nm2={"1": 12.0}),
        seconds_per_tile=2.0,
    )
    (store / keys.job_manifest(task.job_uid)).write_text(manifest.model_dump_json())
    return manifest


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Task.model_validate_json(Path(sys.argv[-1]).read_text())))
