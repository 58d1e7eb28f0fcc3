"""Transcripts: cues of words, and the files srt, vtt, txt, tsv and json."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.encoding import Origin, Traced
from engines.outputs.cues import Cue, CueRules, Spoken, cues_of
from engines.outputs.transcript import TranscriptFormat
from engines.outputs.transcript_files import WRITERS
from engines.part import Part
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import OutputError, PipelineError
from schemas.media import MediaInfo
from tests.unit.outputs_parts import assemble, feed, format_of, make_part

MEDIA = MediaInfo(kind="audio", name="a.wav", time_base=(1, 1000), end=3_725_500)
LABELS = {"language": ("en", "de")}
RULES = CueRules(chars=20, lines=2, most_s=7, pause_s=1)
SAID = " It was the best of times, it was the worst of times. It was so."


def spoken(text: str, start: float = 0.0, step: float = 0.5) -> list[Spoken]:
    """Words of a text that follow each other."""
    words = re.findall(r" ?\S+", text)
    return [Spoken(word, start + n * step, start + (n + 1) * step) for n, word in enumerate(words)]


def part_of(*chunks: tuple[float, str, int], words: bool = True, number: int = 0) -> Part:
    """Chunks of (begin in seconds, text, language)."""
    texts, rows, spans = [], [], []
    for start, text, _ in chunks:
        said = spoken(text, start)
        places = np.cumsum([0, *(len(word.text.encode()) for word in said)])
        texts.append(np.frombuffer(text.encode(), np.uint8))
        row = [[word.start, word.end, 0.75, places[n], places[n + 1]] for n, word in enumerate(said)]
        rows.append(np.array(row, np.float64).reshape(-1, 5))
        spans.append((start, said[-1].end if said else start))
    arrays: dict[str, Any] = {
        "text": Ragged.of(texts),
        "span": np.array(spans, np.float64).reshape(-1, 2),
        "language": np.array([language for *_, language in chunks], np.int32),
        "quality": np.full((len(chunks), 4), [-0.25, 0.01, 1.5, 0.9877], np.float32),
    }
    if words:
        arrays["words"] = Ragged.of(rows)
    return make_part(MEDIA, arrays, [round(start * 1000) for start, *_ in chunks], number)


def test_cues_end_at_sentences_and_fit_their_lines() -> None:
    cues = list(cues_of(spoken(SAID), RULES))
    assert [cue.lines for cue in cues] == [
        ("It was the best of", "times,"),
        ("it was the worst of", "times. It was so."),
    ]
    assert [(cue.start, cue.end) for cue in cues] == [(0, 3), (3, 7.5)]
    cues = list(cues_of(spoken(SAID + " And so it is, too."), RULES))
    assert [cue.lines for cue in cues][1:] == [("it was the worst of", "times. It was so."), ("And so it is, too.",)]


def test_cues_end_at_pauses_and_are_short() -> None:
    words = [*spoken(" a b", 0), *spoken(" c d", 3)]
    assert [cue.lines for cue in cues_of(words, RULES)] == [("a b",), ("c d",)]
    slow = spoken(" a b c d e", step=3)
    assert [cue.end - cue.start for cue in cues_of(slow, RULES)] == [6, 6, 3]
    assert [cue.lines for cue in cues_of(spoken(" " + "x" * 50), RULES)] == [("x" * 50,)]
    assert list(cues_of([], RULES)) == []


def test_words_without_spaces_are_joined_without_them() -> None:
    words = [Spoken(each, n, n + 1) for n, each in enumerate("今天天气很好。")]
    assert [cue.lines for cue in cues_of(words, CueRules(8, 2, 60, 5))] == [("今天天气", "很好。")]


def written(tmp_path: Path, *parts: Part, **options: Any) -> dict[str, str]:
    files = assemble(format_of("transcript", LABELS, **options), tmp_path / "a", MEDIA, parts)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    return {path.suffix[1:]: path.read_text() for path in files}


def test_all_files_of_a_transcript(tmp_path: Path) -> None:
    first = part_of((3600.25, " One <b> & two.", 0), (3605.0, "", 1))
    second = part_of((3700.0, " Drei.", 1), number=1)
    found = written(tmp_path, first, second, files=["srt", "vtt", "txt", "tsv", "json"])
    assert found["srt"] == (
        "1\n01:00:00,250 --> 01:00:02,250\nOne <b> & two.\n\n2\n01:01:40,000 --> 01:01:40,500\nDrei.\n\n"
    )
    assert found["vtt"] == (
        "WEBVTT\n\n01:00:00.250 --> 01:00:02.250\nOne &lt;b&gt; &amp; two.\n\n01:01:40.000 --> 01:01:40.500\nDrei.\n\n"
    )
    assert found["txt"] == "One <b> & two.\nDrei.\n"
    assert found["tsv"] == "start\tend\ttext\n3600250\t3602250\tOne <b> & two.\n3700000\t3700500\tDrei.\n"
    whole = json.loads(found["json"])
    assert (whole["language"], whole["duration"]) == ("en", 3725.5)
    assert whole["segments"][1] == {
        "start": 3700.0,
        "end": 3700.5,
        "text": "Drei.",
        "language": "de",
        "language_probability": 0.9877,
        "avg_logprob": -0.25,
        "no_speech_prob": 0.01,
        "compression_ratio": 1.5,
        "words": [{"word": " Drei.", "start": 3700.0, "end": 3700.5, "probability": 0.75}],
    }


def test_silence_gives_empty_files_and_a_note(tmp_path: Path) -> None:
    nothing = make_part(
        MEDIA,
        {
            "text": Ragged(np.zeros(0, np.uint8), np.zeros(1, np.int64)),
            "span": np.zeros((0, 2)),
            "language": np.zeros(0, np.int32),
            "quality": np.zeros((0, 4), np.float32),
        },
        [],
    )
    found = written(tmp_path, nothing, files=["srt", "vtt", "tsv", "json"])
    assert (found["srt"], found["vtt"], found["tsv"]) == ("", "WEBVTT\n\n", "start\tend\ttext\n")
    assert json.loads(found["json"]) == {"segments": [], "language": None, "duration": 3725.5}
    assembler = format_of("transcript", LABELS).assemble(tmp_path / "b", MEDIA)
    feed(format_of("transcript", LABELS), assembler, [nothing])
    assembler.close()
    assert assembler.notes == ["no speech was found in it"]


def test_a_text_without_words_is_spread_over_its_time(tmp_path: Path) -> None:
    found = written(tmp_path, part_of((1.0, SAID, 0), words=False), files="srt, json", chars=20)
    assert found["srt"].startswith("1\n00:00:01,000 --> 00:00:04,000\nIt was the best of\ntimes,\n")
    assert "words" not in json.loads(found["json"])["segments"][0]


def test_cues_do_not_overlap(tmp_path: Path) -> None:
    found = written(tmp_path, part_of((1.0, " one two three", 0), (2.0, " four", 0)), files="srt")
    assert "00:00:01,000 --> 00:00:02,000" in found["srt"]


def test_files_that_are_not_known_are_refused(tmp_path: Path) -> None:
    for files in ("doc", [], [3], 7):
        with pytest.raises(PipelineError, match="name one or several of srt, vtt, txt, tsv, json, mp4, mkv, burned"):
            format_of("transcript", files=files)
    assert isinstance(format_of("transcript", files="vtt"), TranscriptFormat)


def test_other_arrays_and_results_are_refused(tmp_path: Path) -> None:
    made = format_of("transcript")
    with pytest.raises(PipelineError, match="needs `text`"):
        made.check({"boxes": Tensor("float32", ("W", 4))}, ["audio"])
    assembler = made.assemble(tmp_path / "a", MEDIA)
    with pytest.raises(OutputError, match="a line of another form"):
        assembler.add(part_of((0.0, " a", 0)).meta, {"rows": np.frombuffer(b'{"start": 1}', np.uint8)}, {})
    assembler.abort()
    assert not list(tmp_path.iterdir())


def film_of(path: Path, begin: int = 0) -> Path:
    """Four seconds of pictures and of sound; `begin` in pictures of 1/25 s."""
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=16_000, layout="mono")
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * number, np.uint8), "rgb24")
            frame.pts, frame.time_base = begin + number, Fraction(1, 25)
            out.mux(video.encode(frame))
        samples = np.zeros((1, 4 * 16_000), np.float32)
        for start in range(0, samples.shape[1], 1024):
            heard = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], "fltp", "mono")
            heard.sample_rate, heard.pts, heard.time_base = 16_000, begin * 640 + start, Fraction(1, 16_000)
            out.mux(sound.encode(heard))
        out.mux(video.encode())
        out.mux(sound.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("source", "begin"), [("mkv", 0), ("mkv", 50), ("mp4", 0)])
def test_a_copy_of_the_film_has_the_subtitles(tmp_path: Path, suffix: str, source: str, begin: int) -> None:
    """Its other packets are those of the source; equal bytes each time; times from the first picture."""
    film = film_of(tmp_path / f"film.{source}", begin)
    media = MEDIA.model_copy(update={"origin": 40 * begin, "end": 40 * begin + 4000})
    made = []
    for number in range(2):
        assembler = format_of("transcript", LABELS, files=suffix).assemble(tmp_path / str(number), media)
        assert isinstance(assembler, Traced)
        assembler.set_origin(Origin("r", {}, (str(film),)))
        feed(format_of("transcript", LABELS), assembler, [part_of((0.5, " One two.", 0), (2.0, " Three <i>.", 0))])
        [path] = assembler.close()
        made.append(path.read_bytes())
        assert not assembler.notes
    assert made[0] == made[1]
    assert pictures(film) == pictures(path)
    with av.open(str(path)) as copy:
        assert [stream.type for stream in copy.streams] == ["video", "audio", "subtitle"]
        assert copy.streams.subtitles[0].codec_context.name == {"mp4": "mov_text", "mkv": "srt"}[suffix]
        shown = []
        for packet in copy.demux(subtitles=0):
            if packet.dts is not None and packet.size > 2:
                shown.append((float(packet.pts * packet.time_base), bytes(packet)[2 if suffix == "mp4" else 0 :]))
        begin_s = begin / 25
        assert [text.decode() for _, text in shown] == ["One two.", "Three <i>."]
        assert [time for time, _ in shown] == pytest.approx([begin_s + 0.5, begin_s + 2.0], abs=2e-3)


def pictures(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as file:
        packets = file.demux(video=0)
        return [(round(float(each.pts * each.time_base), 3), bytes(each)) for each in packets if each.size]


def test_a_film_that_is_elsewhere_is_no_error(tmp_path: Path) -> None:
    assembler = format_of("transcript", LABELS, files=["srt", "mkv"]).assemble(tmp_path / "a", MEDIA)
    assert [path.name for path in assembler.close()] == ["a.srt"]
    assert assembler.notes[1:] == ["the source is not on this machine: no copy of it has the subtitles"]
    broken = tmp_path / "film.mp4"
    broken.write_bytes(b"no film")
    assembler = format_of("transcript", LABELS, files="mkv").assemble(tmp_path / "b", MEDIA)
    assert isinstance(assembler, Traced)
    assembler.set_origin(Origin("r", {}, (str(broken),)))
    with pytest.raises(OutputError, match=r"cannot copy .* with subtitles: "):
        assembler.close()
    assembler.abort()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.srt", "film.mp4"]


def test_an_arrow_in_a_text_is_no_line_of_times(tmp_path: Path) -> None:
    file = WRITERS["srt"](tmp_path / "a.srt")
    file.cue(Cue(0.0, 1.0, ("00:00:07,000 --> 00:00:08,000",)))
    written = file.close({}).read_text()
    assert written == "1\n00:00:00,000 --> 00:00:01,000\n00:00:07,000 -> 00:00:08,000\n\n"
