"""The text of small pipelines around one model, and a card of one input and one output."""

from schemas.model import ModelSpec, TensorSpec
from schemas.pipeline import PipelineSpec, parse_pipeline


def pipeline(stages: str, size: str = "size = [8, 12]", window: int = 1) -> PipelineSpec:
    return parse_pipeline(pipeline_text(stages, size, window), "p.toml")


def pipeline_text(stages: str, size: str = "size = [8, 12]", window: int = 1) -> str:
    return f"""
name = "p"
media = "video"
[[stage]]
kind = "decode"
window = {{ frames = {window} }}
[[stage]]
kind = "resize"
{size}
{stages}
[[stage]]
kind = "encode"
format = "npz"
"""


INFER = '[[stage]]\nkind = "infer"\n'


def one_to_one(shape: tuple[int | str, ...], dtype: str = "uint8", name: str = "pixels", out: str = "y") -> ModelSpec:
    return ModelSpec(
        name="m",
        inputs=(TensorSpec(name=name, dtype=dtype, shape=shape),),
        outputs=(TensorSpec(name=out, dtype="float32", shape=("N", 4)),),
        sha256="",
    )
