"""What goes beside the picture: each track is itself in every segment, in sync, or a note says that it is left out."""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from engines.media.split import Splitter
from engines.media.track_packets import pack_track, unpack_track
from schemas.errors import MediaError
from schemas.grid import Grid
from schemas.jobs import Key
from schemas.segments import Fragment, TrackInfo
from tests.clips import still
from tests.films import JOB, SHOWN_S, Sound, heard, make_film, offset_s, through
from tests.unit.outputs_parts import VIDEO, format_of, make_part

# encoder: the containers that hold it, and what the finished file is; "": the sound is left out
_KINDS = {
    "aac": ("mkv mp4 mov avi ts flv wma", "mp4"),
    "libmp3lame": ("mkv mp4 mov avi ts flv wma", "mp4"),
    "libopus": ("mkv mp4 ts webm flv", "mp4"),
    "vorbis": ("mkv mp4 webm wma", "mp4"),
    "flac": ("mkv mp4 avi flv", "mp4"),
    "pcm_s16le": ("mkv mp4 mov avi wma", "mov"),
    "pcm_s24le": ("mkv mp4 mov avi wma", "mov"),
    "pcm_f32le": ("mkv mp4 mov avi wma", "mov"),
    "ac3": ("mkv mp4 mov avi ts flv wma", "mp4"),
    "eac3": ("mkv mp4 mov ts flv wma", "mp4"),
    "mp2": ("mkv mp4 mov avi ts wma", "mp4"),
    "alac": ("mkv mp4 mov", "mp4"),
    "wavpack": ("mkv", "mkv"),
    "tta": ("mkv", "mkv"),
    "adpcm_ms": ("avi wma", ""),
}
_ALL = [(codec, kind) for codec, (kinds, _) in _KINDS.items() for kind in kinds.split()]
_SHORT = [(codec, kinds.split()[0]) for codec, (kinds, _) in _KINDS.items()] + [("aac", "ts"), ("libmp3lame", "flv")]
_IN_SYNC_S = 0.010
Packets = list[tuple[bytes, Fraction]]


def packets(path: Path, track: int = 0) -> Packets:
    with av.open(path) as container:
        stream = container.streams.audio[track]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(stream) if packet.size]


def check_kind(tmp_path: Path, codec: str, kind: str) -> None:
    """The sound of a film of that kind in the finished file, as it is and encoded to AAC."""
    film = make_film(tmp_path / f"film.{kind}", [Sound(codec)])
    expected, rate = heard(film)
    path, notes = through(film, tmp_path / "copied", 1.0)
    suffix = _KINDS[codec][1]
    if not suffix:
        assert notes == [f"no container can hold {codec}: the sound is left out"]
        with av.open(path) as container:
            assert not container.streams.audio
    else:
        assert path.suffix == f".{suffix}"
        assert notes == ([] if suffix == "mp4" else [f"mp4 cannot hold {codec}: written as {suffix}"])
        assert abs(offset_s(heard(path)[0], expected, rate)) <= _IN_SYNC_S
    path, notes = through(film, tmp_path / "encoded", 1.0, "aac")
    found, found_rate = heard(path)
    assert (path.suffix, notes, found_rate) == (".mp4", [], rate)
    assert abs(offset_s(found, expected, rate)) <= _IN_SYNC_S
    assert abs(len(found) - len(expected)) / rate < 0.1


@pytest.mark.parametrize(("codec", "kind"), _SHORT)
def test_each_kind_of_sound_is_in_sync(tmp_path: Path, codec: str, kind: str) -> None:
    check_kind(tmp_path, codec, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "kind"), [each for each in _ALL if each not in _SHORT])
def test_each_kind_of_sound_in_each_container_is_in_sync(tmp_path: Path, codec: str, kind: str) -> None:
    check_kind(tmp_path, codec, kind)


_SPANS = {
    "first late": (((3.5, 5.0),), ((0, SHOWN_S),)),
    "second late": (((0, SHOWN_S),), ((3.5, 5.0),)),
    "first ends early": (((0, 1.5),), ((0, SHOWN_S),)),
    "second ends early": (((0, SHOWN_S),), ((0, 1.5),)),
    "first has a hole": (((0, 1.2), (4.1, SHOWN_S)), ((0, SHOWN_S),)),
}


