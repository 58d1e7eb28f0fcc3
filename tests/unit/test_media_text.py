"""text: files of UTF-8 and of JSON lines. Each line is a result or one line that says what is wrong with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from engines.media.limits import Limits
from engines.media.medium import DecodePlace, Input, Match, PipelineMedia, SplitRequest, medium_of
from engines.media.text import Text
from engines.part import Part
from engines.plan import plan_pipeline
from engines.ragged import Ragged
from engines.texts import text_of_row, text_rows
from schemas.errors import ItemTooLarge, MediaError, PipelineError, UsageError
from schemas.grid import Grid
from schemas.jobs import JobRef, Key
from schemas.media import Item, MediaInfo
from schemas.messages import decode
from schemas.pipeline import DecodeStage, parse_pipeline
from schemas.segments import Segment
from tests.clips import Clip, generated, still
from tests.unit.outputs_parts import VIDEO, assemble, format_of, make_part

ECHO = """
name = "echo"
media = ["text"]

[[stage]]
kind = "decode"

[[stage]]
kind = "encode"
format = "FORMAT"
"""
TEXTS = MediaInfo(kind="text", timed=False)
KEY = Key(job=JobRef(id="j", pipeline="echo", revision="0"), segment=0, final=True)
LABELS: dict[str, tuple[str, ...]] = {"text.utf8": (), "request.utf8": ()}


def pieces(
    *inputs: Input, limits: Limits | None = None, **options: str | int
) -> list[tuple[Segment, list[memoryview]]]:
    """Segments of inputs as they arrive at a worker."""
    request = SplitRequest(Grid(), 4.0, limits=limits or Limits())
    found = []
    for data in Text(DecodeStage(kind="decode", options=options)).split(inputs, request):
        segment, buffers = decode(data.segment(KEY).encode(data.buffers))
        assert isinstance(segment, Segment)
        found.append((segment, buffers))
    return found


def parts(*inputs: Input) -> list[Part]:
    plan = plan_pipeline(parse_pipeline(ECHO.replace("FORMAT", "jsonl"), "echo"), {}).decode
    return [
        part
        for segment, buffers in pieces(*inputs)
        for part in medium_of(segment.media, plan).decode(segment, buffers, plan, lambda *_: {}, DecodePlace())
    ]


def outcomes(*inputs: Input) -> list[tuple[str, str]]:
    """Name of each item, and its text, or the error after an exclamation mark."""
    found = []
    for part in parts(*inputs):
        rows = iter(range(len(part.meta.pts)))
        text = part.arrays["text"]
        assert isinstance(text, Ragged)
        for item in part.meta.items:
            found.append((item.name, f"!{item.error}" if item.error else text_of_row(text, next(rows))))
    return found


def lines(data: bytes, name: str = "a.jsonl") -> list[tuple[str, str]]:
    return outcomes(Input(data, name))


def test_a_file_is_an_item_and_a_line_of_json_is_one(tmp_path: Path) -> None:
    note = tmp_path / "note.md"
    note.write_bytes(b"\xef\xbb\xbf# Gr\xc3\xbc\xc3\x9fe\r\n")
    asked = b'{"id": "q1", "prompt": "one"}\n\n{"text": "two", "voice": "x"}\r\n{"id": 7, "messages": '
    asked += b'[{"role": "system", "content": "be brief"}, {"role": "user", "content": "three"}]}'
    given = [Input(note, note.name), Input(asked, "a.jsonl")]
    assert outcomes(*given) == [("note.md", "# Grüße\r\n"), ("q1", "one"), ("a-3", "two"), ("7", "three")]
    [part] = parts(*given)
    request = part.arrays["request"]
    assert isinstance(request, Ragged)
    assert text_of_row(request, 0) == ""
    assert json.loads(text_of_row(request, 2))["voice"] == "x"
    assert (part.meta.frames, part.meta.lost, part.meta.key.last) == (4, 0, True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"prompt": "x"', "it is no JSON: EOF while parsing an object at line 1 column 14"),
        (b"prompt: x", "it is no JSON: expected value"),
        (b'["x"]', "object: write {"),
        (b'{"prompt": "\\ud800"}', "it has half of a character: a surrogate"),
        (b'{"prompt": "\\ud83d\\u0041"}', "it has half of a character: a surrogate"),
        (b'{"prompt": "\xff"}', "it is no JSON: invalid unicode code point"),
        (b'{"prompt": "a\\u0000b"}', "prompt: it has a NUL character, which is no text"),
        (b'{"prompt": "a\x00b"}', "it is no JSON: control character"),
        (b'{"prompt": " "}', "its text is empty"),
        (b'{"id": "x"}', "give one of prompt, text and messages"),
        (b'{"prompt": "x", "text": "y"}', "give one of prompt, text and messages"),
        (b'{"id": "", "prompt": "x"}', "id: it is empty: write {"),
        (b'{"id": true, "prompt": "x"}', "id: should be a text or a whole number"),
        (b'{"id": 1.0, "prompt": "x"}', "id: should be a text or a whole number"),
        (b'{"id": ["a"], "prompt": "x"}', "id: should be a text or a whole number"),
        (b'{"prompt": 3}', "prompt: should be a valid string"),
        (b'{"messages": []}', "messages: "),
        (b'{"messages": [{"role": "god", "content": "x"}]}', "messages.0.role: should be 'system', 'user'"),
        (b'{"prompt": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "it is no JSON: recursion limit exceeded"),
        (b'{"prompt": "' + b"x" * (16 << 20) + b'"}', "it has more than 16777216 bytes: cut it"),
    ],
)
def test_a_bad_line_fails_alone_and_says_its_number(line: bytes, reason: str) -> None:
    found = lines(b'{"prompt": "one"}\n' + line + b'\n{"prompt": "three"}\n')
    assert [found[0], found[2]] == [("a-1", "one"), ("a-3", "three")]
    assert found[1][0] == "a-2"
    assert found[1][1].startswith("!line 2: ")
    assert reason in found[1][1]
    assert "\n" not in found[1][1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"one\ntwo \xff", "!line 2: it is not UTF-8, invalid start byte: convert it: iconv -f ENCODING -t UTF-8"),
        ("one".encode("utf-16"), "!it is UTF-16, and not UTF-8: convert it: iconv -f UTF-16 -t UTF-8"),
        (b"one\n\ntw\0o", "!line 3: it has a NUL character, which is no text: remove it"),
        (b"\xed\xa0\x80", "!line 1: it is not UTF-8, invalid continuation byte: convert it: "),
        (b" \n\t\n", "!its text is empty: write something into it"),
        (b"x" * ((16 << 20) + 1), "!a.txt has 16777217 bytes, and a text has at most 16777216: cut it, or write "),
    ],
)
def test_a_file_that_is_no_text_is_a_failed_item(data: bytes, reason: str) -> None:
    [(name, found), good] = outcomes(Input(data, "a.txt"), Input(b"good", "b.txt"))
    assert name == "a.txt"
    assert found.startswith(reason)
    assert good == ("b.txt", "good")


def test_two_megabytes_are_one_item(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("Ä" * (1 << 20))
    assert outcomes(Input(path, path.name), Input(tmp_path / "gone.txt", "gone.txt")) == [
        ("long.txt", "Ä" * (1 << 20)),
        ("gone.txt", "!gone.txt: no such file: check the path"),
    ]


def test_sentences_are_pieces_of_their_text_whatever_its_name() -> None:
    texts = [Input(b"One. Two.", "a.txt"), Input(b'{"id": "a", "prompt": "Three. Four."}', "b.jsonl")]
    found = pieces(*texts, Input(b"Five. Six.", "a.txt"), pieces="sentences")
    assert [item.piece_of for segment, _ in found for item in segment.items] == [0, 0, None, 2, 2]
    whole = pieces(*texts, pieces="whole")
    assert [item.piece_of for segment, _ in whole for item in segment.items] == [None, None]


def test_items_are_spread_over_segments_and_bounded() -> None:
    many = b"".join(b'{"prompt": "%d"}\n' % number for number in range(20))
    found = pieces(Input(many, "a.jsonl"))
    assert [len(segment.items) for segment, _ in found] == [4] * 5
    with pytest.raises(ItemTooLarge, match="more than 19 items: cut the file, or raise the setting max_windows"):
        pieces(Input(many, "a.jsonl"), limits=Limits(windows=19))
    assert lines(b"\n\n") == [("a.jsonl", "!it has no lines: write a JSON object on each")]


def test_what_a_message_holds_is_checked_where_it_is_decoded() -> None:
    """Segments come from other programs, too."""
    items = (Item(name="a"), Item(name="b", line=True), Item(name="c"))
    segment = Segment(key=KEY, media=TEXTS, items=items)
    plan = plan_pipeline(parse_pipeline(ECHO.replace("FORMAT", "text"), "echo"), {}).decode
    text = medium_of(TEXTS, plan)
    [part] = text.decode(segment, [b"\xff", b"{", b"fine"], plan, lambda *_: {}, DecodePlace())
    assert [bool(item.error) for item in part.meta.items] == [True, True, False]
    assert (len(part.meta.pts), part.meta.lost) == (1, 2)
    by_path = segment.model_copy(update={"items": (Item(name="a", path="/etc/passwd"),)})
    with pytest.raises(MediaError, match="names files, and has no text"):
        list(text.decode(by_path, [], plan, lambda *_: {}, DecodePlace()))


def test_text_is_recognised_by_name_or_by_what_it_begins_with() -> None:
    text = Text(DecodeStage(kind="decode"))
    for name in ("a.txt", "A.MD", "a.jsonl"):
        assert text.sniff(b"\xff\0", Input(b"\xff\0", name)) is Match.CERTAIN
    for head in (b"hello", "Grüße".encode()[:4], b"\xef\xbb\xbfx", b'{"prompt": "x"}'):
        assert text.sniff(head, Input(head, "")) is Match.BESIDE, head
    for head in (still("png"), generated(Clip()).read_bytes()[:512], b"\xff\xfeh\0", b"a\0b"):
        assert text.sniff(head, Input(head, "job")) is Match.NO, head
    echo = PipelineMedia(parse_pipeline(ECHO.replace("FORMAT", "text"), "echo"))
    with pytest.raises(UsageError, match="pipeline echo takes text, this is image"):
        echo.recognised(Input(still("png"), "a.png"))
    with pytest.raises(UsageError, match="pipeline echo takes text, this is video"):
        echo.recognised(Input(generated(Clip()), "a.mp4"))
    for other in ("Größe, süß".encode("latin-1") * 99, bytes(9999)):  # which FFmpeg does not open either
        with pytest.raises(UsageError, match="takes text, this is of no kind of media that is known"):
            echo.recognised(Input(other, "5f0c6a4be1d2"))
    with pytest.raises(MediaError, match="is empty"):
        echo.recognised(Input(b"", "a.txt"))
    asked = outcomes(Input(b'{"id": "x", "prompt": "hello"}', "5f0c6a4be1d2"))  # of a program that has only NATS
    assert asked == [("x", "hello")]


def test_texts_are_strings_of_jsonl_and_files_of_text(tmp_path: Path) -> None:
    rows = text_rows(["Grüße\n", "two", b"\xff"])
    items = [Item(name="v1.5", line=True), Item(name="b.txt"), Item(name="bad", error="no"), Item(name="c/v1.5.md")]
    part = make_part(TEXTS, {"text": rows, "tokens": np.array([3, 1, 0])}, (0, 0, 0), items=items)
    (path,) = assemble(format_of("jsonl", LABELS), tmp_path / "a", TEXTS, [part])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"name": "v1.5", "text": "Grüße\n", "tokens": 3},
        {"name": "b.txt", "text": "two", "tokens": 1},
        {"name": "bad", "error": "no"},
        {"name": "c/v1.5.md", "text": "\ufffd", "tokens": 0},
    ]
    paths = assemble(format_of("text", LABELS), tmp_path / "a", TEXTS, [part])
    found = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in paths}
    assert found == {"a/v1.5.txt": "Grüße\n".encode(), "a/b.txt": b"two", "a/v1.5-2.txt": b"\xff"}
    alone = make_part(TEXTS, {"text": text_rows(["one"])}, (0,), items=[Item(name="b.txt")])
    (path,) = assemble(format_of("text", LABELS), tmp_path / "b", TEXTS, [alone])
    assert (path.name, path.read_text()) == ("b.txt", "one")
    film = make_part(VIDEO, {"text": text_rows(["one", "two"])}, (0, 50))
    (path,) = assemble(format_of("text", LABELS), tmp_path / "film", VIDEO, [film])
    assert (path.name, path.read_text()) == ("film.txt", "0.0\tone\n2.0\ttwo\n")


def test_the_format_text_needs_text() -> None:
    failed = make_part(TEXTS, {}, (), items=[Item(name="a", error="no")])
    assert format_of("text", LABELS).encode(failed).arrays["sizes"].tolist() == []
    with pytest.raises(PipelineError, match="a part of 1 windows does not have `text` for each"):
        format_of("text", LABELS).encode(make_part(TEXTS, {"x": np.zeros(1)}, (0,)))


def test_a_stage_says_how_many_items_a_message_has() -> None:
    lines = Input("".join(json.dumps({"prompt": f"{n}"}) + "\n" for n in range(6)).encode(), "q.jsonl")
    sizes = [
        [len(segment.items) for segment, _ in pieces(lines, **given)] for given in ({}, {"items": 1}, {"items": 64})
    ]
    assert sizes == [[4, 2], [1] * 6, [6]]
    with pytest.raises(PipelineError, match="items"):
        pieces(lines, items=0)
