"""Model inputs from a user's media, to calibrate the ranges of int8."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from engines.content import Content
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.media.medium import DecodePlace, Input, PipelineMedia, SplitRequest, any_recognised
from engines.part import Array, Part, no_tick
from engines.pictures import HostPictures
from engines.plan import Plan, plan_pipeline
from schemas.errors import ModelError, RigflowError, UsageError
from schemas.jobs import JobRef, Key
from schemas.model import ModelSpec
from schemas.pipeline import PipelineSpec

ROWS = 128
BATCH = 8


def pipeline_of(card: ModelSpec, media: Sequence[Path]) -> PipelineSpec:
    """A simple pipeline for a model and these files: every frame or window, stretched to its input size.

    Raises UsageError for a model that takes anything but such pixels, and for a file that cannot be read, MediaError.
    """
    shape, dtype = card.inputs[0].shape, card.inputs[0].dtype
    colours = shape[-1:] == (3,)
    inner = shape[1:-1] if colours else shape[1:]
    sizes = [size for size in inner if isinstance(size, int)]
    if len(card.inputs) != 1 or dtype != "uint8" or len(sizes) != len(inner) or len(sizes) not in (2, 3):
        raise UsageError(
            f"it is not known how model `{card.name}` takes media: its input is not pixels of one size",
            "name the pipeline that uses it: --pipeline FILE.toml",
        )
    frames, size = (sizes[0] if len(sizes) == 3 else 1), (sizes[-2], sizes[-1])
    layout = "rgb" if colours else "gray"
    infer = {
        "model": card.name,
        "max_batch": BATCH,
        "reads": {} if card.inputs[0].picture else {card.inputs[0].name: "pixels"},
    }
    stages: list[dict[str, object]] = [
        {"kind": "decode", "window": {"frames": frames}},
        {"kind": "resize", "size": list(size), "layout": layout},
        {"kind": "infer", **infer},
        {"kind": "encode", "format": "npz"},
    ]
    kinds = dict.fromkeys(any_recognised(Input(path, path.name)).kind for path in media)
    return PipelineSpec.model_validate({"name": "calibration", "media": tuple(kinds), "stage": stages})


def calibration_rows(
    spec: PipelineSpec,
    models: Mapping[str, tuple[ModelSpec, Content]],
    model: str,
    media: Sequence[Path],
    rows: int = ROWS,
) -> list[dict[str, Array]]:
    """Batches of the inputs of `model` in `spec`, from the beginning of every file, about `rows` together.

    `models` are those of the stages, as they name them. Raises MediaError, ModelError, UsageError.
    """
    names = list(spec.model_names.values())
    if model not in names:
        raise UsageError(f"pipeline {spec.name} does not use model {model}", f"it uses {', '.join(names) or 'none'}")
    plan = plan_pipeline(spec, {name: card for name, (card, _) in models.items()})
    last = next(number for number, stage in enumerate(spec.operators) if stage.model == model)
    stages = [stage for stage in spec.operators[: last + 1] if not plan.resizes(stage.name)]
    sessions = {
        name: OnnxRuntimeSession(models[name][1], models[name][0]) for name in {s.model for s in stages[:-1]} if name
    }
    sessions[model] = recorder = _Recorder(models[model][1], models[model][0])
    try:
        for path in media:
            until = recorder.rows + max(1, rows // len(media))
            for part in _parts(plan, path):
                for stage in stages:
                    session = sessions[stage.model] if stage.model else None
                    [outcome] = plan.operators[stage.name].run([part], session, no_tick)
                    if isinstance(outcome, RigflowError):
                        raise outcome
                    part = plan.kept(stage.name, part, outcome)
                if recorder.rows >= until:
                    break
    finally:
        for session in sessions.values():
            session.close()
    if not recorder.inputs:
        raise ModelError(f"model `{model}` got no rows from this media", "give media with pictures in it")
    return recorder.inputs


class _Recorder(OnnxRuntimeSession):
    """A session that records its inputs and computes nothing."""

    def __init__(self, model: Content, spec: ModelSpec) -> None:
        super().__init__(model, spec)
        self.inputs: list[dict[str, Array]] = []
        self.rows = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.inputs.append({name: array.copy() for name, array in inputs.items()})
        rows = min(len(array) for array in inputs.values())
        self.rows += rows
        return {tensor.name: np.zeros((rows, 1), np.float32) for tensor in self.spec.outputs}


def _parts(plan: Plan, path: Path) -> Iterator[Part]:
    """A file's parts after decode, in order, on this thread."""
    spec, decode = plan.spec, plan.decode
    convert = HostPictures(decode.pictures).convert
    job = JobRef(id="calibration", pipeline=spec.name, revision="0")
    medium = PipelineMedia(spec).recognised(Input(path, path.name))
    segments = medium.split([Input(path, path.name)], SplitRequest(spec.grid, spec.segment_s))
    for number, segment_data in enumerate(segments):
        segment = segment_data.segment(Key(job=job, segment=number))
        yield from medium.decode(segment, segment_data.buffers, decode, convert, DecodePlace())
