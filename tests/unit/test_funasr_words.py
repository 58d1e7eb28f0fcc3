"""Words of FunASR's tokens, and their subtitles."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from engines.operators.transcribe import Transcribe
from engines.outputs.cues import CueRules, Spoken, cues_of, words_of
from engines.speech.pieces import Piece, words_of_bpe, words_of_sentencepiece
from tests.listeners import sound, write_sensevoice
from tests.speech import sound_part
from tests.unit.outputs_parts import assemble, format_of
from tests.unit.test_funasr import SOUND, opened, said, stage_of, texts


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("今 天 wor@@ ld 好 hello id", ["今", "天", " world", " 好", " hello", " id"]),
        ("and@@ ro@@ id <unk> 好", ["android", " 好"]),
        ("n b a 好 a 好 x y z yes", ["NBA", " 好", " a", " 好", " XYZ", " yes"]),
        ("and@@ 好 no@@", ["and", " 好", " no"]),
        ("<s> <blank> </s>", []),
    ],
)
def test_words_of_bpe(tokens: str, expected: list[str]) -> None:
    pieces = [Piece(each, n, n + 1, 0.5) for n, each in enumerate(tokens.split())]
    words = words_of_bpe(pieces)
    assert [word.text for word in words] == expected
    assert all(word.probability == 0.5 for word in words)
    assert all(word.start < word.end <= after.start for word, after in pairwise(words))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("▁hello ▁wor ld , 今 天 气 。 id", [" hello", " world,", "今", "天", "气。", "id"]),
        ("<|zh|> 今天 <|BGM|> は い ！ ▁ 안 녕", ["今天", "は", "い！", " 안녕"]),
        ("， 好 <unk>", ["，", "好"]),
        ("", []),
    ],
)
def test_words_of_sentencepiece(tokens: str, expected: list[str]) -> None:
    pieces = [Piece(each, n, n + 1, 0.5) for n, each in enumerate(tokens.split())]
    assert [word.text for word in words_of_sentencepiece(pieces)] == expected


def test_a_transcript_has_emotion_event_and_lines_of_chinese(tmp_path: Path) -> None:
    session = opened(write_sensevoice(tmp_path / "voice"))
    part = sound_part([sound(12)])
    [made] = said(session, part)
    planned = Transcribe(stage_of(), session.spec).plan(SOUND)
    labels = {name: tensor.labels for name, tensor in planned.items() if tensor.labels}
    format = format_of("transcript", labels, files=["json", "srt"], chars=20)
    json_file, srt = sorted(assemble(format, tmp_path / "out", part.meta.media, [made]))
    [segment] = json.loads(json_file.read_text())["segments"]
    assert (segment["language"], segment["emotion"], segment["event"]) == ("ja", "HAPPY", "Speech")
    lines = [line for line in srt.read_text().splitlines() if line and not line[0].isdigit()]
    assert len(lines) > 3
    assert "".join(lines).replace(" ", "") == texts(made)[0].replace(" ", "")


def test_texts_without_spaces_are_cut_into_characters() -> None:
    text = "今天天气很好，我们去 Beijing 看看。hello world, 你好！A。"
    words = words_of(text)
    assert words == [
        " 今", "天", "天", "气", "很", "好，", "我", "们", "去", " Beijing", " 看", "看。", "hello", " world,", " 你",
        "好！", "A。",
    ]  # fmt: skip
    cues = cues_of([Spoken(word, n, n + 1) for n, word in enumerate(words)], CueRules(12, 1, 60, 5))
    assert [line for cue in cues for line in cue.lines] == [
        "今天天气很", "好，", "我们去", "Beijing 看", "看。", "hello world,", "你好！A。",
    ]  # fmt: skip
