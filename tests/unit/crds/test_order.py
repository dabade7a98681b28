from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba_crds.ids import Key
from cryomamba_crds.order import SUBMITTED_ANNOTATION, Candidate, choose, created_at
from cryomamba_operator.admission import Admission

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def candidate(name: str, *, owner: str = "ada", priority: int = 0, minute: int = 0) -> Candidate:
    return Candidate(Key("lab", name), owner, priority, NOON + timedelta(minutes=minute))


def names(chosen: list[Candidate]) -> list[str]:
    return [item.key.name for item in chosen]


def test_the_oldest_comes_first() -> None:
    waiting = [candidate("late", minute=3), candidate("early", minute=1), candidate("middle", minute=2)]

    assert names(choose(waiting, {}, 2)) == ["early", "middle"]


def test_what_was_created_in_the_same_second_goes_by_name() -> None:
    assert names(choose([candidate("b"), candidate("c"), candidate("a")], {}, 3)) == ["a", "b", "c"]


def test_priority_comes_before_fairness_and_age() -> None:
    waiting = [candidate("old", owner="bob"), candidate("urgent", owner="ada", priority=10, minute=9)]

    assert names(choose(waiting, {"ada": 5}, 1)) == ["urgent"]


def test_the_owner_with_the_fewest_places_comes_first() -> None:
    waiting = [candidate("a1"), candidate("a2"), candidate("b1", owner="bob", minute=5)]

    assert names(choose(waiting, {"ada": 1}, 3)) == ["b1", "a1", "a2"]


def test_owners_take_turns() -> None:
    waiting = [candidate(f"a{i}", minute=i) for i in range(4)]
    waiting += [candidate(f"b{i}", owner="bob", minute=10 + i) for i in range(2)]

    assert names(choose(waiting, {}, 6)) == ["a0", "b0", "a1", "b1", "a2", "a3"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 5)), max_size=30),
    st.integers(0, 10),
)
def test_everybody_is_chosen_once_and_never_more_than_there_are_places(
    people: list[tuple[str, int, int]], places: int
) -> None:
    waiting = [
        candidate(f"job-{i}", owner=owner, priority=priority, minute=minute)
        for i, (owner, priority, minute) in enumerate(people)
    ]

    chosen = choose(waiting, {}, places)

    assert len(chosen) == min(places, len(waiting))
    assert len({item.key for item in chosen}) == len(chosen)
    assert [item.priority for item in chosen] == sorted((item.priority for item in chosen), reverse=True)


def test_a_place_is_given_on_only_when_it_is_left() -> None:
    admission = Admission(limit=1)
    for number in range(3):
        admission.want(candidate(f"job-{number}", minute=number))

    first = admission.settle(NOON)
    nobody = admission.settle(NOON)
    admission.leave(Key("lab", "job-0"))
    second = admission.settle(NOON)

    assert (names_of(first), names_of(nobody), names_of(second)) == (["job-0"], [], ["job-1"])


def test_jobs_that_exist_already_count_even_beyond_the_limit() -> None:
    admission = Admission(limit=1)
    admission.hold(Key("lab", "one"), "ada")
    admission.hold(Key("lab", "two"), "ada")
    admission.want(candidate("three"))
    admission.leave(Key("lab", "one"))

    assert admission.settle(NOON) == []
    assert admission.held == 1


def test_a_blocked_record_lets_the_next_one_pass_and_comes_back() -> None:
    admission = Admission(limit=1)
    admission.want(candidate("taken", minute=0))
    admission.want(candidate("free", minute=1))
    admission.settle(NOON)
    admission.block(candidate("taken", minute=0), NOON + timedelta(seconds=15))

    assert names_of(admission.settle(NOON)) == ["free"]
    admission.leave(Key("lab", "free"))
    assert names_of(admission.settle(NOON + timedelta(seconds=14))) == []
    assert names_of(admission.settle(NOON + timedelta(seconds=15))) == ["taken"]


def test_more_gpus_make_more_places() -> None:
    admission = Admission(limit=1)
    for number in range(3):
        admission.want(candidate(f"job-{number}", minute=number))
    admission.settle(NOON)
    admission.resize(3)

    assert names_of(admission.settle(NOON)) == ["job-1", "job-2"]


def names_of(keys: list[Key]) -> list[str]:
    return [key.name for key in keys]


SECOND = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("annotations", "microseconds"),
    [
        ({}, 0),
        ({SUBMITTED_ANNOTATION: "2026-01-02T03:04:05.250000+00:00"}, 250_000),
        ({SUBMITTED_ANNOTATION: "2026-01-02T03:04:04.900000+00:00"}, 0),
        ({SUBMITTED_ANNOTATION: "1970-01-01T00:00:00+00:00"}, 0),
        ({SUBMITTED_ANNOTATION: "2026-01-02T03:05:00+00:00"}, 999_999),
        ({SUBMITTED_ANNOTATION: "2026-01-02T03:04:05.250000"}, 0),
        ({SUBMITTED_ANNOTATION: "yesterday"}, 0),
    ],
)
def test_a_submission_is_believed_within_the_second_of_its_creation_only(annotations, microseconds):
    created = created_at({"creationTimestamp": SECOND, "annotations": annotations})

    assert created == datetime(2026, 1, 2, 3, 4, 5, microseconds, tzinfo=UTC)
