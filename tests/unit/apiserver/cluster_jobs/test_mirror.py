"""The mirror: the newest news counts, in whatever order it comes."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry
from cryomamba_apiserver.adapters.cluster_jobs.mirror import Mirror
from cryomamba_apiserver.ports.job_store import JobStatus

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def entry(name: str = "a", version: int = 1, *, age: int = 0, uid: str | None = None, **fields) -> Entry:
    return Entry(
        **{
            "name": name,
            "uid": uid or f"uid of {name}",
            "version": version,
            "created": NOON - timedelta(minutes=age),
            "owner": "ada",
            "owner_label": "ada",
            "status": JobStatus.QUEUED,
            "completed_at": None,
            "digest": None,
            "fingerprint": None,
            "retry_key": None,
            "retry_round": 0,
            "priority_class": None,
            "placed": False,
            "deleting": False,
            "text": b"{}",
            **fields,
        }
    )


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


def names(mirror: Mirror) -> list[str]:
    return [known.name for known in mirror.newest_first()]


def test_older_news_changes_nothing(mirror):
    mirror.put(entry(version=5))

    mirror.put(entry(version=4, status=JobStatus.RUNNING))

    assert mirror.get("a") == entry(version=5)


def test_jobs_are_told_by_their_age(mirror):
    for job in (entry("a", age=1), entry("b", age=3), entry("c", age=2)):
        mirror.put(job)

    assert names(mirror) == ["a", "c", "b"]
    assert [known.name for known in mirror.oldest_first()] == ["b", "c", "a"]


def test_a_job_that_changes_is_there_once(mirror):
    mirror.put(entry(version=1, fingerprint="f", retry_key="k"))
    mirror.put(entry(version=2, fingerprint="f", retry_key="k"))

    assert names(mirror) == ["a"]
    assert mirror.with_fingerprint("f") == mirror.with_retry_key("k") == [mirror.get("a")]


def test_a_job_that_is_gone_is_not_brought_back_by_late_news(mirror):
    mirror.put(entry(version=1, fingerprint="f"))
    mirror.drop("a", "uid of a")

    mirror.put(entry(version=3, fingerprint="f"))

    assert names(mirror) == []
    assert mirror.with_fingerprint("f") == []


def test_another_job_of_the_same_name_is_another_job(mirror):
    mirror.put(entry(version=1))
    mirror.put(entry(version=5, uid="the next", age=-1))

    mirror.drop("a", "uid of a")

    assert [known.uid for known in mirror.newest_first()] == ["the next"]


def test_a_list_removes_what_it_does_not_have_and_nothing_newer_than_itself(mirror):
    for job in (entry("listed", 3), entry("gone", 4), entry("new", 11)):
        mirror.put(job)

    mirror.retain({"uid of listed"}, version=10)

    assert sorted(names(mirror)) == ["listed", "new"]


def test_who_watches_a_job_is_woken_by_its_changes_only(mirror):
    async def watch() -> list[bool]:
        with mirror.watching("a") as bell:
            mirror.put(entry("b"))
            others = bell.is_set()
            mirror.put(entry("a"))
            own = bell.is_set()
            bell.clear()
            mirror.drop("a", "uid of a")
            return [others, own, bell.is_set()]

    assert asyncio.run(watch()) == [False, True, True]
