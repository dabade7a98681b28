"""What of a download a client wants, by the headers of its request: RFC 9110, sections 13 and 14."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from enum import Enum

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,100})-([0-9]{0,100})[ \t]*", re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@dataclass(frozen=True)
class Representation:
    """What there is to download."""

    size: int
    """In bytes."""
    etag: str
    """Strong, with its quotes."""
    modified_at: datetime

    @property
    def last_modified(self) -> str:
        """As the header has it."""
        return format_datetime(self.modified_at.astimezone(UTC), usegmt=True)


class Unsent(Enum):
    """Why no bytes are sent."""

    NOT_MODIFIED = 304
    UNSATISFIABLE = 416


@dataclass(frozen=True)
class Span:
    """The bytes [start, stop) that are sent."""

    start: int
    stop: int
    partial: bool
    """Whether the client asked for a range; the range may be the whole."""


def wanted(method: str, headers: Mapping[str, str], held: Representation) -> Span | Unsent:
    """Return what to send.

    Args:
        method: `GET` or `HEAD`; a range means nothing to the latter.
        headers: Of the request, names in lower case.
        held: What there is.
    """
    if _client_has_it(headers, held):
        return Unsent.NOT_MODIFIED
    whole = Span(0, held.size, partial=False)
    asked = headers.get("range")
    if asked is None or method != "GET" or not _still_the_same(headers.get("if-range"), held):
        return whole
    return _range(asked, whole)


def _client_has_it(headers: Mapping[str, str], held: Representation) -> bool:
    if (tags := headers.get("if-none-match")) is not None:
        return tags.strip() == "*" or held.etag in _ENTITY_TAG.findall(tags)
    since = _date(headers.get("if-modified-since"))
    return since is not None and held.modified_at.replace(microsecond=0) <= since


def _still_the_same(if_range: str | None, held: Representation) -> bool:
    """Whether a range of what the client has seen before is a range of what there is now."""
    # A weak tag never matches here, and a date only where it is the very one that was sent.
    return if_range is None or if_range.strip() in (held.etag, held.last_modified)


def _range(asked: str, whole: Span) -> Span | Unsent:
    """Return one range; several, other units and nonsense are ignored, as section 14.2 allows: the whole is sent."""
    match = _ONE_RANGE.fullmatch(asked)
    if match is None or match.group(1) == match.group(2) == "":
        return whole
    first, last = match.groups()
    if first == "":  # the last so many bytes
        start, stop = max(0, whole.stop - int(last)), whole.stop
    else:
        start, stop = int(first), min(int(last) + 1, whole.stop) if last else whole.stop
        if last and int(last) < start:
            return whole
    return Span(start, stop, partial=True) if start < whole.stop else Unsent.UNSATISFIABLE


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
