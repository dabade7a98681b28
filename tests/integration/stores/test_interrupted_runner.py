"""A runner on a bucket that is killed in the middle of its work, and the one that goes on with what it left there."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import pytest

import cryomamba_apiserver.models
from cryomamba.phantom import make_phantom
from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_crds import keys
from cryomamba_crds.failures import ExitCode
from cryomamba_crds.model_card import ModelCard
from cryomamba_crds.report import Manifest
from cryomamba_crds.task import (
    ACCESS_KEY_VARIABLE,
    SECRET_KEY_VARIABLE,
    CheckpointParams,
    InferenceParams,
    ModelReference,
    S3Store,
    Task,
)
from support.warm_runners import WarmRunner, WarmRunners, warm_runners

DEMO = Path(cryomamba_apiserver.models.__path__[0]) / "bundled" / "demo"
CARD = ModelCard.model_validate_json((DEMO / "model.json").read_bytes())
FILE = "file_aaaaaaaaaaaa"


@pytest.fixture(scope="module")
def runners() -> Iterator[WarmRunners]:
    with warm_runners() as runners:
        yield runners


class Bucket:
    """A bucket with a volume and a model."""

    def __init__(self, connection: S3Connection, folder: Path) -> None:
        self._connection = connection
        self._client = S3Client(connection)
        self._folder = folder
        with mrcfile.new(folder / "volume.mrc", make_phantom(3, (96, 32, 32)).density) as mrc:
            mrc.voxel_size = 13.48
        self._put(keys.file_volume(FILE), folder / "volume.mrc")
        self._put(keys.model_archive("demo", CARD.digest), DEMO / "model.zip")

    def _put(self, key: str, path: Path) -> None:
        self._client.fput_object(self._connection.bucket, key, str(path))

    def _get(self, key: str) -> bytes:
        answer = self._client.get_object(self._connection.bucket, key)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def names(self, prefix: str) -> list[str]:
        objects = self._client.list_objects(self._connection.bucket, prefix, True)
        return [str(item.object_name).removeprefix(prefix) for item in objects]

    def start(self, runners: WarmRunners, uid: str, attempt: int) -> WarmRunner:
        key = keys.model_archive("demo", CARD.digest)
        task = Task(
            job_id="job_aaaaaaaaaaaa",
            job_uid=uid,
            attempt=attempt,
            input_key=keys.file_volume(FILE),
            model=ModelReference(name="demo", key=key, card=CARD, cache=str(self._folder / "cache")),
            params=InferenceParams(mirroring=False),
            checkpoint=CheckpointParams(interval_seconds=0, share_of_time=1),
            store=S3Store(endpoint=self._connection.endpoint, bucket=self._connection.bucket),
            output_prefix=keys.attempt_prefix(uid, attempt),
            device="cpu",
        )
        path = self._folder / "task.json"
        path.write_text(task.model_dump_json())
        known = {
            ACCESS_KEY_VARIABLE: self._connection.access_key,
            SECRET_KEY_VARIABLE: self._connection.secret_key,
        }
        return runners.start("--stop-on-stdin-eof", str(path), log=self._folder / "log", environment=known)

    def results(self, uid: str) -> dict[str, bytes]:
        manifest = Manifest.model_validate_json(self._get(keys.job_manifest(uid)))
        return {artifact.name: self._get(artifact.key) for artifact in manifest.artifacts}

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def stocked(bucket: S3Connection, tmp_path: Path) -> Iterator[Bucket]:
    stocked = Bucket(bucket, tmp_path)
    yield stocked
    stocked.close()


def test_what_a_killed_runner_left_in_the_bucket_is_gone_on_with_and_removed(stocked, runners, tmp_path):
    assert stocked.start(runners, "undisturbed", 1).wait() == ExitCode.SUCCEEDED, (tmp_path / "log").read_text()
    left = keys.checkpoint_prefix("killed")
    killed = stocked.start(runners, "killed", 1)
    for _ in killed.lines():
        if "index.json" in stocked.names(left):
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL, "it was killed before its end"
    there = stocked.names(left)

    code = stocked.start(runners, "killed", 2).wait()

    assert len(there) >= 2, "a part and the index"
    assert code == ExitCode.SUCCEEDED, (tmp_path / "log").read_text()
    expected, results = stocked.results("undisturbed"), stocked.results("killed")
    assert json.loads(expected.pop("receipt.json"))["resumed_from_plane"] == 0
    assert json.loads(results.pop("receipt.json"))["resumed_from_plane"] > 0
    assert results == expected
    # What a kill may have come between is not known to the index.
    assert "index.json" not in stocked.names(left)
    assert len(stocked.names(left)) <= 1
    assert stocked.names(keys.checkpoint_prefix("undisturbed")) == []
