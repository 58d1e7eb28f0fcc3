"""What a job will be: its pieces, and for each stage frames, rows, operations and bytes, before any work is sent."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engines.content import Content, graph_of, size_of
from engines.media.medium import Input, PipelineMedia, SplitRequest
from engines.media.source import open_media
from engines.models.operations import operations
from engines.outputs.format import load_format
from engines.plan import Plan, plan_pipeline
from engines.planned import Arrays, Tensor, planned_pictures, planned_sounds
from placement.costs import StageWork, Work, cost
from placement.fleet import Device, Fleet, Rig
from schemas.media import MediaInfo
from schemas.model import ModelSpec
from schemas.pipeline import OperatorStage, PipelineSpec, Stage

_BYTES = {
    "uint8": 1,
    "int8": 1,
    "bool": 1,
    "float16": 2,
    "int16": 2,
    "float32": 4,
    "int32": 4,
    "int64": 8,
    "float64": 8,
}
_PLANES = {"plane0": 1.0, "plane1": 0.25, "plane2": 0.25, "plane3": 0.0}  # by that of luma: 4:2:0, no transparency
_COUNT = 8  # entries of a ragged array in a row
_STORED = 0.05  # bytes of a pixel of encoded video
_RAW = 1.5  # bytes of a pixel as it is decoded
Models = Mapping[str, tuple[ModelSpec, Content]]


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What is known of the media of a job: how many segments and bytes, and for a segment its frames and items."""

    media: MediaInfo
    pieces: int
    nbytes: int
    frames: float  # of all pieces


def media_facts(spec: PipelineSpec, inputs: Sequence[Input], request: SplitRequest) -> MediaFacts:
    """Split files as a publisher does, and count. Raises UsageError, MediaError, ItemTooLarge."""
    medium = PipelineMedia(spec).recognised(inputs[0])
    pieces, nbytes, items, media = 0, 0, 0, None
    for each in medium.split(inputs, request):
        pieces, nbytes, items = pieces + 1, nbytes + each.nbytes, items + len(each.items)
        media = each.media
    assert media is not None, "a medium gives one segment at least"
    rate = _frame_rate(inputs[0]) if media.width and media.timed else media.frame_rate[0] / media.frame_rate[1]
    return MediaFacts(media, pieces, nbytes, float(items) if items else media.duration_s * rate)


def _frame_rate(given: Input) -> float:
    """Frames a second of a film, of which a pipeline may take fewer."""
    with open_media(given.source, label=given.name, decoders=False) as container:
        streams = container.streams.video
        return float(streams[0].average_rate or 0.0) if streams else 0.0


def workload(spec: PipelineSpec, models: Models, facts: MediaFacts) -> Work:
    """The work of a job. Raises ModelError and PipelineError as `plan_pipeline` does."""
    plan = plan_pipeline(spec, {name: card for name, (card, _) in models.items()})
    frames, windows = facts.frames / facts.pieces, windows_of(spec, facts)
    sampled = facts.media.timed and spec.grid.fps is not None
    sizes = _Sizes(facts.media, windows, max(1.0, windows * spec.grid.stride if sampled else frames))
    made = [_stage(stage, plan, models, sizes, frames) for stage in spec.stage]
    ordered = [at for at, stage in enumerate(spec.stage) if (of := plan.operators.get(stage.name)) and of.in_order]
    stages = tuple(
        replace(stage, of_decode=at <= max(ordered, default=0) or stage.of_decode) for at, stage in enumerate(made)
    )
    return Work(spec.name, stages, facts.pieces, facts.nbytes / facts.pieces, frames)


def windows_of(spec: PipelineSpec, facts: MediaFacts) -> float:
    """Windows of a piece, at least 1."""
    grid, seconds = spec.grid, facts.media.duration_s / facts.pieces
    seen = seconds * float(grid.fps) if facts.media.timed and grid.fps is not None else facts.frames / facts.pieces
    return max(1.0, seen / grid.stride)


