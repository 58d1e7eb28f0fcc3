"""Why results of a job are missing, in words: how many reasons a manifest and a Done have, and how long they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.parts import PartMeta
from schemas.results import Failure

REASONS = 16  # failures whose text a manifest has
DONE_REASONS = 100  # failures, and notes, whose text a Done has
REASON_CHARACTERS = 300  # of one of them
TOUCH_S = 1e-3  # spans this close are joined: seconds are rounded, and every frame is longer
SPANS = 64  # spans of missing seconds that a manifest has


def failed_items(meta: PartMeta) -> list[str]:
    """Why items of a part have no result, a line for each."""
    return [shortened(f"{item.name}: {item.error}") for item in meta.items if item.error]


def nothing_whole(frames: int, unseen: int, lost: int) -> str:
    """Why a job has failed although all its results are there: they show no frame; empty if they show one.

    The decoder guesses what damaged frames show. The numbers are the sums over its parts, as in `PartMeta`.
    """
    if frames > unseen:
        return ""
    return f"no frame that it looks at could be decoded whole, {lost} are damaged: copy it again"


@dataclass(slots=True)
class Reasons:
    """The texts of a job's first failures, how many `more` there are, and the first spans of seconds that are missing.

    All are bounded, so that every Done fits into a message.
    """

    texts: list[str] = field(default_factory=list)
    more: int = 0
    _spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many failures there are."""
        return len(self.texts) + self.more

    @property
    def missing(self) -> tuple[tuple[float, float], ...]:
        """Spans of seconds in order; spans that touch are joined."""
        return joined(self._spans)[:SPANS]

    def add(self, text: str, start_s: float = 0.0, end_s: float = 0.0) -> None:
        """Count a failure that cost these seconds."""
        if len(self.texts) < DONE_REASONS:
            self.texts.append(shortened(text))
        else:
            self.more += 1
        if len(self._spans) >= 16 * SPANS:
            self._spans = list(self.missing)
        self._spans.append((start_s, end_s))


def shortened(text: str) -> str:
    """The beginning of a text that is longer than a reason may be."""
    return text if len(text) <= REASON_CHARACTERS else f"{text[: REASON_CHARACTERS - 1]}…"


def describe(failure: Failure) -> str:
    """One line for people: which seconds are missing, where it failed, and why."""
    span = f"{failure.start_s:.2f} to {failure.end_s:.2f} s, " if failure.end_s > failure.start_s else ""
    return shortened(f"{span}{failure.stage}: {failure.error}")


def joined(spans: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Spans of seconds in order; spans that touch are joined."""
    found: list[tuple[float, float]] = []
    for start_s, end_s in sorted(span for span in spans if span[1] > span[0]):
        if found and start_s <= found[-1][1] + TOUCH_S:
            found[-1] = (found[-1][0], max(found[-1][1], end_s))
        else:
            found.append((start_s, end_s))
    return tuple(found)


def ranges(numbers: list[int]) -> str:
    """Ascending numbers for people: `3, 7-9`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
