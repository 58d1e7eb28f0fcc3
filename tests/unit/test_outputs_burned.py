"""A film with subtitles in its pictures: where and when the text is, and that all else is the source's."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.encoding import Lengthy, Origin, Traced
from engines.outputs import burned
from engines.outputs.burned import BurnedFilm
from engines.outputs.captions import wrapped
from engines.outputs.cues import Cue
from engines.outputs.text import text_width
from engines.outputs.transcript import TranscriptOptions
from schemas.errors import OutputError
from schemas.media import MediaInfo
from tests.clips import Clip, generated
from tests.sounds import file_of, voice
from tests.unit.outputs_parts import format_of

ODD = "{\\an8}<i>Größe</i> 今天 \U0001f600\x07\n"


def made(source: Path, target: Path, *cues: Cue, origin_s: Fraction = Fraction(0), **options: object) -> BurnedFilm:
    given = TranscriptOptions.model_validate(options)
    film = BurnedFilm(target, given, given.style)
    film.write(source, cues, origin_s)
    return film


def shown(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time and luma of each picture, as it is stored."""
    with av.open(str(path)) as film:
        return [(float(frame.time), frame.to_ndarray(format="gray")) for frame in film.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as film:
        return [(float(p.pts * p.time_base), bytes(p)) for p in film.demux(**{kind: 0}) if p.size]


@pytest.mark.parametrize("rotation", [0, 90])
def test_text_is_drawn_in_its_time_and_nothing_else_changes(tmp_path: Path, rotation: int) -> None:
    """A film of odd times that begins in the middle of its clock: its times, its sound; text only where it belongs."""
    source = generated(Clip(frames=60, size=(144, 256), vfr=True, rotation=rotation, sound="aac"))
    cues = [Cue(0.4, 1.2, (ODD, "zwei")), Cue(1.2, 1.2, ("never",)), Cue(1.0, 1.1, ("both",))]
    film = made(source, tmp_path / "a", *cues, crf=1, size=12)
    [path] = tmp_path.iterdir()
    assert (path.name, film.notes) == ("a.burned.mp4", [])
    assert packets(path, "audio") == packets(source, "audio")
    plain, drawn = shown(source), shown(path)
    assert [time for time, _ in drawn] == pytest.approx([time for time, _ in plain], abs=1e-6)
    for (time, before), (_, after) in zip(plain, drawn, strict=True):
        upright = np.rot90(before, rotation // 90)
        away = np.abs(upright.astype(int) - after.astype(int)).max(axis=1)
        rows, height = np.flatnonzero(away > 60), len(after)
        if not 0.4 <= time < 1.2:
            assert not len(rows), time
            continue
        assert rows[0] >= height * (0.4 if 1.0 <= time < 1.1 else 0.6), time
        assert rows[-1] < height * 0.97, time
        assert after[rows[0] : rows[-1]].max() > 225, time
    made(source, tmp_path / "top", *cues, crf=1, size=12, place="top")
    (_, before), (_, after) = plain[15], shown(tmp_path / "top.burned.mp4")[15]
    rows = np.flatnonzero(np.abs(np.rot90(before, rotation // 90).astype(int) - after.astype(int)).max(axis=1) > 60)
    assert 0 < rows[0] <= rows[-1] < len(after) * 0.5


def test_the_film_does_not_depend_on_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = generated(Clip(frames=60, sound="aac"))
    monkeypatch.setattr(burned, "_SEGMENT_S", 0.4)  # pieces of one keyframe
    shares, put = [], BurnedFilm._put

    def noting(film: BurnedFilm, *given: Any) -> None:
        put(film, *given)
        shares.append(film.share)

    for threads in (1, 3):
        monkeypatch.setattr(burned, "cores", lambda number=threads: number)
        shares.clear()
        monkeypatch.setattr(BurnedFilm, "_put", noting)
        made(source, tmp_path / str(threads), Cue(0, 9, ("one", "two")), origin_s=Fraction(1, 2))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(set(shares)) > 2, "it grows while the film is drawn"
    one, three = (tmp_path / f"{threads}.burned.mp4" for threads in (1, 3))
    assert one.read_bytes() == three.read_bytes()
    assert len(shown(one)) == 60


def test_a_film_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    options = TranscriptOptions()
    film = BurnedFilm(tmp_path / "a", options, options.style)
    film.stop()
    with pytest.raises(OutputError, match="given up"):
        film.write(generated(Clip()), [], Fraction(0))
    film.abort()
    assert not list(tmp_path.iterdir())


def test_a_transcript_that_is_stopped_while_it_closes_leaves_no_film(tmp_path: Path) -> None:
    media = MediaInfo(kind="audio", name="a.mp4", time_base=(1, 1000), end=2000)
    made = format_of("transcript", files="srt, burned").assemble(tmp_path / "a", media)
    assert isinstance(made, Lengthy)
    assert isinstance(made, Traced)
    made.set_origin(Origin("r", {}, (str(generated(Clip())),)))
    made.stop()
    with pytest.raises(OutputError, match="given up"):
        made.close()
    made.abort()
    assert list(tmp_path.iterdir()) == []


def test_sound_and_files_that_are_no_film(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(file_of(voice(0.5, 16_000), 16_000))
    assert made(sound, tmp_path / "b", Cue(0, 1, ("a",))).notes == [burned._NO_PICTURE]
    broken = tmp_path / "film.mp4"
    broken.write_bytes(b"no film")
    with pytest.raises(OutputError, match=r"cannot draw subtitles on .*film.mp4: "):
        made(broken, tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "film.mp4"]


def test_lines_are_wrapped_made_smaller_and_cut() -> None:
    assert wrapped(("One", "two"), 20, 200, 2) == (20, ("One", "two"))
    assert wrapped(("One two three", "four"), 20, 80, 3) == (20, ("One two", "three", "four"))
    size, lines = wrapped(("it was the best of times", "it was the worst of times"), 20, 180, 2)
    assert size < 20
    assert " ".join(lines) == "it was the best of times it was the worst of times"
    chinese = wrapped(("今天天气很好我们一起去公园", "看花吧"), 20, 180, 2)
    assert (chinese[0], "".join(chinese[1])) == (20, "今天天气很好我们一起去公园看花吧")
    size, lines = wrapped(("a" * 500,), 20, 180, 2)
    assert len(lines) == 2
    assert lines[1].endswith("...")
    assert all(text_width(line, size) <= 180 for line in lines)
    assert wrapped((), 20, 180, 2) == (20, ())
    assert wrapped(("", "\x00"), 20, 180, 1)[1] == ("\\x00",)
