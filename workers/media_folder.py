"""A folder of media whose results lie at the same places under the folder of results; a ledger knows what is done.

Images are run in groups, and each has files of its own: `FOLDER/a/b.jpg` gets `OUT/a/b.txt`, or `OUT/a/b.PIPELINE.png`
where the files are pictures. Other media are jobs of their own: `OUT/a/clip.PIPELINE.json`. Existing results are
kept, as `engines/outputs/earlier.py` says.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from engines.media.medium import Input, Medium, PipelineMedia, SplitRequest
from engines.outputs.format import load_format, sound_of
from engines.outputs.names import Wanted, there_already
from engines.outputs.template import OutTemplate
from schemas.errors import RigflowError, UsageError
from schemas.pipeline import PipelineSpec
from schemas.text import without_path
from workers.earlier_results import EarlierResults
from workers.ledger import Ledger
from workers.media_names import MEDIA_TYPES, is_media_by_name, kind_of
from workers.tally import Tally
from workers.watched import Stamp, content_digest, scan

GROUP = 512  # images: few enough to repeat after a crash, many enough that a fleet has work while one is written
_TEXTS = frozenset(("txt", "json"))  # named as the picture, as programs that train on pictures expect


@dataclass(slots=True)
class Entry:
    """A file of the folder; `target` is the path of its results in the folder of results, without suffix.

    `has_items`: it has items with names of their own. `alone`: it is a job of its own, as each may have files.
    """

    name: str
    stamp: Stamp
    kind: str
    timed: bool
    target: str
    has_items: bool = False
    alone: bool = False
    digest: str = ""


class MediaFolder:
    """The files of `folder` that are to be done, and where their results go. Of one pipeline, with its pins."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        spec: PipelineSpec,
        ledger: Ledger,
        overwrite: bool,
        only_new: bool,
        template: OutTemplate | None = None,
    ) -> None:
        self.folder = folder
        self.out = out
        self.each = load_format(spec.encode).each
        self.tally = Tally()
        self.overwrite = overwrite
        self.ledger = ledger
        self._spec = spec
        self._only_new = only_new
        self._template = template
        self._targets: dict[str, str] = {}  # target -> name
        self._there: dict[str, list[str]] = {}  # folder of results -> names of its files

    def groups(self) -> Iterator[list[Entry]]:
        """Yield what is to be done, in order: up to `GROUP` images together, other media alone. Raises UsageError.

        Where a template gives two media of the folder one path, that is raised before anything is yielded.
        """
        waiting: dict[str, list[Entry]] = {}
        for entry in self._new():
            if entry.timed or entry.alone:
                yield [entry]
                continue
            if not self.each and self._only_new:
                self._check_beside(entry.kind)
            waiting.setdefault(entry.kind, []).append(entry)
            if len(waiting[entry.kind]) == GROUP and self.each:
                yield waiting.pop(entry.kind)
        yield from waiting.values()

    def _check_beside(self, kind: str) -> None:
        """Raise UsageError where one result of all new media of a kind could not lie beside the earlier ones."""
        what = f"pipeline {self._spec.name} writes one result of all new {kind}s, beside those of earlier runs"
        if self.overwrite:
            raise UsageError(what, "leave out --overwrite, or --only-new to have one result of all")
        if self._template is not None:
            raise UsageError(what, "give a folder as --out, or leave out --only-new to have one result of all")

    def path(self, entry: Entry) -> Path:
        """The path of a file."""
        return self.folder / entry.name

    def digested(self, group: Sequence[Entry]) -> list[Entry]:
        """The entries of a group whose content is not known, each with its digest. Called off the event loop."""
        left, same = list[Entry](), dict[str, tuple[Stamp, str]]()
        failed, skipped = list[tuple[str, str]](), list[tuple[str, str]]()
        for entry in group:
            try:
                entry.digest = content_digest(self.path(entry))
            except FileNotFoundError:
                skipped.append((entry.name, "it was removed"))
                continue
            except OSError as error:
                failed.append((entry.name, f"cannot read it: {error.strerror}"))
                continue
            if self._only_new and self.ledger.knows_content(entry.name, entry.digest):
                same[entry.name] = entry.stamp, entry.digest
            else:
                left.append(entry)
        if same:
            self.ledger.all_same(same)
            self.tally.count("known", len(same))
        self.tally.failed += failed
        self.tally.skipped += skipped
        return left

    def targets(self, entry: Entry) -> Iterator[str]:
        """Yield where the results of a file may go, the best first; by a template it is one place."""
        yield entry.target
        if self._template is None:
            yield from (each for each in self._choices(entry.name, entry.timed) if each != entry.target)

    def whole_targets(self, kind: str) -> Iterator[str]:
        """Yield where one result of all media of a kind may go."""
        if self._template is not None:
            yield self._template.target(f"{kind}s", self._spec.name)
        else:
            yield from Wanted(self.out, f"{kind}s", self._spec.name).choices()

    def earlier(self, digest: str) -> dict[str, Path]:
        """The files that were made of this content under another name, by the ends of their paths; empty where they are
        not whole.
        """
        content = self.ledger.outcome(digest) if self._only_new else None
        files = () if content is None else content.files
        found = {PurePosixPath(file).suffix: self.out / file for file in files if self.ledger.is_own(file)}
        return found if found.keys() == {f".{suffix}" for suffix in self.each} else {}

    def _new(self) -> Iterator[Entry]:
        scanned, media = scan(self.folder, self.out), PipelineMedia(self._spec)
        earlier = EarlierResults(scanned.files, self._spec.name)
        self.tally.skipped += scanned.skipped.items()
        inside = os.path.relpath(self.folder.resolve(), self.out.resolve())
        if self._template is not None:
            mine = (name for name in sorted(scanned.files) if self._is_media_by_name(name))
            self._template.check([name for name in mine if not self._is_result(name, inside, earlier)], self._spec.name)
        for name, stamp in sorted(scanned.files.items()):
            if self._is_result(name, inside, earlier):
                self.tally.count("results")
            elif not self._may_be_media(name):
                self.tally.count("no_media")
            elif self._only_new and self.ledger.knows(name, stamp):
                self.tally.count("known")
            else:
                given = Input(self.folder / name, os.path.basename(name))
                try:
                    medium = recognised(media, self._spec, given)
                except RigflowError as error:
                    self._unrecognised(name, error)
                    continue
                target = self._target(name, medium.timed, scanned.files)
                has_items = not medium.timed and medium.has_items(given)
                if self._template is not None and self._is_there(target):
                    self.tally.fail([name], str(there_already(self.out / target)))
                else:
                    alone = bool(self.each) and has_items
                    yield Entry(name, stamp, medium.kind, medium.timed, target, has_items, alone)

    def _is_result(self, name: str, inside: str, earlier: EarlierResults) -> bool:
        """Whether a run made a file: this folder of results says so, or its name beside that of its input."""
        return self.ledger.wrote(os.path.normpath(os.path.join(inside, name))) or earlier.has(name)

    def _may_be_media(self, name: str) -> bool:
        """Whether the suffix of a file is not one of programs and other files that no medium of the pipeline takes."""
        return kind_of(os.path.splitext(name)[1]) in ("", *MEDIA_TYPES, *self._spec.media)

    def _is_media_by_name(self, name: str) -> bool:
        return kind_of(os.path.splitext(name)[1]) in (*MEDIA_TYPES, *self._spec.media)

    def _unrecognised(self, name: str, error: RigflowError) -> None:
        is_other = isinstance(error, UsageError) and not isinstance(error.__cause__, OSError)
        if is_media_by_name(name, self._spec.media) and not is_other:
            self.tally.fail([name], without_path(self.folder / name, str(error)))
        else:
            self.tally.count("other_media" if is_media_by_name(name, MEDIA_TYPES) else "no_media")

    def _target(self, name: str, timed: bool, names: Mapping[str, Stamp]) -> str:
        """Where results of a file go: the same as before, or a name that no other file of the folder has."""
        if self._template is not None:
            return self._template.target(name, self._spec.name)
        before = self.ledger.target(name)
        mine = before and self._targets.setdefault(before, name) == name
        choices = chain([before] if mine else [], self._choices(name, timed))
        return next(choice for choice in choices if not self._is_others(choice, name, names))

    def _choices(self, name: str, timed: bool) -> Iterator[str]:
        """Yield the targets that a file may have; no other file of this run gets one that was yielded and taken."""
        folder, base = os.path.split(name)
        pipeline = "" if not timed and set(self.each) <= _TEXTS else self._spec.name
        for choice in Wanted(self.out, base, pipeline).choices():
            target = os.path.join(folder, choice)
            if self._targets.setdefault(target, name) == name:
                yield target

    def _is_others(self, target: str, name: str, names: Mapping[str, Stamp]) -> bool:
        owner = self.ledger.owner(target)
        return owner not in ("", name) and owner in names

    def _is_there(self, target: str) -> bool:
        """Whether there is a result at a path that the template made, which may not be replaced."""
        folder, base = os.path.split(target)
        if folder not in self._there:
            place = self.out / folder
            self._there[folder] = os.listdir(place) if place.is_dir() else []
        there = [each for each in self._there[folder] if each.startswith(f"{base}.") and not each.endswith(".part")]
        inside = (self.out / target).is_dir() and os.listdir(self.out / target)
        return not self.overwrite and bool(there or inside)


def recognised(media: PipelineMedia, spec: PipelineSpec, given: Input) -> Medium:
    """The medium of a file of a folder. Raises RigflowError when it is none of the pipeline's.

    A file that is not called as such, as a wav beside films, is split up to its first segment, so that no job is made
    of what is none.
    """
    medium = media.recognised(given)
    if medium.timed and medium.kind in MEDIA_TYPES and not is_media_by_name(given.name, spec.media):
        next(media.split(medium.kind, [given], SplitRequest(spec.grid, spec.segment_s, sound_of(spec.encode))), None)
    return medium
