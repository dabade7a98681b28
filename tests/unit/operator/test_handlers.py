"""What is left of kopf's watches when the operator stops."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from kopf._cogs.clients import watching
from kopf._cogs.structs.references import Resource

from cryomamba_operator.handlers import closed_watches, watch_settings
from cryomamba_operator.settings import Settings


def test_a_watch_that_is_stopped_while_it_hands_on_an_event_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, settings: Settings
) -> None:
    async def events(**_: Any) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield {"type": "ADDED", "object": {}}

    monkeypatch.setattr(watching, "continuous_watch", events)
    pods = Resource(group="", version="v1", plural="pods", namespaced=True)
    found: list[Any] = []

    async def stopped() -> None:
        async with closed_watches():
            watch = watching.infinite_watch(settings=watch_settings(settings), resource=pods, namespace=None)
            found.append(watch)  # as the traceback of a cancelled task keeps it
            async for _ in watch:
                break
        assert watch.ag_frame is None  # type: ignore[attr-defined] - nothing is left of it

    asyncio.run(stopped())

    assert caplog.records == []


def test_what_others_generate_is_left_to_them() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def read() -> list[int]:
        generator = numbers()
        async with closed_watches():
            first = await anext(generator)
        return [first, *[number async for number in generator]]

    assert asyncio.run(read()) == [1, 2]
