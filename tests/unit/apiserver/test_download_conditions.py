"""What of a download is sent, by the headers of the request."""

from datetime import UTC, datetime

import pytest

from cryomamba_apiserver.artifacts.conditions import Representation, Span, Unsent, wanted

HELD = Representation(size=1000, etag='"abc"', modified_at=datetime(2025, 10, 17, 10, 30, 0, 123, tzinfo=UTC))
WHOLE = Span(0, 1000, partial=False)
SEEN = "Fri, 17 Oct 2025 10:30:00 GMT"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=900-", 900, 1000),
        ("bytes=900-5000", 900, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=0-999999999999999999999999999999", 0, 1000),
        ("BYTES = 1-2", 1, 3),
    ],
)
def test_one_range_is_sent_as_it_is_asked_for(asked, start, stop):
    assert wanted("GET", {"range": asked}, HELD) == Span(start, stop, partial=True)


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-6",
        "bytes=5-4",
        "bytes=-",
        "bytes=",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=\u0661-\u0662",
        "items=0-1",
        "bytes=" + "9" * 5000 + "-",
        "",
    ],
)
def test_a_range_that_is_not_understood_is_ignored(asked):
    assert wanted("GET", {"range": asked}, HELD) == WHOLE


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=99999999999999999999-"])
def test_a_range_beyond_the_end_cannot_be_satisfied(asked):
    assert wanted("GET", {"range": asked}, HELD) is Unsent.UNSATISFIABLE


def test_no_range_of_an_empty_file_can_be_satisfied():
    empty = Representation(size=0, etag='"abc"', modified_at=HELD.modified_at)

    assert wanted("GET", {"range": "bytes=0-"}, empty) is Unsent.UNSATISFIABLE
    assert wanted("GET", {}, empty) == Span(0, 0, partial=False)


def test_a_range_means_nothing_to_head():
    assert wanted("HEAD", {"range": "bytes=0-1"}, HELD) == WHOLE


@pytest.mark.parametrize("seen", ['"abc"', SEEN])
def test_a_download_goes_on_where_it_broke_off_if_the_file_is_still_the_same(seen):
    assert wanted("GET", {"range": "bytes=500-", "if-range": seen}, HELD) == Span(500, 1000, partial=True)


@pytest.mark.parametrize("seen", ['"other"', 'W/"abc"', "Fri, 17 Oct 2025 10:30:01 GMT", "nonsense"])
def test_a_download_starts_again_if_the_file_is_another(seen):
    assert wanted("GET", {"range": "bytes=500-", "if-range": seen}, HELD) == WHOLE


@pytest.mark.parametrize(
    "headers",
    [
        {"if-none-match": '"abc"'},
        {"if-none-match": '"other", W/"abc"'},
        {"if-none-match": "*"},
        {"if-modified-since": SEEN},
        {"if-modified-since": "Sat, 18 Oct 2025 10:30:00 GMT"},
        {"if-none-match": '"abc"', "range": "bytes=0-1"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_is_not_sent_again(method, headers):
    assert wanted(method, headers, HELD) is Unsent.NOT_MODIFIED


@pytest.mark.parametrize(
    "headers",
    [
        {"if-none-match": '"other"'},
        {"if-none-match": "abc"},
        {"if-none-match": '"other"', "if-modified-since": SEEN},  # the date counts only where there is no tag
        {"if-modified-since": "Fri, 17 Oct 2025 10:29:59 GMT"},
        {"if-modified-since": "yesterday"},
        {"if-modified-since": "Fri, 99 Oct 2025 10:29:59 GMT"},
    ],
)
def test_what_the_client_has_not_is_sent(headers):
    assert wanted("GET", headers, HELD) == WHOLE
