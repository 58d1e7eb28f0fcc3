"""The input files of a run: looked at once, planned as jobs, and given names for their results."""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from engines.files import delete_files
from engines.media.medium import Input, Medium, PipelineMedia
from engines.media.shared import located
from engines.outputs.earlier import Comparison, compared
from engines.outputs.names import OutputNames, Wanted
from engines.outputs.template import OutTemplate
from pipelines.client import Client, Files
from pipelines.early_split import MOST_BYTES, EarlySplit
from pipelines.job import OpenJob
from pipelines.publish import job_id, job_name, segments_of
from schemas.errors import OtherMedia, RigflowError, UsageError
from schemas.jobs import JobRef, JobState, Priority
from schemas.pipeline import PipelineSpec
from schemas.results import Done
from schemas.settings import Settings
from schemas.text import is_text, printable, shell_word

_ADDRESS = re.compile(r"[a-z]{2,}:/")  # a path of it has one slash


@dataclass(slots=True)
class JobOutcome:
    """One job of a run and its outcome: its Done, or the error that ended it.

    `kind` is that of its media. `real` are the paths of its inputs with links resolved; `source` identifies its input;
    `target` is where its result goes, without suffix. `names`: what its inputs are called, if not as their files.
    `wanted` is what its `target` was made of, `earlier` what is there of earlier results. `early` are its segments, if
    they are being cut before it is begun.
    """

    name: str
    job: JobRef
    inputs: list[Path]
    real: list[str]
    target: Path = Path()
    kind: str = ""
    source: str = ""
    opened: OpenJob | None = None
    early: EarlySplit | None = None
    done: Done | None = None
    error: RigflowError | None = None
    seconds: float = 0.0
    names: list[str] = field(default_factory=list)
    wanted: Wanted | None = None
    earlier: Comparison = field(default_factory=Comparison)

    def reserve(self, names: OutputNames, wanted: Wanted) -> None:
        """Reserve a name for its result. Raises OutputError."""
        self.wanted, self.target = wanted, names.reserve(wanted)

    def compare(self, names: OutputNames, _: str, files: Sequence[Path]) -> Sequence[Path]:
        """Compare its new files with earlier results, and return the equal ones if there are such."""
        if self.wanted is not None:
            self.earlier = compared(names.earlier(self.wanted, self.target), self.target, files)
        return self.earlier.equal

    @property
    def files(self) -> Files:
        """Its inputs, to be split."""
        names = self.names or [path.name for path in self.inputs]
        inputs = [Input(*each) for each in zip(self.inputs, names, self.real, strict=True)]
        return Files(self.kind, inputs, self.source, self.media_name)

    @property
    def media_name(self) -> str:
        """What its media is called."""
        return job_name(self.kind, [path.name for path in self.inputs])

    @property
    def path_name(self) -> str:
        """Its path from the current folder on, where its input is a single one in that, or else its name."""
        path = self.inputs[0]
        if len(self.inputs) > 1:
            return self.media_name
        if path.is_absolute():
            here = Path.cwd()
            path = path.relative_to(here) if path.is_relative_to(here) else Path(path.name)
        return str(path)

    @property
    def ok(self) -> bool:
        """Whether the job is done without failures."""
        return self.done is not None and self.done.state is JobState.DONE

    def delete_files(self) -> None:
        """Delete the files that it wrote."""
        files = [] if self.done is None or self.earlier.equal else self.done.files
        delete_files([self.target.parent / file for file in files], self.target)


class _File(NamedTuple):
    """A file to be sent: `real` is its path with links resolved."""

    path: Path
    real: str
    stat: os.stat_result
    medium: Medium


Inspected = Sequence[tuple[Path, _File | RigflowError]]


def look_at(inputs: Sequence[Path], spec: PipelineSpec) -> Inspected:
    """Each input once, looked at; or why it cannot be sent through a pipeline."""
    media, each = PipelineMedia(spec), {str(path): path for path in inputs}
    return [(path, _inspect(path, *found, media)) for path, found in zip(each.values(), located(each), strict=True)]


def split_early(settings: Settings, spec: PipelineSpec, inspected: Inspected) -> EarlySplit | None:
    """Begin to cut the only input, if it is small; `spec` is pinned."""
    if len(inspected) != 1 or not isinstance(file := inspected[0][1], _File) or file.stat.st_size > MOST_BYTES:
        return None
    given = Input(file.path, file.path.name, file.real)
    return EarlySplit(segments_of(settings, spec, file.medium.kind, [given]))


def check_media(inputs: Sequence[Path], spec: PipelineSpec) -> None:
    """Raise the error of the first file if none of them can be sent through a pipeline.

    Films and sound are opened, up to the first one that can be sent.
    """
    errors: list[RigflowError] = []
    for _, file in look_at(inputs, spec):
        error = file if isinstance(file, RigflowError) else _other_media(file, spec)
        if error is None:
            return
        errors.append(error)
    if errors:
        raise errors[0]