def _slow_but(case: str, kind: str) -> list[pytest.MarkDecorator]:
    """mp4 has its own ways to say when a track begins and pauses, so it is tried with each case."""
    return [] if kind == "mp4" or case in ("second late", "first has a hole") else [pytest.mark.slow]


@pytest.mark.parametrize(
    ("case", "kind"),
    [pytest.param(case, kind, marks=_slow_but(case, kind)) for case in _SPANS for kind in ("mp4", "mkv", "ts")],
)
def test_a_track_stays_itself_where_it_has_nothing(tmp_path: Path, case: str, kind: str) -> None:
    sounds = [Sound(spans=spans, seed=seed) for seed, spans in enumerate(_SPANS[case])]
    film = make_film(tmp_path / f"film.{kind}", sounds)
    expected = [heard(film, track) for track in range(2)]
    for segment_s in (0.5, 100):
        path, notes = through(film, tmp_path / f"out{segment_s}", segment_s)
        assert notes == []
        for track, (wave, rate) in enumerate(expected):
            assert len(packets(path, track)) == len(packets(film, track)), segment_s
            found, _ = heard(path, track)
            assert abs(offset_s(found, wave, rate)) <= _IN_SYNC_S, segment_s
            assert len(found) == pytest.approx(len(wave), abs=rate / 20), segment_s


