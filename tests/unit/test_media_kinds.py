"""Kinds of media are classes, found by name: what they recognise, decode to, and refuse."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import registry
from engines.media.albums import album_segments
from engines.media.decode import Convert
from engines.media.medium import (
    BaseMedium,
    DecodePlace,
    Input,
    Match,
    PipelineMedia,
    SplitRequest,
    any_recognised,
    media_of,
    medium_of,
)
from engines.media.segment_data import SegmentData
from engines.options import Options, check_options
from engines.part import Part, Tick, no_tick
from engines.plan import plan_pipeline
from engines.planned import Arrays, DecodePlan, Tensor
from engines.ragged import Ragged
from schemas.errors import MediaError, PipelineError, UsageError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.media import CodecParameters, Item, MediaInfo
from schemas.messages import decode
from schemas.parts import PartMeta
from schemas.pipeline import DecodeStage, parse_pipeline
from schemas.segments import Segment
from schemas.wire import Buffer
from tests.clips import Clip, generated, still
from tests.kinds import kind_of

STAGE = DecodeStage(kind="decode")
PLAN = DecodePlan(STAGE, ("image", "video"), Grid(), {}, {})
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
LINES_TOML = """
name = "lines"
media = "lines"

[[stage]]
kind = "decode"
upper = true

[[stage]]
kind = "encode"
format = "jsonl"
"""


class LinesOptions(Options):
    upper: bool = False


class Lines(BaseMedium[LinesOptions]):
    """Text, an item a line: a medium that has neither times nor pictures."""

    kind = "lines"
    timed = False
    options_class = LinesOptions

    def sniff(self, head: bytes, given: Input) -> Match:
        return Match.CERTAIN if given.name.endswith(".txt") else Match.NO

    def split(self, inputs: Sequence[Input], request: SplitRequest) -> Iterator[SegmentData]:
        def items() -> Iterator[tuple[Item, Buffer]]:
            for given in inputs:
                assert isinstance(given.source, Path)
                for number, line in enumerate(given.source.read_bytes().splitlines(), 1):
                    yield Item(name=f"{given.name}:{number}"), line

        return album_segments(self.kind, items())

    def plan(self, grid: Grid) -> Arrays:
        return {"text": Tensor("uint8", ("text", "count"), ragged=True)}

    def decode(
        self,
        segment: Segment,
        buffers: Sequence[Buffer],
        plan: DecodePlan,
        convert: Convert,
        place: DecodePlace,
        tick: Tick = no_tick,
    ) -> Iterator[Part]:
        lines = [bytes(line).upper() if self._options.upper else bytes(line) for line in buffers]
        rows = Ragged.of([np.frombuffer(line, np.uint8) for line in lines])
        meta = PartMeta(
            key=segment.key, media=segment.media, pts=(0,) * len(lines), items=segment.items, frames=len(lines)
        )
        yield Part(meta, {"text": rows})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`Lines` among the media, as an installed package would add it."""
    monkeypatch.setitem(registry.GROUPS["media"].classes, "lines", f"{__name__}:Lines")
    registry.load.cache_clear()
    yield
    registry.load.cache_clear()


def test_each_kind_says_what_it_is_called() -> None:
    for name in registry.GROUPS["media"].classes:
        assert registry.load("media", name).kind == name


def test_a_pipeline_of_a_kind_that_is_not_there_is_refused() -> None:
    with pytest.raises(PipelineError, match="there is no medium smell: there are audio, image, tensor, text, video"):
        plan_pipeline(parse_pipeline(TEXT, "p.toml"), {})
    [error] = check_options(TEXT, "p.toml")
    assert str(error) == "p.toml, line 3, media: there is no medium smell: there are audio, image, tensor, text, video"
    with pytest.raises(PipelineError, match=r"p\.toml, line 1, media: missing"):
        parse_pipeline(TEXT.replace('media = ["video", "smell"]\n', ""), "p.toml")


def test_a_message_of_such_a_kind_is_an_error_of_its_own() -> None:
    for kind, words in (("image", "media of kind image have no times"), ("video", "media of kind video have times")):
        with pytest.raises(MediaError, match=words):
            medium_of(MediaInfo(kind=kind, timed=kind == "image"), PLAN)
    films = replace(PLAN, media=("video",))
    for kind in ("smell", "image"):  # no class is looked for that the pipeline does not name
        with pytest.raises(MediaError, match=f"has media of kind {kind}, and its pipeline takes video: publish"):
            medium_of(MediaInfo(kind=kind, timed=False), films)
    assert DecodePlace().decoders is None


@pytest.mark.parametrize(
    ("changes", "buffers", "reason"),
    [
        ({}, [], "0 buffers and a codec"),
        ({}, [b"one"], "1 buffers and a codec"),
        ({"codec": None}, [b"", b""], "2 buffers and no codec"),
        ({"media": MediaInfo(kind="video", width=64)}, [b"", b""], "a picture without size"),
    ],
)
def test_a_segment_that_is_no_video_is_an_error_where_it_is_decoded(
    changes: dict[str, Any], buffers: list[bytes], reason: str
) -> None:
    key = Key(job=JobRef(id="j", pipeline="p", revision="0"), segment=0)
    media = MediaInfo(kind="video", width=64, height=48)
    given = Segment(key=key, media=media, codec=CodecParameters(decoder="h264")).model_copy(update=changes)
    segment, views = decode(given.encode(buffers))
    assert isinstance(segment, Segment)
    with pytest.raises(MediaError, match=reason):
        list(medium_of(segment.media, PLAN).decode(segment, views, PLAN, lambda *_: {}, DecodePlace()))