def with_observed_operations(work: Work, fleet: Fleet) -> Work | None:
    """The work with operations of models as devices were measured at them, for those that were not.

    None where nothing is known of a model: neither its operations nor its pace on any device.
    """
    stages = []
    for stage in work.stages:
        if not stage.model or stage.operations:
            stages.append(stage)
            continue
        counted = [_operations(work, stage, rig, device) for rig, device in fleet.places()]
        known = sorted(each for each in counted if each)
        if not known:
            return None
        stages.append(replace(stage, operations=known[len(known) // 2]))
    return replace(work, stages=tuple(stages))


def _operations(work: Work, stage: StageWork, rig: Rig, device: Device) -> float:
    """Operations of a row by which an estimate for this device gives what was measured on it; 0: nothing was."""
    if (work.pipeline, stage.name) not in device.frame_s and stage.model not in device.row_s:
        return 0.0
    measured = cost(work, stage, rig, device).seconds
    bare = replace(device, frame_s={}, row_s={})
    return measured / cost(work, replace(stage, operations=1e9), rig, bare).seconds * 1e9


@dataclass(frozen=True, slots=True)
class _Sizes:
    """The sizes of named dimensions in a piece."""

    media: MediaInfo
    windows: float
    shown: float  # frames that reach the stages

    def of(self, name: int | str) -> float:
        if isinstance(name, int):
            return float(name)
        letter, times = name[:1], int(name[1:]) if re.fullmatch(r"[HW]\d+", name) else 1
        known = {"W": self.windows, "F": self.shown, "N": self.windows, "count": float(_COUNT)}
        if times > 1 or (letter == "H" and name == "H"):
            return float(times * (self.media.height if letter == "H" else self.media.width))
        return known.get(name, 1.0)

    def nbytes(self, name: str, tensor: Tensor) -> float:
        """Bytes of an array of a piece. A second "W" is a width, the first one windows."""
        rest = [self.media.width if size == "W" else self.of(size) for size in tensor.shape[1:]]
        total = self.of(tensor.shape[0]) if tensor.shape else 1.0
        for size in (*rest, _BYTES.get(tensor.dtype, 4), _COUNT if tensor.ragged else 1):
            total *= max(1.0, float(size))
        return total * _PLANES.get(name, 1.0)


def _stage(stage: Stage, plan: Plan, models: Models, sizes: _Sizes, frames: float) -> StageWork:
    media = sizes.media
    if stage.kind == "decode":
        made = {**planned_pictures(plan.decode.of_models), **planned_sounds(plan.decode.sounds)}
        nbytes = sum(sizes.nbytes(name, tensor) for name, tensor in made.items())
        nbytes = _RAW * frames * media.width * media.height if plan.decode.resized else nbytes
        return StageWork(stage.name, "decode", frames, media.width, media.height, media.codec, gives_bytes=nbytes)
    if not isinstance(stage, OperatorStage):
        last, format_ = plan.arrays[plan.spec.stage[-2].name], load_format(plan.spec.encode)
        if format_.sound is None:  # no film with tracks
            nbytes = _total(last, sizes, format_.stored)
            return StageWork(stage.name, "encode", gives_bytes=nbytes, takes_bytes=_total(last, sizes))
        width, height = _picture(last, sizes)
        stored = _STORED * width * height * sizes.shown
        return StageWork(stage.name, "encode", sizes.shown, width, height, "h264", gives_bytes=stored)
    arrays = _total(plan.arrays[stage.name], sizes)
    if stage.model is None:
        shown, resizes = (sizes.shown, media.width, media.height), plan.resizes(stage.name)
        return StageWork(stage.name, stage.kind, *shown, gives_bytes=arrays, of_decode=resizes)
    card, content = models[stage.model]
    free = {"H": media.height, "W": media.width, "h": media.height, "w": media.width, "T": plan.spec.grid.frames}
    rows = sizes.windows * (sum(_PLANES.get(name, 1.0) for name in stage.each) or 1.0)
    return StageWork(
        stage.name,
        stage.kind,
        model=card.identity,
        rows=rows,
        operations=operations(graph_of(content), free),
        model_bytes=size_of(content),
        gives_bytes=arrays,
    )


def _total(arrays: Arrays, sizes: _Sizes, shares: Mapping[str, float] | None = None) -> float:
    """Bytes of arrays of a piece, or of their `shares`, by name."""
    shares = shares or {}
    return sum(shares.get(name, 1.0) * sizes.nbytes(name, tensor) for name, tensor in arrays.items() if "@" not in name)


def _picture(arrays: Arrays, sizes: _Sizes) -> tuple[int, int]:
    """Width and height of the pictures that are encoded."""
    for tensor in arrays.values():
        if tensor.dtype == "uint8" and len(tensor.shape) >= 3:
            high, wide = tensor.shape[1:3]
            width = sizes.media.width if wide == "W" else sizes.of(wide)
            return int(width), int(sizes.of(high))
    return sizes.media.width, sizes.media.height
