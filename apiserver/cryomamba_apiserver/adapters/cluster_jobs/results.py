"""Results of completed jobs: manifests, each written once and read from the store when somebody first asks."""

from collections import OrderedDict

from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore
from cryomamba_crds import keys
from cryomamba_crds.report import Manifest

_MOST = 1024
"""Manifests; a few KB each."""


class Results:
    """Reads manifests; the least recently used are forgotten first."""

    def __init__(self, objects: ObjectStore, most: int = _MOST) -> None:
        self._objects = objects
        self._most = most
        self._known: OrderedDict[str, Manifest] = OrderedDict()

    async def of(self, uid: str) -> Manifest | None:
        """Return the result of a completed job, None where there is none; raise StoreUnavailableError."""
        if (known := self._known.get(uid)) is not None:
            self._known.move_to_end(uid)
            return known
        try:
            result = Manifest.model_validate_json(await self._objects.read(keys.job_manifest(uid)))
        except ObjectMissingError:
            return None
        self._known[uid] = result
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return result
