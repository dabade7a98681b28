"""What goes over the wire to an API server, and what its answers become."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client

from cryomamba_crds.ids import Key
from cryomamba_operator import __main__ as command
from cryomamba_operator.app import run
from cryomamba_operator.cluster import KubernetesCluster, open_session
from cryomamba_operator.ports import ConflictError, GoneError, RefusedError
from cryomamba_operator.queue import UnavailableError
from cryomamba_operator.settings import Settings

KEY = Key("lab", "tomo-1")
Answer = tuple[int, Any]
Story = Callable[[KubernetesCluster, list[dict[str, Any]]], Awaitable[None]]
Talk = Callable[..., None]


@pytest.fixture
def talk() -> Talk:
    """Run a story with a cluster whose API server gives these answers, one after another, and then the last again."""

    def start(story: Story, *answers: Answer, namespaces: tuple[str, ...] = ("lab",), token: str = "secret") -> None:
        requests: list[dict[str, Any]] = []

        async def answer(request: web.Request) -> web.Response:
            body = await request.read()
            requests.append(
                {
                    "method": request.method,
                    "path": request.path,
                    "query": dict(request.query),
                    "body": json.loads(body) if body else None,
                    "type": request.content_type,
                    "authorization": request.headers.get("Authorization"),
                }
            )
            status, payload = answers[min(len(requests), len(answers)) - 1]
            return web.json_response(payload, status=status)

        async def told() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            configuration = client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
            configuration.api_key["BearerToken"] = f"Bearer {token}"
            try:
                async with open_session(configuration, timeout=5) as session:
                    await story(KubernetesCluster(configuration, session, namespaces), requests)
            finally:
                await runner.cleanup()

        asyncio.run(told())

    return start


def page(*items: Any, token: str = "", version: str = "7") -> Answer:
    return 200, {"metadata": {"resourceVersion": version, "continue": token}, "items": list(items)}


def refusal(status: int, message: str) -> Answer:
    return status, {"kind": "Status", "status": "Failure", "message": message, "code": status}


def test_lists_are_read_page_by_page(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        pages = [found async for found in cluster.list_jobs()]

        assert [[item["n"] for item in found.items] for found in pages] == [[1], [2], [3]]
        assert {found.resource_version for found in pages} == {7}
        assert [request["query"].get("continue") for request in requests] == [None, "next", None]
        assert {request["query"]["labelSelector"] for request in requests} == {"app.kubernetes.io/managed-by=cryomamba"}
        assert [request["path"] for request in requests] == [
            "/apis/batch/v1/namespaces/lab/jobs",
            "/apis/batch/v1/namespaces/lab/jobs",
            "/apis/batch/v1/namespaces/clinic/jobs",
        ]

    talk(story, page({"n": 1}, token="next"), page({"n": 2}), page({"n": 3}), namespaces=("lab", "clinic"))


def test_without_namespaces_everything_is_listed(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        (found,) = [found async for found in cluster.list_records()]

        assert found.items[0]["kind"] == "SegmentationJob"
        assert requests[0]["path"] == "/apis/cryomamba.io/v1alpha1/segmentationjobs"

    talk(story, page({"metadata": {}}), namespaces=())


def test_a_status_is_merged_and_the_answer_returned(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        assert await cluster.patch_status(KEY, {"status": {"attempt": 1}}) == {"new": True}

        (request,) = requests
        assert request["method"] == "PATCH"
        assert request["path"] == "/apis/cryomamba.io/v1alpha1/namespaces/lab/segmentationjobs/tomo-1/status"
        assert request["type"] == "application/merge-patch+json"
        assert request["body"] == {"status": {"attempt": 1}}
        assert request["authorization"] == "Bearer secret"

    talk(story, (200, {"new": True}))


def test_a_job_is_deleted_by_its_uid_and_its_pods_after_it(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        await cluster.delete_job(KEY, "uid-1")

        assert requests[0]["body"] == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}

    talk(story, (200, {}))


def test_a_job_of_another_uid_is_left_alone(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, _: list[dict[str, Any]]) -> None:
        with pytest.raises(GoneError, match="UID in precondition"):
            await cluster.delete_job(KEY, "uid-1")

    talk(story, refusal(409, "Precondition failed: UID in precondition: uid-1, UID in object meta: uid-2"))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusal(404, "not found"), GoneError),
        (refusal(409, "already exists"), ConflictError),
        (refusal(422, "is invalid"), RefusedError),
        (refusal(403, 'jobs "tomo-1" is forbidden: exceeded quota: q'), RefusedError),
        (refusal(403, 'jobs.batch is forbidden: User "system:serviceaccount:a:b" cannot create'), UnavailableError),
        (refusal(401, "Unauthorized"), UnavailableError),
        (refusal(429, "too many requests"), UnavailableError),
        (refusal(410, "the continue token has expired"), UnavailableError),
        (refusal(500, "etcdserver: request timed out"), UnavailableError),
        ((503, "not even a Status"), UnavailableError),
    ],
)
def test_what_an_api_server_says_no_with(talk: Talk, answer: Answer, expected: type[Exception]) -> None:
    async def story(cluster: KubernetesCluster, _: list[dict[str, Any]]) -> None:
        with pytest.raises(expected):
            await cluster.create_job({"metadata": {"namespace": "lab"}})

    talk(story, answer)


def test_what_is_not_there_reads_as_none(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, _: list[dict[str, Any]]) -> None:
        assert await cluster.read_job(KEY) is None
        assert await cluster.read_record(KEY) is None

    talk(story, refusal(404, "not found"))


def test_an_api_server_that_is_away_is_told_from_one_that_refuses() -> None:
    async def story() -> None:
        configuration = client.Configuration(host="http://127.0.0.1:9")
        async with open_session(configuration, timeout=5) as session:
            with pytest.raises(UnavailableError, match="GET"):
                await KubernetesCluster(configuration, session, ()).read_job(KEY)

    asyncio.run(story())


def test_gpus_taints_and_priorities_are_those_of_the_whole_cluster(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        assert await cluster.count_gpus() == 10
        assert await cluster.taints() == ["dedicated"]
        assert await cluster.priorities() == {"urgent": 100, "usual": 5, None: 5}
        assert [request["path"] for request in requests] == [
            "/api/v1/nodes",
            "/api/v1/nodes",
            "/apis/scheduling.k8s.io/v1/priorityclasses",
        ]

    def node(gpus: int, taint: str, effect: str) -> dict[str, Any]:
        allocatable = {"cpu": "4", "nvidia.com/gpu": str(gpus)}
        return {"status": {"allocatable": allocatable}, "spec": {"taints": [{"key": taint, "effect": effect}]}}

    nodes = page(node(8, "dedicated", "NoExecute"), node(2, "soft", "PreferNoSchedule"), {"status": {}})
    classes = page(
        {"metadata": {"name": "urgent"}, "value": 100},
        {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True},
    )
    talk(story, nodes, nodes, classes)


def test_warnings_are_asked_for_by_uid(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        (event,) = await cluster.warnings_about("lab", "uid-1")

        assert (event.reason, event.message) == ("FailedCreate", "no")
        assert requests[0]["query"]["fieldSelector"] == "involvedObject.uid=uid-1,type=Warning"

    talk(story, page({"metadata": {}, "reason": "FailedCreate", "message": "no"}))


def test_others_are_told_the_token_without_its_scheme(talk: Talk) -> None:
    async def story(cluster: KubernetesCluster, _: list[dict[str, Any]]) -> None:
        credentials = await cluster.credentials()

        assert credentials.token == "secret"
        assert credentials.server.startswith("http://127.0.0.1:")

    talk(story, page())


def test_without_the_custom_resource_the_operator_does_not_start(talk: Talk, settings: Settings) -> None:
    async def story(cluster: KubernetesCluster, requests: list[dict[str, Any]]) -> None:
        with pytest.raises(GoneError):
            await run(settings, cluster, {}, None)

        assert len(requests) == 1

    talk(story, refusal(404, "the server could not find the requested resource"))


def test_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def no_resource(_: Settings) -> None:
        raise GoneError("the server could not find the requested resource")

    monkeypatch.setattr(command, "_run", no_resource)
    set_all(monkeypatch)

    assert command.main() == 1
    assert "apply crds/segmentationjobs.yaml" in caplog.text


def test_the_command_says_which_setting_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_all(monkeypatch, IMAGE=None, S3_BUCKET=None)

    assert command.main() == 2
    assert "CRYOMAMBA_OPERATOR_IMAGE: Field required; CRYOMAMBA_OPERATOR_S3_BUCKET: Field required" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"S3_ENDPOINT": "minio:9000"}, "CRYOMAMBA_OPERATOR_S3_ENDPOINT"),
        ({"SHARED_SECRET": None}, "CRYOMAMBA_OPERATOR_SHARED_SECRET is needed where"),
        ({"S3_CREDENTIALS": "sts"}, "CRYOMAMBA_OPERATOR_S3_ACCESS_KEY_FILE is needed where"),
        (
            {"S3_CREDENTIALS": "sts", "S3_ACCESS_KEY_FILE": "/no/such", "S3_SECRET_KEY_FILE": "/no/such"},
            "CRYOMAMBA_OPERATOR_S3_ACCESS_KEY_FILE: /no/such cannot be read",
        ),
        ({"S3_CA_FILE": "/no/such"}, "CRYOMAMBA_OPERATOR_S3_CA_FILE: /no/such cannot be read"),
    ],
)
def test_without_an_object_store_the_operator_does_not_start_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: dict[str, str | None], told: str
) -> None:
    set_all(monkeypatch, **wrong)

    assert command.main() == 2
    assert told in caplog.text


def set_all(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    """Set what has no default, with changes; None: not at all."""
    values = {
        "IMAGE": "runner:1",
        "S3_ENDPOINT": "http://minio:9000",
        "S3_BUCKET": "cryomamba",
        "S3_CREDENTIALS": "shared",
        "SHARED_SECRET": "bucket",
    }
    for name, value in (values | changes).items():
        if value is None:
            monkeypatch.delenv(f"CRYOMAMBA_OPERATOR_{name}", raising=False)
        else:
            monkeypatch.setenv(f"CRYOMAMBA_OPERATOR_{name}", value)
