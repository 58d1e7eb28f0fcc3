"""Rows of a user's own media as a model sees them in its pipeline: what int8 takes its ranges from."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from engines.inference.batch import infer_parts
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.media.decode import decode_video
from engines.media.images import decode_images
from engines.media.source import media_kind
from engines.media.split import Splitter
from engines.part import Array, Part
from engines.transforms import Preprocess
from schemas.errors import ModelError, RigflowError, UsageError
from schemas.messages import Item, JobRef, Key, MediaInfo, Segment
from schemas.pipeline import (
    DecodeStage,
    EncodeStage,
    InferStage,
    ModelSpec,
    PipelineSpec,
    PreprocessStage,
    Window,
)

ROWS = 128
BATCH = 8


def pipeline_of(card: ModelSpec) -> PipelineSpec:
    """The plainest pipeline that feeds a model: its frames or windows, stretched to its size, every frame.

    Raises UsageError for a model that takes anything but such pixels.
    """
    shape, dtype = card.inputs[0].shape, card.inputs[0].dtype
    colours = shape[-1:] == (3,)
    inner = shape[1:-1] if colours else shape[1:]
    sizes = [size for size in inner if isinstance(size, int)]
    if len(card.inputs) != 1 or dtype != "uint8" or len(sizes) != len(inner) or len(sizes) not in (2, 3):
        raise UsageError(
            f"nothing tells how model `{card.name}` sees media: it takes no pixels of one size",
            "name the pipeline that uses it: --pipeline FILE.toml",
        )
    frames, size = (sizes[0] if len(sizes) == 3 else 1), (sizes[-2], sizes[-1])
    layout = "rgb" if colours else "gray"
    preprocess = PreprocessStage(kind="preprocess", size=size, layout=layout, window=Window(frames=frames))
    reads = {card.inputs[0].name: "pixels"}
    infer = InferStage(kind="infer", model=card.name, max_batch=BATCH, reads=reads)
    stages = (DecodeStage(kind="decode"), preprocess, infer, EncodeStage(kind="encode", format="npz"))
    return PipelineSpec(name="calibration", media=("video", "image"), stage=stages)


def calibration_rows(
    spec: PipelineSpec,
    models: Mapping[str, tuple[ModelSpec, bytes]],
    model: str,
    media: Sequence[Path],
    rows: int = ROWS,
) -> list[dict[str, Array]]:
    """Batches of what `model` gets in `spec`, from the beginning of every file, about `rows` together.

    `models` are those of the stages, as they name them. Raises MediaError, ModelError, UsageError.
    """
    stages = spec.infers
    names = [stage.model for stage in stages]
    if model not in names:
        raise UsageError(f"pipeline {spec.name} does not use model {model}", f"it uses {', '.join(names) or 'none'}")
    last = names.index(model)
    sessions: list[OnnxRuntimeSession] = [OnnxRuntimeSession(models[name][1], models[name][0]) for name in names[:last]]
    listener = _Listener(models[model][1], models[model][0])
    sessions.append(listener)
    try:
        for path in media:
            until = listener.rows + max(1, rows // len(media))
            for part in _parts(spec, path):
                for stage, session in zip(stages, sessions, strict=False):
                    [outcome] = infer_parts(stage.model_copy(update={"max_batch": BATCH}), session, [part])
                    if isinstance(outcome, RigflowError):
                        raise outcome
                    part = outcome
                if listener.rows >= until:
                    break
    finally:
        for session in sessions:
            session.close()
    if not listener.heard:
        raise ModelError(f"model `{model}` got no rows from this media", "give media with pictures in it")
    return listener.heard


class _Listener(OnnxRuntimeSession):
    """A session that keeps what it is asked, and computes nothing."""

    def __init__(self, model: bytes, spec: ModelSpec) -> None:
        super().__init__(model, spec)
        self.heard: list[dict[str, Array]] = []
        self.rows = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.heard.append({name: array.copy() for name, array in inputs.items()})
        rows = min(len(array) for array in inputs.values())
        self.rows += rows
        return {tensor.name: np.zeros((rows, 1), np.float32) for tensor in self.spec.outputs}


def _parts(spec: PipelineSpec, path: Path) -> Iterator[Part]:
    """A file's parts after preprocess, in order, on this thread."""
    convert = Preprocess(spec.preprocess).convert
    job = JobRef(id="calibration", pipeline=spec.name, revision="0")
    if media_kind(path) == "image":
        body = path.read_bytes()
        media = MediaInfo(kind="image", name=path.name)
        segment = Segment(key=Key(job=job, segment=0), media=media, items=(Item(name=path.name),))
        yield from decode_images(segment, [body], spec, convert)
        return
    with Splitter(path, spec.grid, spec.segment_s, sound=None) as splitter:
        for number, segment_data in enumerate(splitter.segments()):
            segment = segment_data.segment(Key(job=job, segment=number), splitter.media)
            yield from decode_video(segment, segment_data.buffers, spec, convert)
