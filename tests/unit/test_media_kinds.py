"""Kinds of media are names: one that is not there is refused in words, wherever it comes from."""

import pytest

from engines import registry
from engines.media.medium import DecodePlace, is_timed, medium_of
from engines.options import check_options
from engines.plan import plan_pipeline
from schemas.errors import PipelineError
from schemas.media import MediaInfo
from schemas.pipeline import parse_pipeline

TEXT = """
name = "p"
media = ["video", "smell"]

[[stage]]
kind = "decode"

[[stage]]
kind = "resize"
layout = "planes"

[[stage]]
kind = "encode"
format = "video"
"""


def test_each_kind_says_what_it_is_called() -> None:
    for name in registry.GROUPS["media"].classes:
        assert registry.load("media", name).kind == name
    assert is_timed(MediaInfo(kind="video"))
    assert not is_timed(MediaInfo(kind="image"))


def test_a_pipeline_of_a_kind_that_is_not_there_is_refused() -> None:
    with pytest.raises(PipelineError, match="there is no medium smell: there are image, video"):
        plan_pipeline(parse_pipeline(TEXT, "p.toml"), {})
    [error] = check_options(TEXT, "p.toml")
    assert str(error) == "p.toml, line 3, media: there is no medium smell: there are image, video"


def test_a_message_of_such_a_kind_is_an_error_of_its_own() -> None:
    with pytest.raises(PipelineError, match="there is no medium smell"):
        medium_of(MediaInfo(kind="smell"))
    assert DecodePlace().decoders is None
