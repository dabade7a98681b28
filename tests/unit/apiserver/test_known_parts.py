"""The hint that makes looking up a part cheap."""

from hypothesis import given
from hypothesis import strategies as st

from cryomamba_apiserver.adapters.s3_store.known_parts import KnownParts


@given(st.lists(st.integers(0, 50)), st.integers(0, 50))
def test_the_last_part_before_another_is_found(numbers, number):
    known = KnownParts()
    for put in numbers:
        known.add("u", put)

    assert known.last_before("u", number) == max((put for put in numbers if put < number), default=None)


def test_uploads_are_forgotten_when_they_end_or_are_too_many():
    known = KnownParts()
    for upload in range(1001):
        known.add(str(upload), 0)
    known.forget("1000")

    assert [known.last_before(upload, 1) for upload in ("0", "1", "1000")] == [None, 0, None]
