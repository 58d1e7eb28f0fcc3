"""Whether the models of a pipeline fit its stages, and what is said of those that do not."""

import re
from importlib.resources import files

import pytest

from engines.models.catalogue import builtin_model
from engines.plan import plan_pipeline
from schemas.errors import ModelError, PipelineError
from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import parse_pipeline
from tests.unit.small_pipelines import INFER, one_to_one, pipeline


@pytest.mark.parametrize("name", ["fingerprint", "scenes", "upscale2x"])
def test_the_pipelines_of_rigflow_fit_their_models(name: str) -> None:
    spec = parse_pipeline((files("pipelines") / "definitions" / f"{name}.toml").read_text(), name)
    plan_pipeline(spec, {stage.model: builtin_model(stage.model)[0] for stage in spec.operators if stage.model})


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        (("N", 8, 12, 3), 1),
        (("N", "H", "W", 3), 1),
        ((1, 8, 12, 3), 1),
        (("N", 4, 8, 12, 3), 4),
        (("N", "T", 8, 12, 3), 4),
    ],
)
def test_fits(shape: tuple[int | str, ...], window: int) -> None:
    plan_pipeline(pipeline(INFER + 'model = "m"', window=window), {"m": one_to_one(shape)})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one_to_one(("N", 8, 13, 3)), "wants `pixels` as uint8 [N, 8, 13, 3], and `pixels` is uint8 [F, 8, 12, 3]"),
        (one_to_one(("N", 3, 8, 12), "float32"), "wants `pixels` as float32 [N, 3, 8, 12]"),
        (one_to_one(("N", 5, 8, 12, 3)), "and `pixels` is uint8 [W, 2, 8, 12, 3]"),
        (one_to_one(("N", 8, 12)), "wants `pixels` as uint8 [N, 8, 12]"),
        (one_to_one(()), "wants `pixels` as uint8 []"),
        (one_to_one((8, 8, 12, 3)), "has no free batch"),
        (one_to_one(("N", 8, 12, 3), out="pixels"), "output `pixels` has the name of an array of decode"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(model: ModelSpec, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        plan_pipeline(pipeline(INFER + 'model = "m"', window=2), {"m": model})
    assert "\n" not in str(caught.value)
    assert "`m`" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ('reads = { x = "pixels" }', "model `m` has no input `x`, only `pixels`"),
        ('reads = { pixels = "faces" }', "wants array `faces`, and there is only `index`, `pixels`"),
        ('keeps = ["plane0"]', "wants array `plane0`"),
        ('each = ["plane0"]', "wants array `plane0`"),
    ],
)
def test_a_stage_that_names_what_is_not_there_is_one_line(stage: str, words: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(words)) as caught:
        plan_pipeline(pipeline(f'{INFER}model = "m"\n{stage}'), {"m": one_to_one(("N", 8, 12, 3))})
    assert "\n" not in str(caught.value)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match="stage `infer`: there is no model `m`: the models are: none"):
        plan_pipeline(pipeline(INFER + 'model = "m"'), {})


def test_the_second_model_sees_what_the_first_one_left() -> None:
    first, second = one_to_one(("N", 8, 12, 3)), one_to_one(("N", 4), "float32", "x")
    stages = '{0}model = "a"\n{0}name = "second"\nmodel = "b"\nreads = {{ x = "{1}" }}'
    plan_pipeline(pipeline(stages.format(INFER, "y")), {"a": first, "b": second})
    with pytest.raises(PipelineError, match="stage `second` wants array `pixels`, and there is only `y`"):
        plan_pipeline(pipeline(stages.format(INFER, "pixels")), {"a": first, "b": second})
    wrong = one_to_one(("N", 5), "float32", "x")
    with pytest.raises(ModelError, match=re.escape("as float32 [N, 5], and `y` is float32 [W, 4]")):
        plan_pipeline(pipeline(stages.format(INFER, "y")), {"a": first, "b": wrong})


def test_each_needs_a_model_of_one_input_and_one_output() -> None:
    plane = TensorSpec(name="a", dtype="uint8", shape=("N", "H", "W"))
    model = ModelSpec(name="m", inputs=(plane, plane.model_copy(update={"name": "b"})), outputs=(), sha256="")
    stage = INFER + 'model = "m"\neach = ["plane0"]'
    with pytest.raises(ModelError, match="`each` needs a model of one input and one output"):
        plan_pipeline(pipeline(stage, size='layout = "planes"'), {"m": model})