def test_any_cut_gives_the_same_sound(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", [Sound("libopus"), Sound("ac3", seed=1)])
    files = [through(film, tmp_path / f"out{n}", segment_s)[0] for n, segment_s in enumerate((0.01, 1.5, 100))]
    for track in range(2):
        first, *others = [packets(path, track) for path in files]
        assert all(other == first for other in others)


def test_languages_titles_and_the_default_track_stay(tmp_path: Path) -> None:
    sounds = [Sound(language="ger"), Sound(language="fre", title="Commentary", default=True, seed=1)]
    for kind in ("mkv", "mp4"):
        path, notes = through(make_film(tmp_path / f"film.{kind}", sounds), tmp_path / kind)
        assert notes == []
        with av.open(path) as container:
            first, second = container.streams.audio
            assert (first.language, second.language) == ("ger", "fre")
            assert second.metadata.get("title", second.metadata.get("name")) == "Commentary"
            assert (bool(first.disposition & 1), bool(second.disposition & 1)) == (False, True)


def test_tags_stay_or_are_reported(tmp_path: Path) -> None:
    tags = {"title": "A film", "creation_time": "2020-01-02T03:04:05.000000Z", "location": "+48.8500+002.3500/"}
    film = make_film(tmp_path / "film.mkv", [Sound()], **tags, mood="calm")
    path, notes = through(film, tmp_path / "out")
    assert notes == ["mp4 cannot hold the tags mood: left out"]
    with av.open(path) as container:
        assert {name: container.metadata.get(name) for name in tags} == tags


def test_a_creation_time_that_is_unset_is_no_tag(tmp_path: Path) -> None:
    unset = {"creation_time": "1970-01-01T00:00:00.000000Z", "title": "A film"}
    path, notes = through(make_film(tmp_path / "film.mkv", [Sound()], **unset), tmp_path / "out")
    assert notes == []
    with av.open(path) as container:
        assert container.metadata.get("title") == "A film"
        assert "creation_time" not in container.metadata


def test_text_subtitles_become_mov_text_at_their_times(tmp_path: Path) -> None:
    texts = [(1.0, 2.5, "Hello <b>you</b>"), (4.2, 5.0, "zwei\nZeilen")]
    film = make_film(tmp_path / "film.mkv", [Sound()], texts)
    path, notes = through(film, tmp_path / "out")
    assert notes == []
    with av.open(path) as container:
        (stream,) = container.streams.subtitles
        assert (stream.codec_context.name, stream.language) == ("mov_text", "eng")
        found = [
            (float(packet.pts * packet.time_base), b"".join(line.dialogue for line in stream.decode(packet)))
            for packet in container.demux(stream)
            if packet.size > 2
        ]
    first = times_of_pictures(film)[0]
    assert [time for time, _ in found] == pytest.approx([1.0 + first, 4.2 + first], abs=0.002)
    assert [text for _, text in found] == [b"Hello {\\b1}you", b"zwei\nZeilen"]


def times_of_pictures(path: Path) -> list[float]:
    with av.open(path) as container:
        return [frame.time for frame in container.decode(video=0) if frame.time is not None]


@pytest.mark.parametrize("codec", ["aac", "wavpack"])
def test_chapters_stay(tmp_path: Path, codec: str) -> None:
    chapters = [(0.0, 2.0, "One"), (2.0, 6.0, "Two")]
    film = make_film(tmp_path / "film.mkv", [Sound(codec)], chapters=chapters)
    path, _ = through(film, tmp_path / "out")
    with av.open(path) as container:
        found = container.chapters()
    spans = [(each["start"] * each["time_base"], each["end"] * each["time_base"]) for each in found]
    assert [(*map(float, span), each["metadata"]["title"]) for span, each in zip(spans, found, strict=True)] == chapters


@pytest.mark.parametrize(("codec", "kind"), [("mjpeg", "mp4"), ("png", "mp4"), ("mjpeg", "mkv")])
def test_the_cover_stays(tmp_path: Path, codec: str, kind: str) -> None:
    film, image = make_film(tmp_path / "film.mkv", [Sound("aac" if kind == "mp4" else "wavpack")]), still(codec)
    with_cover = tmp_path / "cover.mkv"
    with av.open(film) as source, av.open(str(with_cover), "w", format="matroska") as out:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        out.add_attachment(f"cover.{codec}", {"mjpeg": "image/jpeg", "png": "image/png"}[codec], image)
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                out.mux_one(packet)
    path, notes = through(with_cover, tmp_path / "out")
    assert (path.suffix, notes) == (f".{kind}", [] if kind == "mp4" else ["mp4 cannot hold wavpack: written as mkv"])
    with av.open(path) as container:
        (cover,) = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
        assert [bytes(packet) for packet in container.demux(cover) if packet.size] == [image]
    assert len(times_of_pictures(path)) == len(times_of_pictures(film))
    assert len(packets(path)) == len(packets(film))


def edited(film: Path, path: Path, change: Callable[[int, "av.Packet[Any]"], None]) -> Path:
    """A copy of `film` in which `change` was given every sound packet and its number."""
    kind = {"mkv": "matroska"}.get(path.suffix[1:], path.suffix[1:])
    with av.open(film) as source, av.open(str(path), "w", format=kind) as out:
        copies = {stream.index: out.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        number = 0
        for packet in source.demux():
            if not packet.size:
                continue
            if packet.stream.type == "audio":
                change(number, packet)
                number += 1
            packet.dts = packet.pts if packet.dts is None else packet.dts
            packet.stream = copies[packet.stream_index]
            out.mux_one(packet)
    return path


def test_two_sound_packets_of_one_time_are_put_one_after_the_other(tmp_path: Path) -> None:
    times: list[int] = []

    def repeat(number: int, packet: "av.Packet[Any]") -> None:
        if number == 100:
            packet.pts = packet.dts = times[-1]
        times.append(packet.pts or 0)

    whole = make_film(tmp_path / "whole.mkv", [Sound("ac3")])
    film = edited(whole, tmp_path / "film.mkv", repeat)
    path, (note,) = through(film, tmp_path / "out")
    assert note.startswith("the times of sound track 1 do not rise, first at 3.1")
    expected = [time for _, time in packets(whole)]
    assert [float(time) for _, time in packets(path)] == pytest.approx(list(map(float, expected)), abs=0.001)


@pytest.mark.parametrize("late_s", [1, 20_000, 2_000_000])
def test_one_sound_packet_far_ahead_moves_no_other(tmp_path: Path, late_s: int) -> None:
    def delay(number: int, packet: "av.Packet[Any]") -> None:
        if number == 100:
            packet.pts = (packet.pts or 0) + 1000 * late_s

    whole = make_film(tmp_path / "whole.mkv", [Sound("ac3")])
    film = edited(whole, tmp_path / "film.mkv", delay)
    expected = [float(time) for _, time in packets(whole)]
    for segment_s in (0.5, 100):
        path, (note,) = through(film, tmp_path / f"out{segment_s}", segment_s)
        assert note == f"the sound has a time ahead of the next, {expected[100] + late_s:.3f} s: moved back"
        assert [float(time) for _, time in packets(path)] == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("segment_s", [1.0, 100])
def test_damaged_sound_packets_are_left_out_and_reported(tmp_path: Path, segment_s: float) -> None:
    def damage(number: int, packet: "av.Packet[Any]") -> None:
        if number in (50, 150):
            packet.update(b"\x55" * packet.size)

    film = edited(make_film(tmp_path / "whole.mkv", [Sound("eac3")]), tmp_path / "film.mkv", damage)
    path, notes = through(film, tmp_path / "out", segment_s)
    assert notes == ["damaged packets of the sound are left out"]
    assert len(packets(path)) == len(packets(film)) - 2
    assert len(times_of_pictures(path)) == len(times_of_pictures(film))


@pytest.mark.parametrize("segment_s", [1.0, 100])
def test_sound_and_picture_lie_side_by_side(tmp_path: Path, segment_s: float) -> None:
    path, _ = through(make_film(tmp_path / "film.mp4", [Sound()]), tmp_path / "out", segment_s)
    with av.open(path) as container:
        found = [packet for packet in container.demux() if packet.size]
    in_file = [packet.dts * packet.time_base for packet in sorted(found, key=lambda packet: packet.pos or 0)]
    assert all(late - early > -1 for early, late in pairwise(in_file))


def test_sound_moves_with_a_picture_that_begins_before_zero(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [Sound()])
    format_ = format_of("video", preset="ultrafast")
    with Splitter(film, Grid(None, 1, 1), 100) as splitter:
        media = splitter.media.model_copy(update={"origin": -6400, "time_base": (1, 12800)})
        (segment_data,) = splitter.segments()
    assert segment_data.tracks is not None
    assembler = format_.assemble(tmp_path / "out", media)
    fragment = Fragment(
        key=Key(job=JOB, segment=0),
        media=media,
        container=segment_data.tracks.container,
        tracks=segment_data.tracks.tracks,
    )
    assembler.add_tracks(fragment, segment_data.tracks.arrays)
    part = make_part(media, {"plane0": np.zeros((2, 48, 64), np.uint8)}, [-6400, 0])
    encoded = format_.encode(part)
    assembler.add(part.meta, encoded.arrays, encoded.facts)
    (path,) = assembler.close()
    assert assembler.notes == ["begins 0.500 s before 0: moved to begin at 0"]
    assert packets(path) == [(body, time + Fraction(1, 2)) for body, time in packets(film)]


def test_a_hole_is_silent_where_sound_is_encoded_anew(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mkv", [Sound("wavpack", spans=((0, 1.5), (3.5, 5.0)))])
    path, notes = through(film, tmp_path / "out", sound="aac")
    (found, rate), (expected, _) = heard(path), heard(film)
    assert notes == []
    assert abs(offset_s(found, expected, rate)) <= _IN_SYNC_S
    late = slice(round(3.6 * rate), round(4.9 * rate))
    assert abs(offset_s(found[late], expected[late], rate)) <= _IN_SYNC_S
    assert np.abs(found[round(1.7 * rate) : round(3.3 * rate)]).max() < 0.01


def test_a_message_of_packets_that_do_not_fit_is_refused() -> None:
    packet: av.Packet[Any] = av.Packet(b"abc")
    packet.pts, packet.duration = 7, 2
    table, data = pack_track([packet])
    (back,) = unpack_track(table, data)
    assert (bytes(back), back.pts, back.duration) == (b"abc", 7, 2)
    for wrong in (table[:, :3], table.astype(np.int32), table + 1, table * -1, table[:0]):
        with pytest.raises(MediaError):
            list(unpack_track(wrong, data))


@pytest.mark.parametrize("container", ["mp4", "hls", "concat", ""])
def test_a_head_that_is_none_is_refused(tmp_path: Path, container: str) -> None:
    assembler = format_of("video").assemble(tmp_path / "a", VIDEO)
    fragment = Fragment(
        key=Key(job=JOB, segment=0), media=VIDEO, container=container, tracks=(TrackInfo(time_base=(1, 9)),)
    )
    with pytest.raises(MediaError):
        assembler.add_tracks(fragment, {"head": np.frombuffer(b"#EXTM3U\nfile:/etc/passwd\n", np.uint8)})
    assembler.abort()
    assert list(tmp_path.iterdir()) == []


def test_pieces_have_no_tracks_on_request(tmp_path: Path) -> None:
    film = make_film(tmp_path / "film.mp4", [Sound()])
    with Splitter(film, Grid(None, 1, 1), 1.0, sound=None) as splitter:
        assert not any(segment_data.tracks for segment_data in splitter.segments())
