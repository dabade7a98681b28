"""The sweep: look, decide, remove; and again at an interval for as long as a server runs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from cryomamba_apiserver.adapters.local_leftovers import remove_local_leftovers
from cryomamba_apiserver.ports.job_references import JobReferences, model_keys
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStat, ObjectStore, StoreUnavailableError
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.sweep.decide import Inventory, Removal, Rules, what_to_remove
from cryomamba_apiserver.uploads.schemas import UploadSession
from cryomamba_apiserver.uploads.sessions import UploadRecords, ended_then_freed
from cryomamba_crds import keys
from cryomamba_crds.model_card import ModelCard

_log = logging.getLogger(__name__)
_MARGIN = timedelta(minutes=5)
_FIRST = timedelta(minutes=1)
"""A server that is restarted more often than it sweeps must sweep all the same."""
_AT_ONCE = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


def sweep_rules(settings: Settings) -> Rules:
    """Return the rules that the settings name."""
    ttl, grace = timedelta(seconds=settings.upload_ttl_seconds), timedelta(seconds=settings.sweep_grace_seconds)
    return Rules(
        margin=_MARGIN,
        grace=max(grace, ttl) + _MARGIN,
        keep_files=_days(settings.keep_files_days),
        keep_jobs=_days(settings.keep_jobs_days),
    )


@dataclass(frozen=True)
class Swept:
    """How much was removed."""

    uploads: int
    """Uploads whose time had run out, or whose parts were left over."""
    files: int
    """Files that were kept long enough."""
    jobs: int
    objects: int
    leftovers: int
    """Files and folders in the data directory that are no objects."""
    failed: int = 0
    """What should have gone and did not, each told in the log; the next sweep tries again."""

    def __bool__(self) -> bool:
        """Return whether there was anything."""
        return any((self.uploads, self.files, self.jobs, self.objects, self.leftovers, self.failed))


class Sweep:
    """Sweeps one store; safe to run twice at once, and to stop anywhere.

    Args:
        objects: The store.
        jobs: The jobs that use it; all of them, or their results would seem to be left over.
        rules: What is kept.
        now: The clock.
        data_dir: Where the local profile keeps its data; None where there is none.
    """

    def __init__(
        self,
        objects: ObjectStore,
        jobs: JobReferences,
        rules: Rules,
        now: Callable[[], datetime],
        data_dir: Path | None = None,
    ) -> None:
        self._objects = objects
        self._jobs = jobs
        self._rules = rules
        self._now = now
        self._data_dir = data_dir
        self._records = UploadRecords(objects)

    async def look(self) -> tuple[Inventory, Removal]:
        """Return what there is and what would be removed of it."""
        inventory = await self._inventory()
        return inventory, await asyncio.to_thread(what_to_remove, inventory, self._rules, self._now())

    async def run(self) -> Swept:
        """Remove what nothing needs."""
        inventory, removal = await self.look()
        # In this order: what only frees room comes before what has to write.
        uploads = await _attempt(self._objects.abort_upload, removal.uploads)
        objects = await _attempt(self._objects.delete, removal.objects)
        expired = await _attempt(self._expire, removal.expire)
        retired = await _attempt(self._retire, removal.retire)
        forgotten = await _attempt(self._jobs.forget, [removal.jobs] if removal.jobs else [])
        leftovers: list[Path] = []
        if self._data_dir:
            job_ids = {job.job_id for job in inventory.jobs}
            older_than = self._now() - self._rules.grace
            leftovers = await asyncio.to_thread(remove_local_leftovers, self._data_dir, job_ids, older_than)
        return Swept(
            uploads=sum(expired.results) + len(uploads.results),
            files=len(retired.results),
            jobs=len(removal.jobs) if forgotten.results else 0,
            objects=len(objects.results),
            leftovers=len(leftovers),
            failed=sum(attempt.failed for attempt in (uploads, objects, expired, retired, forgotten)),
        )

    async def run_for_ever(self, interval: timedelta) -> None:
        """Sweep soon and then at an interval, until cancelled."""
        await asyncio.sleep(min(interval, _FIRST).total_seconds())
        while True:
            try:
                swept = await self.run()
            except Exception:  # noqa: BLE001 - a sweep that fails is repeated; what it has removed is removed
                _log.exception("the sweep failed; it is repeated in %s s", interval.total_seconds())
            else:
                if swept:
                    _log.info("swept: %s", swept)
            await asyncio.sleep(interval.total_seconds())

    async def _inventory(self) -> Inventory:
        # In this order: a record that is read after its object was seen is not older than it.
        pending = await self._objects.list_uploads()
        objects = [stat async for stat in self._everything()]
        seen = {stat.key for stat in objects}
        uploads = {key.split("/")[1] for key in seen if key.startswith(keys.uploads_prefix())}
        names = {key.split("/")[1] for key in seen if key.startswith(keys.models_prefix())}
        sessions = await _each(self._session, sorted(uploads))
        models = await _each(self._model, sorted(names))
        return Inventory(
            pending=pending,
            objects=objects,
            sessions=[session for session in sessions if session],
            models=dict(model for model in models if model),
            jobs=await self._jobs.all(),
        )

    async def _everything(self) -> AsyncIterator[ObjectStat]:
        for prefix in (
            keys.uploads_prefix(),
            keys.owners_prefix(),
            keys.files_prefix(),
            keys.jobs_prefix(),
            keys.models_prefix(),
        ):
            async for stat in self._objects.list_objects(prefix):
                yield stat

    async def _session(self, upload_id: str) -> UploadSession | None:
        try:
            return await self._records.session(upload_id)
        except ObjectMissingError:
            return None
        except ValueError:
            # Kept, and all that it names until it is older than the grace.
            _log.exception("the record of upload %s cannot be read", upload_id)
            return None

    async def _model(self, name: str) -> tuple[str, frozenset[str] | None] | None:
        try:
            card = ModelCard.model_validate_json(await self._objects.read(keys.model_card(name)))
        except ObjectMissingError:
            return None
        except ValueError:
            _log.exception("the card of model %s cannot be read; its files are kept", name)
            return name, None
        return name, model_keys(name, card.digest)

    async def _expire(self, session: UploadSession) -> bool:
        try:
            if await self._records.session(session.upload_id) != session:
                return False  # it has moved on since it was looked at
        except ObjectMissingError:
            return False
        await ended_then_freed(
            lambda: self._records.end(session, "expired"), lambda: self._objects.abort_upload(session.multipart_id)
        )
        return True

    async def _retire(self, file_id: str) -> None:
        await self._objects.write(keys.file_tombstone(file_id), b"")
        await self._objects.delete(keys.file_record(file_id))


@contextlib.asynccontextmanager
async def sweeping(sweep: Sweep, interval: timedelta) -> AsyncIterator[None]:
    """Sweep at an interval until the end of the with statement; not at all where it is zero."""
    if not interval:
        yield
        return
    running = asyncio.create_task(sweep.run_for_ever(interval), name="sweep")
    try:
        yield
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _each(act: Callable[[_T], Awaitable[_R]], things: Iterable[_T]) -> list[_R]:
    """Do something with each, a few at once."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: _T) -> _R:
        async with turns:
            return await act(thing)

    return list(await asyncio.gather(*map(one, things)))


@dataclass(frozen=True)
class _Attempt(Generic[_R]):
    """What came of doing something with each of many."""

    results: list[_R]
    failed: int


async def _attempt(act: Callable[[_T], Awaitable[_R]], things: Iterable[_T]) -> _Attempt[_R]:
    """Do something with each, and go on with the others where one fails; raise StoreUnavailableError."""
    failed = 0

    async def one(thing: _T) -> list[_R]:
        nonlocal failed
        try:
            return [await act(thing)]
        except StoreUnavailableError:
            raise  # so will the others
        except Exception:  # noqa: BLE001 - what is wrong with one must not keep the others, and it is told
            failed += 1
            _log.exception("the sweep could not remove %s", _name(thing))
            return []

    return _Attempt([result for found in await _each(one, things) for result in found], failed)


def _name(thing: object) -> object:
    return f"upload {thing.upload_id}" if isinstance(thing, UploadSession) else thing


def _days(number: int | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)
