"""Whether the encode stage can write what a pipeline makes."""

import re

import pytest

from engines.plan import plan_pipeline
from schemas.errors import PipelineError
from schemas.model import TensorSpec
from schemas.pipeline import parse_pipeline
from tests.unit.small_pipelines import INFER, one_to_one, pipeline, pipeline_text

ENCODES = [
    ("y", "", 'format = "npz"', 1, ""),
    ("times", "", 'format = "npz"', 1, "output `times`: the format uses that name itself: rename the output"),
    ("file", "", 'format = "npz"', 1, "output `file`: the format uses that name itself"),
    ("time", "", 'format = "jsonl"', 1, "output `time`: the format uses that name itself"),
    ("times", "", 'format = "jsonl"', 1, ""),
    ("y", "", 'format = "npz"', 4, "output `y` has a row a frame, and a window is several frames"),
    (
        "y",
        "",
        'format = "video"',
        1,
        "format video needs `plane0` or `pixels`, the part holds `y`: have a resize stage with layout",
    ),
    ("y", 'keeps = ["pixels"]', 'format = "video"', 4, ""),
    ("y", 'keeps = ["pixels", "index"]', 'format = "shots"', 2, "format shots needs `score`"),
    ("score", 'keeps = ["pixels", "index"]', 'format = "shots"', 2, "`score` is float32 [F, 4]: format shots takes"),
    (
        "score",
        'keeps = ["pixels", "index"]',
        'format = "shots"',
        2,
        "`score` is float32 [F, 4]: format shots takes one",
    ),
    ("y", "", 'format = "npz"\noptions = { nosuch = 1 }', 1, "format npz has no option `nosuch`"),
]


@pytest.mark.parametrize(("out", "infer", "encode", "window", "words"), ENCODES)
def test_what_the_encode_stage_would_refuse_of_every_part(
    out: str, infer: str, encode: str, window: int, words: str
) -> None:
    text = pipeline_text(f'{INFER}model = "m"\n{infer}', window=window).replace('format = "npz"', encode)
    models = {"m": one_to_one(("N", 8, 12, 3), out=out)}
    if not words:
        plan_pipeline(parse_pipeline(text, "p.toml"), models)
        return
    with pytest.raises(PipelineError, match=f"^stage `?encode`?: {re.escape(words)}") as caught:
        plan_pipeline(parse_pipeline(text, "p.toml"), models)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("window", "layout", "sheet", "words"),
    [
        (2, "rgb", "true", ""),
        (1, "rgb", "true", "format shots needs windows of two frames"),
        (2, "gray", "true", "`pixels` is uint8 [F, 8, 12]"),
        (1, "gray", "false", ""),
    ],
)
def test_shots_need_two_frames_in_colour_for_their_sheet(window: int, layout: str, sheet: str, words: str) -> None:
    text = pipeline_text(f'{INFER}model = "m"\nkeeps = ["pixels", "index"]', window=window)
    text = text.replace('format = "npz"', f'format = "shots"\noptions = {{ sheet = {sheet} }}')
    text = text.replace("size = [8, 12]", f'size = [8, 12]\nlayout = "{layout}"')
    shape = ("N", *((window,) if window > 1 else ()), 8, 12, *((3,) if layout == "rgb" else ()))
    model = one_to_one(shape, out="score")
    model = model.model_copy(update={"outputs": (model.outputs[0].model_copy(update={"shape": ("N",)}),)})
    if words:
        with pytest.raises(PipelineError, match=re.escape(words)):
            plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})
    else:
        plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})


@pytest.mark.parametrize(
    ("array", "dtype", "shape", "media", "words"),
    [
        ("pixels", "uint8", ("N", 8, 12, 3), '["video", "image"]', ""),
        ("pixels", "uint8", ("N", 8, 12), '["video", "image"]', ""),
        ("pixels", "uint8", ("N", "H", "W", "C"), '["video", "image"]', ""),
        ("pixels", "float32", ("N", 8, 12, 3), '"video"', "`pixels` is float32: format video takes uint8"),
        ("pixels", "uint8", ("N", 8, 12, 1), '"image"', ""),
        (
            "pixels",
            "uint8",
            ("N", 8, 12, 1),
            '["video", "image"]',
            "of video, format video takes [F, H, W] and [F, H, W, 3]",
        ),
        ("pixels", "uint8", ("N", 8, 12, 5), '"image"', "of image, format video takes [F, H, W] and [F, H, W, 1 to 4]"),
        ("pixels", "uint8", ("N", 3, 8, 12), '"video"', "`pixels` is uint8 [N, 3, 8, 12]"),
        ("pixels", "uint8", ("N", 96), '"video"', "`pixels` is uint8 [N, 96]"),
        ("plane0", "uint8", ("N", 8, 12, 3), '"video"', "of video, format video takes [F, H, W]"),
    ],
)
def test_pictures_that_no_video_or_image_can_be_made_of(
    array: str, dtype: str, shape: tuple[int | str, ...], media: str, words: str
) -> None:
    size = "size = [8, 12]" if array == "pixels" else 'layout = "planes"'
    text = pipeline_text(f'{INFER}model = "m"\neach = ["{array}"]', size=size)
    text = text.replace('format = "npz"', 'format = "video"').replace('media = "video"', f"media = {media}", 1)
    seen = ("N", 8, 12, 3) if array == "pixels" else ("N", "H", "W")
    model = one_to_one(seen).model_copy(update={"outputs": (TensorSpec(name="y", dtype=dtype, shape=shape),)})
    if words:
        with pytest.raises(PipelineError, match=re.escape(words)):
            plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})
    else:
        plan_pipeline(parse_pipeline(text, "p.toml"), {"m": model})


def test_frames_alone_are_nothing_to_write() -> None:
    with pytest.raises(PipelineError, match="stage `encode`: the part holds frames and no output of a model"):
        plan_pipeline(pipeline(""), {})
