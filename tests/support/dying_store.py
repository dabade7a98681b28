"""An object store whose server dies at a chosen moment, for tests that step through every one."""

from collections.abc import Callable
from typing import Any


class ServerDied(BaseException):
    """Like kill -9: nothing that would tidy up may catch it by name."""


class DyingStore:
    """Passes calls on; the n-th one that changes something is the last, before or after it was done."""

    CHANGES = frozenset(
        {"write", "write_file", "delete", "delete_prefix", "create_upload", "put_part", "finish_upload", "abort_upload"}
    )

    def __init__(self, store: Any, last: int, *, done: bool) -> None:
        self._store, self._left, self._done = store, last, done

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._dying(method) if name in self.CHANGES else method

    def _dying(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self._left < 0:
                raise ServerDied  # a dead server does nothing more, whatever its code would still like to do
            self._left -= 1
            if self._left >= 0:
                return await method(*args, **kwargs)
            if self._done:
                await method(*args, **kwargs)
            raise ServerDied

        return call