@pytest.mark.parametrize("media", ['["lines", "video"]', '["video", "lines"]'])
def test_the_surest_kind_has_a_file_and_only_those_of_the_pipeline_are_asked(
    tmp_path: Path, lines: None, media: str
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("one\ntwo\n")
    both = PipelineMedia(parse_pipeline(LINES_TOML.replace('"lines"\n\n', f"{media}\n\n"), "p"))
    assert both.recognised(Input(text, "a.txt")).kind == "lines"  # FFmpeg might read it, and text is sure of it
    assert both.recognised(Input(generated(Clip()), "film.mp4")).kind == "video"
    videos = PipelineMedia(parse_pipeline(TEXT.replace(', "smell"', ""), "p"))
    assert videos.recognised(Input(text, "a.txt")).kind == "video", "another kind is installed, and not asked"
    with pytest.raises(UsageError, match="pipeline p takes video, this is image"):
        videos.recognised(Input(still("png"), "a.png"))
    with pytest.raises(UsageError, match="pipeline lines takes lines, this is video"):
        PipelineMedia(parse_pipeline(LINES_TOML, "p")).recognised(Input(generated(Clip()), "film.mp4"))
    assert any_recognised(Input(text, "a.txt")).kind == "lines"
    assert kind_of(still("png")) == "image"


def test_options_of_decode_are_those_of_the_media(lines: None) -> None:
    spec = parse_pipeline(LINES_TOML, "p")
    assert spec.decode.options == {"upper": True}
    assert plan_pipeline(spec, {}).arrays["decode"] == {"text": Tensor("uint8", ("text", "count"), ragged=True)}
    assert check_options(LINES_TOML, "p") == []
    [error] = check_options(LINES_TOML.replace("upper", "deinterlace"), "p")
    there = "fps, stream, upper, warm_up, window"
    assert str(error) == f"p, line 7, stage.0.deinterlace: there is no such option: there are {there}"
    with pytest.raises(PipelineError, match="stage decode: decode has no option `deinterlace`"):
        plan_pipeline(parse_pipeline(LINES_TOML.replace("upper", "deinterlace"), "p"), {})
    [error] = check_options(LINES_TOML.replace("true", "3"), "p")
    assert str(error).startswith("p, line 7, stage.0.upper: ")
    with pytest.raises(PipelineError, match="option upper"):
        media_of(DecodeStage.model_validate({"kind": "decode", "upper": 3}), ["lines"])


def test_media_of_a_pipeline_are_decoded_to_the_same_arrays_and_pictures_come_of_frames(lines: None) -> None:
    both = LINES_TOML.replace('media = "lines"', 'media = ["lines", "video"]')
    with pytest.raises(PipelineError, match="lines is decoded to `text`, and video to `index`"):
        plan_pipeline(parse_pipeline(both, "p"), {})
    resized = LINES_TOML.replace(
        '[[stage]]\nkind = "encode"', '[[stage]]\nkind = "resize"\n\n[[stage]]\nkind = "encode"'
    )
    with pytest.raises(PipelineError, match="stage `resize` takes pictures, and lines has none"):
        plan_pipeline(parse_pipeline(resized, "p"), {})


def test_windows_of_pictures_are_bounded() -> None:
    text = TEXT.replace(', "smell"', "").replace(
        'kind = "decode"', 'kind = "decode"\nfps = 25\nwindow = { frames = 1025 }'
    )
    with pytest.raises(PipelineError, match="a window of pictures has at most 1024"):
        plan_pipeline(parse_pipeline(text, "p"), {})


def test_a_medium_without_times_or_pictures_goes_from_file_to_part(tmp_path: Path, lines: None) -> None:
    text = tmp_path / "a.txt"
    text.write_text("\n".join(f"line {number}" for number in range(70)))
    spec = parse_pipeline(LINES_TOML, "p")
    medium = PipelineMedia(spec).recognised(Input(text, "a.txt"))
    pieces = list(medium.split([Input(text, "a.txt")], SplitRequest(spec.grid, spec.segment_s)))
    assert [(len(piece.items), piece.final, piece.end_s) for piece in pieces] == [(64, False, 0.0), (6, True, 0.0)]
    key = Key(job=JobRef(id="j", pipeline="lines", revision="0"), segment=1, final=True)
    segment, buffers = decode(pieces[1].segment(key).encode(pieces[1].buffers))
    assert isinstance(segment, Segment)
    plan = plan_pipeline(spec, {}).decode
    [part] = medium_of(segment.media, plan).decode(segment, buffers, plan, lambda *_: {}, DecodePlace())
    rows = part.arrays["text"]
    assert isinstance(rows, Ragged)
    assert bytes(rows.row(0)) == b"LINE 64"
    assert part.meta.items[-1].name == "a.txt:70"
