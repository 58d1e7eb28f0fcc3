"""Which items of a job have a result: its parts say it of each one, its Done names the first failures alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from schemas.fields import clean_name
from schemas.parts import PartMeta


@dataclass(slots=True)
class ItemResults:
    """The items of one job by name: those that are in a part without an error, and the errors of the others.

    An item that is in neither was in a part that failed as a whole.
    """

    made: set[str] = field(default_factory=set)
    errors: dict[str, str] = field(default_factory=dict)

    def part(self, meta: PartMeta) -> None:
        """Take a part of the job, as it comes."""
        for item in meta.items:
            if item.error:
                self.errors.setdefault(item.name, item.error)
            else:
                self.made.add(item.name)

    def has(self, name: str) -> bool:
        """Whether all of the item of this name has a result. Messages have a `clean_name`."""
        return clean_name(name) in self.made and clean_name(name) not in self.errors

    def reason(self, name: str, failures: Sequence[str]) -> str:
        """Why the item of this name has no result; `failures` are those of the job's Done."""
        return self.errors.get(clean_name(name)) or next(self._of_parts(failures), "it has no result")

    def _of_parts(self, failures: Sequence[str]) -> Iterator[str]:
        """Yield the failures of parts as a whole."""
        of_items = {f"{name}: {error}" for name, error in self.errors.items()}
        return (text for text in failures if text not in of_items)
