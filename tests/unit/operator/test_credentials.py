"""Who gets credentials for the object store, what they open, and what is said where there are none."""

import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.access import session_policy
from cryomamba_operator.credentials import OwnCredentials, secret_manifest
from cryomamba_operator.ports import RefusedError
from cryomamba_operator.queue import UnavailableError
from cryomamba_operator.settings import Settings
from cryomamba_operator.sts import StsError, TemporaryCredentials, Trouble

Play = Callable[[Callable[[Any], Awaitable[None]]], None]
Make = Callable[..., dict[str, Any]]

RUNNING = {"running": {"startedAt": "2026-03-01T12:00:00Z"}}
HOUR = 3600
HOURS = 12


class Service:
    """A store's STS: gives credentials for twelve hours, unless it is in trouble."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.asked: list[tuple[str, str]] = []
        self.trouble: StsError | None = None

    async def assume(self, policy: str, session: str) -> TemporaryCredentials:
        self.asked.append((policy, session))
        if self.trouble:
            raise self.trouble
        number = str(len(self.asked))
        return TemporaryCredentials("access-" + number, "secret", "token", self.now() + timedelta(hours=HOURS))


def with_service(world: Any) -> Service:
    world.service = Service(world.now)
    return world.service


def key_in(secret: dict[str, Any]) -> str:
    return base64.b64decode(secret["data"]["access_key"]).decode()


def test_the_policy_opens_the_input_the_model_and_the_jobs_own_prefix(record: Callable[..., SegmentationJob]) -> None:
    policy = json.loads(session_policy(record("tomo-1"), "lab-data"))

    read, own, checkpoint = policy["Statement"]
    assert (read["Effect"], read["Action"]) == ("Allow", ["s3:GetObject"])
    assert read["Resource"] == [
        "arn:aws:s3:::lab-data/files/file_abc123def456/volume",
        "arn:aws:s3:::lab-data/models/membranes/*",
    ]
    assert (own["Effect"], own["Resource"]) == ("Allow", ["arn:aws:s3:::lab-data/jobs/uid-of-tomo-1/*"])
    assert own["Action"] == ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    assert checkpoint["Action"] == ["s3:DeleteObject"]
    assert checkpoint["Resource"] == ["arn:aws:s3:::lab-data/jobs/uid-of-tomo-1/checkpoint/*"]


def test_the_policy_of_a_job_on_an_object_opens_that_object_only(record: Callable[..., SegmentationJob]) -> None:
    policy = json.loads(session_policy(record(input={"object": "incoming/t.mrc"}), "b", "aws-cn"))

    assert policy["Statement"][0]["Resource"][0] == "arn:aws-cn:s3:::b/incoming/t.mrc"


def test_the_secret_belongs_to_the_job_and_has_what_the_runner_reads(record: Callable[..., SegmentationJob]) -> None:
    credentials = TemporaryCredentials("a", "s", "t", datetime(2026, 3, 2, tzinfo=UTC))

    secret = secret_manifest(record("tomo-1"), "uid-of-the-job", credentials, "PEM")

    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "tomo-1-s3",
            "namespace": "lab",
            "labels": {"app.kubernetes.io/managed-by": "cryomamba", "cryomamba.io/job": "tomo-1"},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": "tomo-1",
                    "uid": "uid-of-the-job",
                    "controller": True,
                }
            ],
        },
        "type": "cryomamba.io/s3-credentials",
        "data": {"access_key": "YQ==", "secret_key": "cw==", "session_token": "dA==", "ca.crt": "UEVN"},
    }


def test_credentials_are_not_shown_by_what_prints_them() -> None:
    shown = repr(TemporaryCredentials("acc-1", "sec-1", "tok-1", datetime(2026, 3, 2, tzinfo=UTC)))

    assert not any(word in shown for word in ("acc-1", "sec-1", "tok-1"))


def test_a_job_gets_its_credentials_right_after_its_job(play: Play) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after()

        assert world.cluster.calls == [
            "list_records",
            "create_job tomo-1",
            "apply_secret tomo-1-s3",
            "patch_status tomo-1",
        ]
        owner = world.cluster.secrets["tomo-1-s3"]["metadata"]["ownerReferences"][0]
        assert owner["uid"] == world.cluster.jobs[key]["metadata"]["uid"]
        assert service.asked[0][1] == "cryomamba-tomo-1"

    play(story)


def test_credentials_are_renewed_at_half_of_their_life_while_the_job_runs(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        await world.start()
        key = world.cluster.submit("tomo-1", activeDeadlineSeconds=604800)
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        await world.after(HOURS * HOUR / 2 - 60)
        assert len(service.asked) == 1
        await world.after(120)
        assert len(service.asked) == 2
        assert key_in(world.cluster.secrets["tomo-1-s3"]) == "access-2"
        world.cluster.end_job(key, "Complete")
        await world.after(3 * HOURS * HOUR)

        assert len(service.asked) == 2

    play(story)


def test_after_a_restart_the_jobs_that_run_get_new_credentials_once(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        await world.start()
        key = world.cluster.submit("done", minute=0)
        world.cluster.submit("tomo-1", minute=1)
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        world.cluster.end_job(key, "Complete")
        await world.after()
        del service.asked[:]
        await world.start()
        await world.after(HOUR)

        assert [session for _, session in service.asked] == ["cryomamba-tomo-1"]
        assert world.cluster.count("apply_secret tomo-1-s3") == 2

    play(story)


def test_credentials_that_this_process_has_not_given_are_due_at_any_time(
    record: Callable[..., SegmentationJob], settings: Settings, now: datetime
) -> None:
    times = iter([now + timedelta(microseconds=number) for number in range(9)])
    own = OwnCredentials(Service(lambda: now), None, settings, lambda: next(times))  # type: ignore[arg-type]

    due = own.due(record("tomo-1"), "uid-of-the-job")

    assert due is not None
    assert due < now


def test_a_renewal_that_fails_is_told_and_tried_again_and_ends_nothing(play: Play, raw_pod: Make) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        await world.start()
        key = world.cluster.submit("tomo-1", activeDeadlineSeconds=604800)
        await world.after()
        world.cluster.put_pod(raw_pod(node="gpu-1", phase="Running", state=RUNNING))
        service.trouble = StsError(Trouble.UNREACHABLE, "no route")
        await world.after(HOURS * HOUR / 2 + 600)
        assert world.condition(key, "Running") == ("True", "Running")
        assert "StoreUnreachable" in [event["reason"] for event in world.cluster.events]
        service.trouble = None
        await world.after(120)

        assert key_in(world.cluster.secrets["tomo-1-s3"]).startswith("access-")
        assert world.condition(key, "Running") == ("True", "Running")

    play(story)


@pytest.mark.parametrize(
    ("trouble", "reason", "names"),
    [
        (Trouble.DENIED, "StoreKeysRefused", "CRYOMAMBA_OPERATOR_S3_ACCESS_KEY_FILE"),
        (Trouble.ABSENT, "NoTemporaryCredentials", "CRYOMAMBA_OPERATOR_S3_CREDENTIALS"),
        (Trouble.REFUSED, "CredentialsRefused", "CRYOMAMBA_OPERATOR_S3_CREDENTIALS_SECONDS"),
        (Trouble.KEYS, "NoStoreKeys", "CRYOMAMBA_OPERATOR_S3_SECRET_KEY_FILE: /keys/secret_key is empty"),
    ],
)
def test_without_credentials_there_is_no_job_and_after_the_grace_the_setting_is_named(
    play: Play, trouble: Trouble, reason: str, names: str
) -> None:
    async def story(world: Any) -> None:
        words = f"{names}" if trouble is Trouble.KEYS else "InvalidAccessKeyId: no such key"
        with_service(world).trouble = StsError(trouble, words)
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after(100)
        assert world.condition(key, "Scheduled") == ("False", reason)
        assert world.condition(key, "Finished") == ("False", "InProgress")
        assert [event["reason"] for event in world.cluster.events] == [reason]
        await world.after(250)

        assert world.condition(key, "Succeeded") == ("False", reason)
        failure = world.status(key)["failure"]
        assert names in failure["hint"] + failure["message"]
        assert not world.cluster.count("create_job")

    play(story)


def test_a_job_starts_by_itself_when_the_store_is_back(play: Play) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        service.trouble = StsError(Trouble.UNREACHABLE, "no route")
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after(1200)
        assert world.condition(key, "Scheduled") == ("False", "StoreUnreachable")
        service.trouble = None
        await world.after(11)

        assert world.condition(key, "Scheduled") == ("False", "Pending")
        assert "tomo-1-s3" in world.cluster.secrets

    play(story)


def test_a_store_that_is_away_is_asked_for_one_job_and_not_for_all(play: Play) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        service.trouble = StsError(Trouble.UNREACHABLE, "timed out")
        await world.start(max_active_jobs=50)
        for number in range(50):
            world.cluster.submit(f"tomo-{number}")
        await world.after(60)
        value = world.operator.metrics.registry.get_sample_value

        assert len(service.asked) <= 60 / 5 + 1
        assert value("cryomamba_operator_credentials_total", {"result": "error"}) > 100
        assert value("cryomamba_operator_credentials_total", {"result": "success"}) is None

    play(story)


def test_a_job_that_a_quota_keeps_waiting_asks_the_store_once(play: Play) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        words = (
            "exceeded quota: jobs, requested: count/jobs.batch=1, used: count/jobs.batch=2, limited: count/jobs.batch=2"
        )
        world.cluster.fail("create_job", *(RefusedError(403, words) for _ in range(20)))
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after(60)
        assert world.condition(key, "Scheduled") == ("False", "QuotaExceeded")
        assert len(service.asked) == 1
        await world.after(60)

        assert world.condition(key, "Scheduled") == ("False", "Pending")
        assert len(service.asked) == 1
        assert key_in(world.cluster.secrets["tomo-1-s3"]) == "access-1"

    play(story)


def test_a_wrong_key_fails_the_first_jobs_of_the_queue_and_not_all_of_them(play: Play) -> None:
    async def story(world: Any) -> None:
        service = with_service(world)
        service.trouble = StsError(Trouble.DENIED, "SignatureDoesNotMatch")
        await world.start(max_active_jobs=1)
        keys = [world.cluster.submit(f"tomo-{number}", minute=number) for number in range(5)]
        await world.after(450)
        service.trouble = None
        await world.after(10)

        assert [world.condition(key, "Finished")[0] for key in keys] == ["True", *["False"] * 4]
        assert world.status(keys[1])["jobName"] == "tomo-1"

    play(story)


def test_a_secret_that_is_somebody_elses_is_left_alone_and_the_job_fails_with_its_name(play: Play) -> None:
    async def story(world: Any) -> None:
        with_service(world)
        world.cluster.fail("apply_secret", RefusedError(422, 'Secret "tomo-1-s3" is invalid: type: field is immutable'))
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after(1)

        assert world.condition(key, "Succeeded") == ("False", "SecretNameTaken")
        assert "tomo-1-s3" in world.status(key)["failure"]["message"]
        assert not world.cluster.jobs

    play(story)


def test_an_operator_that_dies_between_job_and_secret_makes_up_for_it(play: Play) -> None:
    async def story(world: Any) -> None:
        with_service(world)
        world.cluster.fail("apply_secret", UnavailableError("connection refused"))
        await world.start()
        key = world.cluster.submit("tomo-1")
        await world.after(5)

        assert world.cluster.count("create_job") == 1
        owner = world.cluster.secrets["tomo-1-s3"]["metadata"]["ownerReferences"][0]
        assert owner["uid"] == world.cluster.jobs[key]["metadata"]["uid"]

    play(story)
