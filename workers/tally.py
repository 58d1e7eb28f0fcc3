"""What became of the files of a folder."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

SHOWN = 20  # results that a tally names

Counted = Literal["known", "done", "copies", "equal", "beside", "no_media", "other_media", "results"]


@dataclass(slots=True)
class Tally:
    """What became of the files of a folder, counted by any thread.

    Each file is in one of `done`, `known` (done before), `failed`, `results` (files that an earlier run wrote),
    `other_media` (of kinds that the pipeline does not take), `no_media` and `skipped`; `failed` and `skipped` have name
    and reason. Of those `done`, `copies`: by copying the results of another file, `equal`: their results were there
    already, `beside`: other results were there, and are kept. `failed_items` are lines of files that are `done`.
    `made`: the first inputs, and the paths of their files; it has those of `named` inputs. `notes`: what jobs note,
    with the name of the first of them, and how many do; a job of images is one.
    """

    known: int = 0
    done: int = 0
    copies: int = 0
    equal: int = 0
    beside: int = 0
    no_media: int = 0
    other_media: int = 0
    results: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    failed_items: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    made: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    named: int = 0
    notes: dict[str, tuple[str, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: Counted, number: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            setattr(self, what, getattr(self, what) + number)

    def done_as(self, earlier: Counted | None, number: int = 1) -> None:
        """Count files that are done, and what their results are beside earlier ones."""
        self.count("done", number)
        if earlier is not None:
            self.count(earlier, number)

    def name(self, entry: str, files: Iterable[str], number: int = 1) -> None:
        """Note what was made of a `number` of inputs that have this name together, while there are few."""
        with self._lock:
            if len(self.made) < SHOWN:
                self.made.append((entry, tuple(files)))
                self.named += number

    @property
    def media(self) -> int:
        """How many of the files are media."""
        return self.known + self.done + len(self.failed)

    def note(self, name: str, texts: Iterable[str]) -> None:
        """Note what a job says about its media."""
        with self._lock:
            for text in texts:
                first, jobs = self.notes.get(text, (name, 0))
                if jobs or len(self.notes) < SHOWN:
                    self.notes[text] = first, jobs + 1

    def fail(self, names: Iterable[str], reason: str) -> None:
        """Note files that failed."""
        self.failed.extend((name, reason) for name in names)
