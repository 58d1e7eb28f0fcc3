"""Values that are found once for a media and used for all of its parts."""

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from engines.part import Part

ValueT = TypeVar("ValueT")


class OfJobs(Generic[ValueT]):
    """Keeps the values of the `most` jobs that came last. Threads that want one meanwhile wait for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[tuple[str, str, str, int], ValueT] = {}
        self._finding = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def value(self, part: Part, find: Callable[[], ValueT]) -> ValueT:
        """Return the value of a part's job; `find` computes it where none is kept."""
        job = part.meta.key.job
        place = job.tenant, job.id, job.revision, job.generation
        with self._finding:
            if place not in self._values:
                self._values[place] = find()
                while len(self._values) > self._most:
                    del self._values[next(iter(self._values))]
            return self._values[place]