def _other_media(file: _File, spec: PipelineSpec) -> OtherMedia | None:
    """The error of a file that is found to be of another kind as it is cut."""
    try:
        if file.medium.timed:
            next(segments_of(Settings(), spec, file.medium.kind, [Input(file.path, file.path.name, file.real)]), None)
    except OtherMedia as error:
        return error
    except RigflowError:
        return None  # it is damaged, or too large: the job says so
    return None


def plan_jobs(client: Client, spec: PipelineSpec, inspected: Inspected, priority: Priority) -> list[JobOutcome]:
    """One job a file whose media has times; all others of one kind together are one.

    An input that cannot be sent becomes an outcome with an error.
    """
    fit = [found for _, found in inspected if isinstance(found, _File)]
    jobs = [(file.path.name, [file]) for file in fit if file.medium.timed]
    for kind in dict.fromkeys(file.medium.kind for file in fit if not file.medium.timed):
        files = [file for file in fit if file.medium.kind == kind]
        jobs.append((files[0].path.name if len(files) == 1 else f"{len(files)} {kind}s", files))
    outcomes: list[JobOutcome] = []
    identities: set[str] = set()
    for name, files in jobs:
        paths = [file.path for file in files]
        identity = job_id(spec, ((file.real, file.stat) for file in files))
        if identity in identities:  # another path of the same file gets a job and a result of its own
            identity = hashlib.sha256(f"{identity}/{paths[0].absolute()}".encode()).hexdigest()[:20]
        identities.add(identity)
        real = [file.real for file in files]
        kind = files[0].medium.kind
        outcomes.append(JobOutcome(name, client.ref(spec, identity, priority), paths, real, kind=kind, source=identity))
    for path, why in inspected:
        if isinstance(why, RigflowError):
            outcomes.append(JobOutcome(printable(path.name), client.ref(spec, "unfit"), [path], [], error=why))
    return outcomes


def _inspect(path: Path, real: str, found: os.stat_result | None, media: PipelineMedia) -> _File | RigflowError:
    """An input, looked at once; or why it cannot be sent, which names it."""
    file = _regular(path, real, found)
    if isinstance(file, RigflowError):
        return file
    try:
        return _File(path, real, file, media.recognised(Input(path, path.name)))
    except RigflowError as error:
        return error if path.name in error.what else type(error)(f"{path}: {error.what}", error.hint)


def input_error(path: Path) -> RigflowError | None:
    """Why an input cannot be sent, before it is read."""
    found = _regular(path, os.path.realpath(path), None)
    return found if isinstance(found, RigflowError) else None


def _regular(path: Path, real: str, found: os.stat_result | None) -> os.stat_result | UsageError:
    """What the system says of a regular file: `found` where it was asked before.

    The file is not opened: that would wake the writer of a FIFO.
    """
    if not is_text(real):
        return UsageError(f"{path}: its name is not UTF-8", "rename it")
    try:
        file = found or path.stat()
    except FileNotFoundError:
        if _ADDRESS.match(str(path)):
            return UsageError(f"{path}: it is a URL, not a file", "download it first")
        return UsageError(f"{path}: no such file", "check the path")
    except OSError as error:
        return UsageError(f"{path}: {error.strerror}", "check the path")
    if stat.S_ISDIR(file.st_mode):
        return UsageError(
            f"{path}: is a folder",
            f"`rigflow run` takes folders; or name its files, for example {shell_word(path)}/*.mp4",
        )
    if not stat.S_ISREG(file.st_mode):
        return UsageError(f"{path}: not a file that can be read twice", "copy it into one")
    return file


def name_results(
    names: OutputNames, out: Path, outcomes: Sequence[JobOutcome], template: OutTemplate | None = None
) -> None:
    """Reserve a name for each result; for inputs of the same name it has the suffix or the folder too.

    With a template, which is checked before, names are those that it makes.
    """
    single = [outcome.inputs[0] for outcome in outcomes if len(outcome.inputs) == 1]
    stems, full = Counter(path.stem for path in single), Counter(path.name for path in single)
    able = [outcome for outcome in outcomes if outcome.error is None]
    wanted = []
    for outcome in able:
        if template is not None:
            exact = template.target(outcome.path_name, outcome.job.pipeline)
            wanted.append(Wanted(out, outcome.media_name, outcome.job.pipeline, exact=exact))
            continue
        if len(outcome.inputs) > 1:
            wanted.append(Wanted(out, outcome.media_name, outcome.job.pipeline))
            continue
        path = outcome.inputs[0]
        skip = 2 if full[path.name] > 1 else 1 if stems[path.stem] > 1 else 0
        parent = path.resolve().parent.name if skip == 2 else ""
        wanted.append(Wanted(out, path.name, outcome.job.pipeline, parent, skip))
    for outcome, each, target in zip(able, wanted, names.reserve_all(wanted), strict=True):
        if isinstance(target, Path):
            outcome.target, outcome.wanted = target, each
        else:
            outcome.error = target
