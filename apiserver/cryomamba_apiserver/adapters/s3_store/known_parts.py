"""Which parts of the uploads under way are known to be held; makes looking one up cheap."""

import bisect
from collections import OrderedDict

_UPLOADS = 1000


class KnownParts:
    """Remembers, for the uploads used last, numbers of parts that the store holds.

    A hint about where to begin to list: other servers may have put more, but a part that is held is held until its
    upload ends.
    """

    def __init__(self) -> None:
        self._numbers: OrderedDict[str, list[int]] = OrderedDict()

    def add(self, upload: str, number: int) -> None:
        """Remember a part."""
        numbers = self._numbers.setdefault(upload, [])
        self._numbers.move_to_end(upload)
        place = bisect.bisect_left(numbers, number)
        if numbers[place : place + 1] != [number]:
            numbers.insert(place, number)
        if len(self._numbers) > _UPLOADS:
            self._numbers.popitem(last=False)

    def last_before(self, upload: str, number: int) -> int | None:
        """Return the greatest number below `number` that is known to be held."""
        numbers = self._numbers.get(upload, [])
        place = bisect.bisect_left(numbers, number)
        return numbers[place - 1] if place else None

    def forget(self, upload: str) -> None:
        """Forget an upload that has ended."""
        self._numbers.pop(upload, None)
