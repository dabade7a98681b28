"""Forms that answers have in common."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer, WithJsonSchema


def _to_wire(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


Timestamp = Annotated[
    datetime,
    PlainSerializer(_to_wire, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A moment in UTC to the second, written `2025-10-17T10:30:00Z`."""


class RequestBody(BaseModel):
    """A JSON body that a client sends; a field that we don't know is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
