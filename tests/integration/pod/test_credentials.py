"""What a job's own credentials open in a real store and what they do not, and what is said where there are none."""

import asyncio
import io
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from minio import Minio, MinioAdmin
from minio.credentials import StaticProvider
from minio.error import S3Error

from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.adapters.s3_store.client import S3Client
from cryomamba_crds import keys
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.access import session_policy
from cryomamba_operator.settings import Settings
from cryomamba_operator.sts import SecurityTokenService, StsError, Trouble
from support.kubernetes import Kubectl, RefusedError
from support.operators import Jobs, OperatorProcess
from support.s3 import new_bucket
from support.segmentation_jobs import FILE, segmentation_job
from support.waiting import until

MIB = 1 << 20
OWN = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
def settings(bucket: S3Connection, tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        access, secret = tmp_path / "access", tmp_path / "secret"
        access.write_text(changes.pop("access_key", bucket.access_key))
        secret.write_text(changes.pop("secret_key", bucket.secret_key))
        return Settings(
            **{
                "image": "runner:1",
                "s3_endpoint": bucket.endpoint,
                "s3_bucket": bucket.bucket,
                "s3_access_key_file": access,
                "s3_secret_key_file": secret,
                **changes,
            }
        )

    return make


def record() -> SegmentationJob:
    job = segmentation_job("tomo")
    job["metadata"] |= {"namespace": "lab", "uid": OWN}
    return SegmentationJob.model_validate(job)


def assume(settings: Settings, policy: str | None = None) -> Any:
    policy = policy or session_policy(record(), settings.s3_bucket)
    return asyncio.run(SecurityTokenService(settings).assume(policy, "cryomamba-tomo"))


@pytest.fixture
def as_pod(bucket: S3Connection, settings: Callable[..., Settings]) -> Minio:
    """The store as the pod of the job sees it; there are objects of its own and of others."""
    admin = S3Client(bucket)
    for key in (
        keys.file_volume(FILE),
        keys.file_volume("file_aaaaaaaaaaaa"),
        keys.model_card("demo"),
        keys.model_card("secret-model"),
        f"jobs/{OTHER}/1/segmentation.mrc",
        f"jobs/{OWN}/1/segmentation.mrc",
    ):
        admin.put_object(bucket.bucket, key, io.BytesIO(b"x"), 1)
    admin.close()
    return minio_with(bucket, assume(settings()))


def minio_with(bucket: S3Connection, given: Any) -> Minio:
    provider = StaticProvider(given.access_key, given.secret_key, given.session_token)
    return Minio(bucket.endpoint.partition("//")[2], credentials=provider, secure=False, region=bucket.region)


def read(client: Minio, bucket: str, key: str) -> bytes:
    answer = client.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def test_a_pod_reads_its_input_and_its_model_and_writes_below_its_own_prefix(
    as_pod: Minio, bucket: S3Connection
) -> None:
    name = bucket.bucket
    large = b"y" * (12 * MIB)

    assert read(as_pod, name, keys.file_volume(FILE)) == b"x"
    assert read(as_pod, name, keys.model_card("demo")) == b"x"
    as_pod.put_object(name, f"jobs/{OWN}/2/preview.png", io.BytesIO(b"z"), 1)
    as_pod.put_object(name, f"jobs/{OWN}/2/segmentation.mrc", io.BytesIO(large), len(large), part_size=5 * MIB)
    assert read(as_pod, name, f"jobs/{OWN}/2/segmentation.mrc") == large


def test_a_pod_removes_what_attempts_left_for_each_other(as_pod: Minio, bucket: S3Connection) -> None:
    key = f"{keys.checkpoint_prefix(OWN)}index.json"
    as_pod.put_object(bucket.bucket, key, io.BytesIO(b"z"), 1)

    as_pod.remove_object(bucket.bucket, key)

    with pytest.raises(S3Error) as absent:
        read(as_pod, bucket.bucket, key)
    assert absent.value.code in {"AccessDenied", "NoSuchKey"}, "it is not there"


@pytest.mark.parametrize(
    "attempted",
    [
        lambda pod, name: read(pod, name, keys.file_volume("file_aaaaaaaaaaaa")),
        lambda pod, name: read(pod, name, keys.model_card("secret-model")),
        lambda pod, name: read(pod, name, f"jobs/{OTHER}/1/segmentation.mrc"),
        lambda pod, name: read(pod, name, "files/not-there"),
        lambda pod, name: pod.put_object(name, f"jobs/{OTHER}/1/segmentation.mrc", io.BytesIO(b"z"), 1),
        lambda pod, name: pod.put_object(name, f"jobs/{OWN}", io.BytesIO(b"z"), 1),
        lambda pod, name: pod.put_object(name, keys.file_volume(FILE), io.BytesIO(b"z"), 1),
        lambda pod, name: pod.put_object(name, keys.model_card("demo"), io.BytesIO(b"z"), 1),
        lambda pod, name: pod.remove_object(name, f"jobs/{OWN}/1/segmentation.mrc"),
        lambda pod, name: pod.remove_object(name, f"{keys.checkpoint_prefix(OTHER)}index.json"),
        lambda pod, name: list(pod.list_objects(name, f"jobs/{OWN}/", recursive=True)),
        lambda pod, _: pod.list_buckets(),
        lambda pod, _: pod.make_bucket("of-my-own-1"),
        lambda pod, name: pod.get_bucket_policy(name),
    ],
    ids=[
        "another input",
        "another model",
        "another job's result",
        "what is not there",
        "over another job's result",
        "beside its own prefix",
        "over its input",
        "over its model",
        "deleting its own",
        "deleting what another job's attempts left",
        "listing its own",
        "listing buckets",
        "making a bucket",
        "reading the bucket's policy",
    ],
)
def test_all_else_is_refused(as_pod: Minio, bucket: S3Connection, attempted: Callable[[Minio, str], Any]) -> None:
    with pytest.raises(S3Error) as refused:
        attempted(as_pod, bucket.bucket)

    assert refused.value.code == "AccessDenied"


def test_another_bucket_is_refused_also_under_the_same_keys(as_pod: Minio, bucket: S3Connection) -> None:
    other = new_bucket(bucket)
    admin = S3Client(other)
    admin.put_object(other.bucket, keys.file_volume(FILE), io.BytesIO(b"x"), 1)
    admin.close()

    with pytest.raises(S3Error, match="Access"):
        read(as_pod, other.bucket, keys.file_volume(FILE))


def test_credentials_cannot_ask_for_others_that_may_do_more(
    as_pod: Minio, bucket: S3Connection, settings: Callable[..., Settings]
) -> None:
    provider = as_pod._provider.retrieve()  # type: ignore[union-attr]

    with pytest.raises(StsError):
        assume(settings(access_key=provider.access_key, secret_key=provider.secret_key))


def test_an_operator_that_is_no_administrator_of_the_store_gives_credentials_too(
    bucket: S3Connection, settings: Callable[..., Settings]
) -> None:
    name, secret = f"operator-{secrets.token_hex(4)}", secrets.token_hex(20)
    provider = StaticProvider(bucket.access_key, bucket.secret_key)
    admin = MinioAdmin(endpoint=bucket.endpoint.partition("//")[2], credentials=provider, secure=False)
    admin.user_add(name, secret)
    admin.policy_set("readwrite", user=name)
    given = assume(settings(access_key=name, secret_key=secret))
    client = minio_with(bucket, given)

    client.put_object(bucket.bucket, f"jobs/{OWN}/1/a", io.BytesIO(b"z"), 1)

    with pytest.raises(S3Error, match="Access"):
        client.put_object(bucket.bucket, f"jobs/{OTHER}/1/a", io.BytesIO(b"z"), 1)


def test_credentials_last_for_as_long_as_the_setting_says(settings: Callable[..., Settings]) -> None:
    from datetime import UTC, datetime

    given = assume(settings(s3_credentials_seconds=7200))

    assert 7000 < (given.expires - datetime.now(UTC)).total_seconds() < 7300


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Something at an address that is no STS."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "trouble"),
    [
        (404, b"<html>", Trouble.ABSENT),
        (405, b"<Error><Code>MethodNotAllowed</Code></Error>", Trouble.ABSENT),
        (501, b"<Error><Code>NotImplemented</Code></Error>", Trouble.ABSENT),
        (200, b"<html></html>", Trouble.ABSENT),
        (200, b"", Trouble.ABSENT),
        (503, b"busy", Trouble.UNREACHABLE),
        (
            400,
            (
                b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>ValidationError</Code>'
                b"<Message>DurationSeconds exceeds the MaxSessionDuration</Message></Error></ErrorResponse>"
            ),
            Trouble.REFUSED,
        ),
        (403, b"<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>", Trouble.DENIED),
    ],
)
def test_what_answers_in_another_way_is_told_apart(
    settings: Callable[..., Settings], status: int, body: bytes, trouble: Trouble
) -> None:
    with answering(status, body) as url, pytest.raises(StsError) as error:
        assume(settings(s3_sts_endpoint=url))

    assert error.value.trouble is trouble


@pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
def test_keys_that_the_store_does_not_accept_are_told_and_not_shown(
    settings: Callable[..., Settings], bucket: S3Connection, wrong: str
) -> None:
    with pytest.raises(StsError) as error:
        assume(settings(**{wrong: "not-the-one-it-should-be"}))

    assert error.value.trouble is Trouble.DENIED
    assert not any(key in str(error.value) for key in (bucket.access_key, bucket.secret_key, "not-the-one"))


def test_a_store_that_is_not_there_is_told(settings: Callable[..., Settings]) -> None:
    with answering(200, b"") as url:
        pass

    with pytest.raises(StsError) as error:
        assume(settings(s3_endpoint=url))

    assert error.value.trouble is Trouble.UNREACHABLE


def test_a_wrong_key_is_named_by_the_condition_and_the_job_starts_when_it_is_mended(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    file = Path(operator.settings["s3_secret_key_file"])
    right = file.read_text()
    file.write_text("wrong")
    operator.start()
    jobs.submit("tomo")

    jobs.wait("tomo", "Scheduled", "False", "StoreKeysRefused")

    until(lambda: ("Warning", "StoreKeysRefused") in jobs.events("tomo"))
    assert jobs.pod("tomo") is None
    file.write_text(right)
    jobs.wait("tomo", "Scheduled", "False", "Pending")
    secret = control_plane_namespace.get("secret", "tomo-s3")
    job = control_plane_namespace.get("job", "tomo")
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert sorted(secret["data"]) == ["access_key", "secret_key", "session_token"]
    assert right not in operator.log.read_text()


def test_a_restarted_operator_renews_the_credentials_of_a_job_that_goes_on(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    until(lambda: "tomo-s3" in control_plane_namespace("get", "secrets", "--output=name"))
    before = control_plane_namespace.get("secret", "tomo-s3")
    operator.kill()

    operator.start()

    until(lambda: control_plane_namespace.get("secret", "tomo-s3")["data"] != before["data"])
    after = control_plane_namespace.get("secret", "tomo-s3")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"] == before["metadata"]["ownerReferences"]


def test_a_secret_of_somebody_elses_is_left_as_it_is(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    control_plane_namespace("create", "secret", "generic", "tomo-s3", "--from-literal=password=swordfish")
    before = control_plane_namespace.get("secret", "tomo-s3")
    operator.start()
    jobs.submit("tomo")

    jobs.wait("tomo", "Succeeded", "False", "SecretNameTaken")

    assert control_plane_namespace.get("secret", "tomo-s3") == before
    until(lambda: not control_plane_namespace.get("jobs")["items"])


def test_an_operator_reads_no_secret_and_deletes_none(
    operator: OperatorProcess, control_plane_namespace: Kubectl
) -> None:
    account = f"system:serviceaccount:{control_plane_namespace.namespace}:cryomamba-operator"

    def may(verb: str) -> bool:
        try:
            return control_plane_namespace("auth", "can-i", verb, "secrets", f"--as={account}").strip() == "yes"
        except RefusedError:
            return False

    until(lambda: may("patch"))
    assert {verb for verb in ("get", "list", "watch", "create", "update", "patch", "delete") if may(verb)} == {
        "create",
        "patch",
    }


def test_the_secret_goes_with_its_job(operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl) -> None:
    operator.start()
    jobs.submit("tomo")
    until(lambda: "tomo-s3" in control_plane_namespace("get", "secrets", "--output=name"))

    control_plane_namespace("patch", "segjob", "tomo", "--type=merge", '--patch={"spec":{"desiredState":"Cancelled"}}')

    until(lambda: "tomo-s3" not in control_plane_namespace("get", "secrets", "--output=name"))
