"""The watch of jobs: whatever Kubernetes does, the mirror becomes what it is, and what is wrong is told."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from cryomamba_apiserver.adapters.cluster_jobs.client import CONNECTED, RIGHTS, Page
from cryomamba_apiserver.adapters.cluster_jobs.mirror import Mirror
from cryomamba_apiserver.adapters.cluster_jobs.refusals import Asked, ExpiredError, not_allowed, refusal, unreachable
from cryomamba_apiserver.adapters.cluster_jobs.watch import JobWatch
from cryomamba_apiserver.ports.job_store import JobsUnavailableError
from support.segmentation_jobs import segmentation_job

ASKED = Asked("list", "segmentationjobs.cryomamba.io", "here")
Step = Callable[[], Any]


def job(name: str, version: int) -> dict[str, Any]:
    raw = segmentation_job(name)
    raw["metadata"] |= {
        "uid": f"uid of {name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    return raw


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": job(name, version)}


class ScriptedApi:
    """Kubernetes as a test wants it: lists and watches are answered in turn; the last of each again and again.

    An error among the answers is raised; a watch that has nothing more to say hangs, unless it ends with None.
    """

    namespace = "here"

    def __init__(self) -> None:
        self.lists: list[Any] = [([], 1)]
        self.watches: list[list[Any]] = [[]]
        self.watched_from: list[int] = []
        self.forbidden: set[str] = set()
        self.namespace_trouble: Exception | None = None

    async def namespace_is_there(self) -> None:
        if self.namespace_trouble:
            raise self.namespace_trouble

    async def may(self, verb: str) -> bool:
        return verb not in self.forbidden

    async def priorities(self) -> dict[str | None, int]:
        return {"urgent": 10}

    async def list_jobs(self) -> AsyncIterator[Page]:
        answer = _next(self.lists)
        if isinstance(answer, Exception):
            raise answer
        items, version = answer
        yield Page(items, version)

    async def watch_jobs(self, version: int, _seconds: int) -> AsyncGenerator[dict[str, Any], None]:
        self.watched_from.append(version)
        answers = _next(self.watches)
        if answers and isinstance(answers[0], JobsUnavailableError):
            raise answers[0]
        yield {"type": CONNECTED, "object": {}}
        for answer in answers:
            if answer is None:
                return
            if isinstance(answer, Exception):
                raise answer
            yield answer
        await asyncio.Event().wait()


def _next(answers: list[Any]) -> Any:
    return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryomamba_apiserver.adapters.cluster_jobs.watch._FIRST_PAUSE", 0.001)


def followed(
    api: ScriptedApi, until: Callable[[Mirror, JobWatch], bool], seconds: int = 30
) -> tuple[set[str], JobWatch]:
    """Follow until something is so; return the jobs that are known then."""
    mirror = Mirror()
    watch = JobWatch(api, mirror, seconds, grace=0.05)  # type: ignore[arg-type]

    async def follow() -> set[str]:
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(5):
            while not until(mirror, watch):  # noqa: ASYNC110 - the condition is the test's, nobody rings a bell
                await asyncio.sleep(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return {entry.name for entry in mirror.newest_first()}

    return asyncio.run(follow()), watch


def has(*names: str) -> Callable[[Mirror, JobWatch], bool]:
    return lambda mirror, _: {entry.name for entry in mirror.newest_first()} == set(names)


def test_what_is_listed_and_what_happens_afterwards_is_known(api):
    api.lists = [([job("a", 3), job("b", 4)], 5)]
    api.watches = [[event("ADDED", "c", 6), event("DELETED", "a", 7)]]

    names, watch = followed(api, has("b", "c"))

    assert names == {"b", "c"}
    assert api.watched_from == [5]
    assert watch.trouble is None
    assert watch.priorities == {"urgent": 10}


def test_a_watch_that_ends_goes_on_where_it_was_without_a_new_list(api):
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    api.lists = [([job("a", 3)], 5)]
    api.watches = [[event("ADDED", "b", 6), bookmark, None], [event("ADDED", "c", 10)]]

    _, watch = followed(api, has("a", "b", "c"))

    assert api.watched_from == [5, 9]
    assert watch.lists == 1


def test_a_connection_that_breaks_goes_on_where_it_was(api):
    api.lists = [([job("a", 3)], 5)]
    api.watches = [[event("ADDED", "b", 6), ConnectionError("reset")], [event("ADDED", "c", 7)]]

    _, watch = followed(api, has("a", "b", "c"))

    assert api.watched_from == [5, 6]
    assert watch.lists == 1


@pytest.mark.parametrize(
    "too_old",
    [
        ExpiredError("too old resource version"),
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version: 5 (90)"}},
    ],
)
def test_where_kubernetes_has_forgotten_what_happened_everything_is_listed_again(api, too_old):
    api.lists = [([job("a", 3), job("b", 4)], 5), ([job("b", 4), job("c", 80)], 90)]
    api.watches = [[too_old], []]

    _, watch = followed(api, has("b", "c"))

    assert watch.lists == 2


def test_what_cannot_be_read_is_not_asked_for_again(api):
    api.lists = [([job("a", 3)], 5), ([job("a", 3), job("b", 6)], 7)]
    api.watches = [[ValueError("Chunk too big")], []]

    _, watch = followed(api, has("a", "b"))

    assert watch.lists == 2
    assert api.watched_from == [5, 7]


def test_a_connection_that_says_nothing_any_more_is_given_up(api):
    api.lists = [([job("a", 3)], 5)]
    api.watches = [[event("ADDED", "b", 6)], [event("ADDED", "c", 7)]]

    followed(api, has("a", "b", "c"), seconds=0)

    assert api.watched_from[:2] == [5, 6]


def mended_once_it_says(api: ScriptedApi, words: str) -> Callable[[Mirror, JobWatch], bool]:
    """Let the list succeed as soon as the trouble has these words; it is over when there is no trouble any more."""

    def mended(_: Mirror, watch: JobWatch) -> bool:
        if words in str(watch.trouble):
            api.lists = [([job("a", 3)], 5)]
        return watch.trouble is None

    return mended


def test_an_api_server_that_is_away_is_named_until_it_is_back(api):
    api.lists = [unreachable(ASKED, ConnectionRefusedError())]

    names, _ = followed(api, mended_once_it_says(api, "cannot be reached"))

    assert names == {"a"}


def test_jobs_stay_known_while_the_api_server_is_away(api):
    away = unreachable(ASKED, ConnectionRefusedError())
    api.lists = [([job("a", 3)], 5)]
    api.watches = [[None], [away]]

    names, watch = followed(api, lambda _, watch: "cannot be reached" in str(watch.trouble))

    assert names == {"a"}
    watch.check_listed()


def test_before_the_first_list_jobs_are_not_known(api):
    watch = JobWatch(api, Mirror())  # type: ignore[arg-type]

    with pytest.raises(JobsUnavailableError, match="being listed"):
        watch.check_listed()


def test_a_missing_definition_is_named_and_mended_by_itself(api):
    body = b'{"kind":"Status","message":"the server could not find the requested resource","reason":"NotFound"}'
    api.lists = [refusal(ASKED, 404, body)]

    names, _ = followed(api, mended_once_it_says(api, "CustomResourceDefinition is not installed"))

    assert names == {"a"}


def test_a_missing_right_is_named_with_verb_and_resource_while_what_is_allowed_goes_on(api):
    api.lists = [([job("a", 3)], 5)]
    api.forbidden = {"create", "patch"}

    _, watch = followed(api, has("a"))

    assert str(watch.trouble) == (
        "The server is not allowed to create, patch segmentationjobs.cryomamba.io in the namespace here."
    )


def test_rights_that_may_not_be_looked_up_do_not_keep_jobs_from_being_known(api):
    api.lists = [([job("a", 3)], 5)]
    api.namespace_trouble = not_allowed(Asked("get", "namespaces", "here"))

    _, watch = followed(api, has("a"))

    assert watch.trouble is None


def test_a_missing_namespace_is_named(api):
    body = b'{"kind":"Status","message":"namespaces \\"here\\" not found","reason":"NotFound"}'
    api.namespace_trouble = refusal(Asked("get", "namespaces", "here"), 404, body)

    _, watch = followed(api, lambda _, watch: watch.trouble is not None and "namespace" in str(watch.trouble))

    assert "The namespace here is not there" in str(watch.trouble)


def test_a_kubernetes_that_was_put_back_to_an_earlier_time_is_believed(api):
    api.lists = [([job("a", 90)], 100), ([job("a", 8), job("b", 9)], 10)]
    api.watches = [[ExpiredError("too large resource version")], []]

    followed(api, has("a", "b"))


def test_one_job_that_cannot_be_read_does_not_hide_the_others(api):
    broken = job("broken", 4)
    del broken["spec"]
    api.lists = [([broken, job("a", 3)], 5)]

    names, _ = followed(api, has("a"))

    assert names == {"a"}


def test_every_right_is_asked_about(api):
    assert set(RIGHTS) == {"list", "watch", "get", "create", "patch", "delete"}
