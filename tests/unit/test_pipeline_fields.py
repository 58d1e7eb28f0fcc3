"""What the command line changes of a pipeline: another model, other fields; the revision follows."""

import pytest

from pipelines.registry import builtin_pipeline
from schemas.errors import PipelineError
from schemas.pipeline import parse_pipeline
from tests.unit.small_pipelines import INFER, pipeline_text


def test_another_model() -> None:
    spec = builtin_pipeline("upscale")
    other = spec.with_model("mine")
    assert other.model_names == {"infer": "mine"}
    assert other.revision != spec.revision
    assert other.with_model("realesr-animevideov3") == spec
    assert spec.with_model(None) is spec
    spoken = builtin_pipeline("transcribe").with_model("mine")
    assert spoken.model_names == {"speech": "silero-vad", "transcribe": "mine"}


def test_fields_and_options_of_stages() -> None:
    spec = builtin_pipeline("upscale")
    other = spec.with_fields({"infer.max_batch": 4, "scale.factor": 2.0, "encode.crf": 16, "decode.fps": 5})
    infer, scale = other.operators
    assert (infer.max_batch, scale.options, other.encode.options, other.decode.fps) == (
        4, {"factor": 2.0}, {"crf": 16}, 5.0,
    )  # fmt: skip
    assert other.revision != spec.revision
    assert spec.with_fields({}) is spec


@pytest.mark.parametrize("path", ["zoom.factor", "infer", "infer.", "infer.name", "infer.kind", ""])
def test_fields_that_no_stage_has(path: str) -> None:
    with pytest.raises(PipelineError, match="its stages are decode, infer, scale, encode"):
        builtin_pipeline("upscale").with_fields({path: 1})


def test_a_value_that_a_field_does_not_take() -> None:
    with pytest.raises(PipelineError, match=r"pipeline upscale, infer\.max_batch"):
        builtin_pipeline("upscale").with_fields({"infer.max_batch": "many"})


def test_a_pipeline_of_several_models_or_of_none() -> None:
    two = f'{INFER}model = "a"\n{INFER}model = "b"\nname = "second"\n'
    with pytest.raises(PipelineError, match=r"in 2 stages: infer, second.*--set STAGE\.model=NAME"):
        parse_pipeline(pipeline_text(two), "p.toml").with_model("mine")
    with pytest.raises(PipelineError, match=r"runs a model in 0 stages.*leave out --model"):
        parse_pipeline(pipeline_text(""), "p.toml").with_model("mine")
