"""The stores that the contract is tried on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.s3_store import S3ObjectStore
from cryomamba_apiserver.ports.object_store import ObjectStore


@pytest.fixture(params=["directory", "s3"])
def with_store(request, tmp_path) -> Callable[[Callable[[ObjectStore], Awaitable[Any]]], Any]:
    """Runs a test's coroutine with a store, and closes the store."""

    def run(work: Callable[[ObjectStore], Awaitable[Any]]) -> Any:
        async def scenario() -> Any:
            if request.param == "s3":
                store: ObjectStore = S3ObjectStore(request.getfixturevalue("bucket"))
            else:
                store = DirectoryObjectStore(tmp_path)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(scenario())

    return run
