"""Jobs of all kinds for fault runs, and what each must come to: by one sequential pass, and by a fleet in peace."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import numpy as np

from benchmarks.workloads import looped
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import builtin_model
from engines.part import Array
from pipelines.registry import builtin_pipeline
from schemas.pipeline import PipelineSpec, parse_pipeline
from tests.clips import Clip, make_clip, still
from tests.fleet import ONE_WORKER, Fleet
from tests.own_pass import answers_of
from tests.plans import converter
from tests.reference import frames_of
from workers.inputs import JobOutcome

TWICE = """
name = "twice"
media = "video"
segment_s = 0.2

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
size = [24, 32]
layout = "gray"

[[stage]]
kind = "infer"
name = "double"
model = "lanczos2x"
reads = { plane = "pixels" }

[[stage]]
kind = "infer"
name = "check"
model = "simulated"
reads = { pixels = "doubled" }

[[stage]]
kind = "encode"
format = "npz"
"""


@dataclass(frozen=True)
class Kind:
    """A pipeline over some inputs: `files` is what its results must be, byte for byte."""

    spec: PipelineSpec
    inputs: tuple[Path, ...]
    files: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.spec.name} of {self.inputs[0].name if len(self.inputs) == 1 else f'{len(self.inputs)} images'}"


def all_kinds(folder: Path) -> list[Kind]:
    """Jobs of four pipelines over clips and images."""
    folder.mkdir()
    clips = [
        looped(folder / "carphone.mp4", 20.0, "carphone_pristine"),
        make_clip(folder, Clip(frames=200, open_gop=True, b_frames=3)),
        make_clip(folder, Clip(codec="vp9", container="webm", frames=100, seed=1)),
        make_clip(folder, Clip(frames=60, sound="aac", container="mkv", seed=2)),
    ]
    images = []
    for number, codec in enumerate(("mjpeg", "png", "libwebp") * 3):
        images.append(folder / f"{number}.{codec}")
        images[-1].write_bytes(still(codec, (48 + 8 * number, 64), seed=number))
    fingerprint, scenes = builtin_pipeline("fingerprint"), builtin_pipeline("scenes")
    upscale = builtin_pipeline("upscale2x")
    short = {"segment_s": 0.4}
    planned = [
        (fingerprint, clips[:1]),
        (fingerprint.model_copy(update=short), clips[2:3]),
        (scenes.model_copy(update=short), clips[1:2]),
        (parse_pipeline(TWICE, "twice.toml"), clips[1:2]),
        (upscale.model_copy(update=short), clips[3:4]),
        (fingerprint, images),
        (upscale, images[:1]),
    ]
    return in_peace(folder, planned)


def few_kinds(folder: Path) -> list[Kind]:
    """Two of them, with short clips."""
    folder.mkdir()
    clip = make_clip(folder, Clip(frames=100))
    spec = builtin_pipeline("fingerprint").model_copy(update={"segment_s": 0.4})
    return in_peace(folder, [(spec, [clip]), (parse_pipeline(TWICE, "twice.toml"), [clip])])


def in_peace(folder: Path, planned: Sequence[tuple[PipelineSpec, list[Path]]]) -> list[Kind]:
    """Run each once on a fleet of one worker that nothing befalls, and hold it against the sequential pass."""
    made = []
    with Fleet(ONE_WORKER, folder / "cache", (0.0,)) as fleet:
        for number, (spec, inputs) in enumerate(planned):
            (outcome,) = fleet.run(spec, inputs, folder / str(number))
            check(outcome, spec)
            made.append(Kind(spec, tuple(inputs), results_of(outcome)))
    return made


def results_of(outcome: JobOutcome) -> tuple[bytes, ...]:
    """All files of a job that is done, without a failure."""
    assert outcome.done is not None, outcome.error
    assert not outcome.done.failures, outcome.done.failures
    return tuple((outcome.target.parent / name).read_bytes() for name in outcome.done.files)


@cache
def _of_one_pass(clip: Path, spec_json: str) -> tuple[Array, Array]:
    return answers_of(clip, PipelineSpec.model_validate_json(spec_json))


def check(outcome: JobOutcome, spec: PipelineSpec) -> None:
    """Hold a job against one sequential pass over its input."""
    assert outcome.done is not None, outcome.error
    files = [outcome.target.parent / name for name in outcome.done.files]
    clip = outcome.inputs[0]
    if spec.name == "twice":
        with np.load(files[0]) as found:
            np.testing.assert_array_equal(found["crc32"], _twice(clip, spec))
    elif spec.name == "scenes":
        times, scores = _of_one_pass(clip, spec.model_dump_json())
        shots = [json.loads(line) for line in next(f for f in files if f.suffix == ".jsonl").read_text().splitlines()]
        assert len(shots) > 1
        for shot in shots[1:]:
            (place,) = np.flatnonzero(np.isclose(times, shot["start"], atol=1e-3))
            assert abs(shot["score"] - scores[place - 1]) < 1e-4
    elif spec.name == "fingerprint" and outcome.kind == "video":
        times, answers = _of_one_pass(clip, spec.model_dump_json())
        with np.load(files[0]) as found:
            np.testing.assert_array_equal(found["times"], times)
            np.testing.assert_array_equal(found["descriptor"], answers)
    elif spec.name == "upscale2x" and outcome.kind == "video":
        given, base, _ = frames_of(clip)
        found_frames, found_base, _ = frames_of(files[0])
        assert [pts * found_base for pts, _ in found_frames] == [pts * base for pts, _ in given]


def _twice(clip: Path, spec: PipelineSpec) -> Array:
    preprocess = converter(spec)
    card, model = builtin_model("lanczos2x")
    session = OnnxRuntimeSession(model, card)
    with av.open(clip) as container:
        frames: Sequence[Array] = [preprocess.convert(frame)["pixels"] for frame in container.decode(video=0)]
    doubled = [session.run({"plane": frame[None]})["doubled"] for frame in frames]
    session.close()
    return np.array([zlib.crc32(np.ascontiguousarray(picture)) for picture in doubled], np.uint32)
