"""The work that all contestants do, cut into units that any pool, service or queue can hand to its processes.

A contestant that handles files is given one unit a file, and reads the file where it works; one that is handed segments
is given what rigflow itself would publish. In both cases a process decodes, preprocesses, infers and encodes by the
same functions as rigflow's workers, and the collecting process writes the same files that rigflow writes. So
contestants differ in how they move work and answers, and in nothing else. The plain script alone decodes and samples by
itself.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.media.albums import album_segments
from engines.media.decode import Convert, decode_video
from engines.media.image import image_items
from engines.media.images import decode_images
from engines.media.medium import Input
from engines.media.shared import SharedFolders, located
from engines.media.split import Splitter
from engines.outputs.format import load_format, sound_of
from engines.part import Array, Part, no_tick
from engines.pictures import HostPictures
from engines.plan import plan_pipeline
from engines.planned import DecodePlan
from pipelines.registry import builtin_pipeline
from schemas.errors import RigflowError
from schemas.jobs import JobRef, Key
from schemas.model import ModelSpec
from schemas.parts import PartMeta
from schemas.pipeline import PipelineSpec
from schemas.segments import Segment
from workers.definitions import find_models

ENTIRE_MEDIA_S = 1e9  # a segment that is longer than any media
SHARED = SharedFolders(("/",))
JOB = JobRef(id="bench", pipeline="bench", revision="bench")
Answer: TypeAlias = tuple[PartMeta, dict[str, Array], dict[str, Any]]
Arrived: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Task:
    """Which pipeline is run, and the folder of models that are not built in."""

    pipeline: str
    models_folder: str

    @property
    def spec(self) -> PipelineSpec:
        """The pipeline as rigflow has it."""
        return builtin_pipeline(self.pipeline)

    @property
    def models(self) -> dict[str, tuple[ModelSpec, bytes]]:
        """Model cards and ONNX files."""
        return find_models(self.spec, Path(self.models_folder))


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work: segment `number` of input `file`, or the whole video at `path`. All images are of input 0."""

    file: int
    number: int
    path: str = ""
    segment: Segment | None = None
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """A unit's answers, in order; this is what travels back."""

    file: int
    number: int
    answers: list[Answer]


class Peer(Protocol):
    """A contestant. `start` starts processes and loads models, `run` may be called many times, `stop` ends all
    processes.

    `run` writes into `out` what `rigflow run` would write there, and calls `arrived` at each result that it receives.
    `broker_bytes` counts what went into and out of its broker, and is 0 where there is none.
    """

    async def start(self) -> None: ...

    async def run(self, paths: Sequence[Path], out: Path, arrived: Arrived) -> None: ...

    async def stop(self) -> None: ...

    def broker_bytes(self) -> int: ...


def units_of(task: Task, paths: Sequence[Path], split: bool) -> Iterator[Unit]:
    """The units of these inputs: images as rigflow groups them, videos `split` at keyframes or whole."""
    spec = task.spec
    if paths[0].suffix == ".jpg":
        inputs = [Input(Path(path), Path(path).name, path) for path, _ in located(map(str, paths))]
        for number, segment_data in enumerate(album_segments("image", image_items(inputs, SHARED), len(inputs))):
            yield Unit(0, number, segment=segment_data.segment(Key(job=JOB, segment=number)))
        return
    for file, path in enumerate(paths):
        if not split:
            yield Unit(file, 0, str(path))
            continue
        for segment, buffers in segments_of(path, spec, spec.segment_s):
            yield Unit(file, segment.key.segment, segment=segment, buffers=buffers)


def segments_of(path: Path, spec: PipelineSpec, segment_s: float) -> Iterator[tuple[Segment, tuple[bytes, ...]]]:
    """What rigflow would publish of a video."""
    with Splitter(path, spec.grid, segment_s, sound=sound_of(spec.encode)) as splitter:
        for number, segment_data in enumerate(splitter.segments()):
            key = Key(job=JOB, segment=number, final=segment_data.final)
            yield segment_data.segment(key), segment_data.buffers


class Chain:
    """Decode to encode, in one thread of one process; `decode` and `finish` are its halves, for separate stages."""

    def __init__(self, task: Task) -> None:
        self._spec = task.spec
        self._plan = plan_pipeline(task.spec, {name: card for name, (card, _) in task.models.items()})
        self._pictures = HostPictures(self._plan.decode.pictures)
        self._sessions = {name: OnnxRuntimeSession(body, card) for name, (card, body) in task.models.items()}
        self._format = load_format(self._spec.encode)

    def __call__(self, unit: Unit) -> Finished:
        """All of it."""
        return Finished(unit.file, unit.number, self.finish(self.decode(unit)))

    def decode(self, unit: Unit) -> list[Part]:
        """The unit's parts, decoded and preprocessed."""
        return decoded(unit, self._spec, self._plan.decode, self._pictures.convert)

    def finish(self, parts: Sequence[Part]) -> list[Answer]:
        """The answers of the parts. Raises the error of their inference."""
        encoded = [(part.meta, self._format.encode(part)) for part in self.infer(parts)]
        return [(meta, each.arrays, each.facts) for meta, each in encoded]

    def infer(self, parts: Sequence[Part]) -> list[Part]:
        """The parts after the model."""
        for stage in self._spec.operators:
            session = self._sessions[stage.model] if stage.model else None
            outcomes = self._plan.operators[stage.name].run(parts, session, no_tick)
            for outcome in outcomes:
                if isinstance(outcome, RigflowError):
                    raise outcome
            made = [outcome for outcome in outcomes if isinstance(outcome, Part)]
            parts = [self._plan.kept(stage.name, *each) for each in zip(parts, made, strict=True)]
        return list(parts)


@cache
def chain_of(task: Task) -> Chain:
    """This process's chain, for pools that send functions to their processes."""
    return Chain(task)


def decoded(unit: Unit, spec: PipelineSpec, plan: DecodePlan, convert: Convert) -> list[Part]:
    """A unit's parts as `convert` makes them."""
    given = [(unit.segment, unit.buffers)] if unit.segment else segments_of(Path(unit.path), spec, ENTIRE_MEDIA_S)
    parts: list[Part] = []
    for segment, buffers in given:
        if not segment.media.timed:
            parts += decode_images(segment, buffers, plan, convert, shared=SHARED)
        else:
            parts += decode_video(segment, buffers, plan, convert)
    return parts


def write(task: Task, paths: Sequence[Path], finished: Sequence[Finished], out: Path) -> None:
    """Put answers in order and write each input's files; every part must be there."""
    output = load_format(task.spec.encode)
    by_file: dict[int, list[Finished]] = {}
    for each in sorted(finished, key=lambda each: (each.file, each.number)):
        by_file.setdefault(each.file, []).append(each)
    for file, segments in by_file.items():
        assert [segment_data.number for segment_data in segments] == list(range(len(segments))), "a unit is missing"
        answers = [answer for segment_data in segments for answer in segment_data.answers]
        assembler = output.assemble(target_of(task, paths, file, out), answers[0][0].media)
        for meta, arrays, facts in answers:
            assembler.add(meta, arrays, facts)
        assembler.close()


def target_of(task: Task, paths: Sequence[Path], file: int, out: Path) -> Path:
    """Where an input's files go, without a suffix: as `rigflow run` names them."""
    stem = "images" if paths[file].suffix == ".jpg" and len(paths) > 1 else paths[file].stem
    return out / f"{stem}.{task.pipeline}"
