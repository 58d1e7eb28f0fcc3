"""Sound as a medium: its samples beside a plain decode, whatever the segments, and its windows and times."""

import io
from typing import Any

import av
import numpy as np
import pytest

from engines.media.audio import Audio
from engines.media.audio_survey import Rules, placed
from engines.media.medium import DecodePlace, Input, SplitRequest
from engines.planned import DecodePlan
from engines.ragged import Ragged
from schemas.errors import MediaError, PipelineError
from schemas.grid import Grid
from schemas.jobs import Key
from schemas.pipeline import DecodeStage
from tests.sounds import begins, decoded, file_of, joined, voice
from tests.unit.outputs_parts import JOB

EXACT = [
    ("wav", "pcm_s16le", 44100),
    ("aiff", "pcm_s24be", 48000),
    ("flac", "flac", 44100),
    ("matroska", "flac", 44100),
    ("mp3", "libmp3lame", 44100),
    ("matroska", "libmp3lame", 22050),
    ("ogg", "libopus", 48000),
    ("matroska", "libopus", 48000),
    ("ogg", "vorbis", 44100),
    ("asf", "wmav2", 44100),
    ("wav", "adpcm_ms", 22050),
    ("mp4", "alac", 44100),
]
NEAR = [("amr", "libopencore_amrnb", 8000), ("mp4", "aac", 44100), ("mp4", "ac3", 48000)]


def one_pass(data: bytes) -> tuple[np.ndarray, int]:
    """The samples of a file of one pass of FFmpeg's own decoder, `[n]` of one channel, and their rate."""
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    first = frames[0]
    raw = [
        f.to_ndarray() if f.format.is_planar else f.to_ndarray().reshape(-1, first.layout.nb_channels).T for f in frames
    ]
    samples = np.concatenate(raw, axis=1)
    scale = 1.0 if samples.dtype.kind == "f" else 2.0 ** (8 * samples.dtype.itemsize - 1)
    return np.clip(samples.mean(axis=0, dtype=np.float64) / scale, -1, 1), first.sample_rate


@pytest.mark.parametrize(("container", "codec", "rate"), EXACT)
def test_the_samples_of_segments_are_those_of_one_pass(container: str, codec: str, rate: int) -> None:
    data = file_of(voice(23.3, rate, channels=2), rate, container, codec, 64000)
    plain, found = one_pass(data)
    assert found == rate
    parts = decoded(data, rate=rate, window_s=7.0, segment_s=1.0)
    assert len(plain) - 1200 < len(joined(parts)) <= len(plain)
    assert np.abs(joined(parts) - plain[: len(joined(parts))]).max() <= 2.0**-25, "they are rounded to 31 bits"
    assert len({part.meta.key.segment for part in parts}) == 2
    assert sum(part.meta.lost for part in parts) == 0
    other = decoded(data, rate=rate, window_s=11.0, segment_s=60.0)
    np.testing.assert_array_equal(joined(parts), joined(other))


@pytest.mark.parametrize(("container", "codec", "rate"), NEAR)
def test_decoders_that_never_forget_or_make_noise_are_as_near_as_nothing(container: str, codec: str, rate: int) -> None:
    channels = 1 if codec == "libopencore_amrnb" else 2
    data = file_of(voice(23.7, rate, channels=channels), rate, container, codec, 12200 if channels == 1 else 128000)
    plain, _ = one_pass(data)
    parts = decoded(data, rate=rate, window_s=7.0, segment_s=1.0)
    off = joined(parts) - plain[: len(joined(parts))]
    assert np.sqrt(np.mean(off**2)) < 0.02 * np.sqrt(np.mean(plain**2))
    np.testing.assert_array_equal(joined(parts), joined(decoded(data, rate=rate, window_s=11.0, segment_s=60.0)))


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000])
def test_a_resampled_tone_is_that_tone_at_its_time(rate: int) -> None:
    time = np.arange(21 * rate) / rate
    data = file_of(0.5 * np.sin(2 * np.pi * 997 * time)[None], rate, "wav", "pcm_s32le")
    parts = decoded(data, rate=16000, window_s=3.0)
    found = joined(parts)
    expected = 0.5 * np.sin(2 * np.pi * 997 * np.arange(len(found)) / 16000)
    assert len(found) == 21 * 16000
    assert np.abs(found - expected)[100:-100].max() < 1e-5, "ten hours later the phase would be the same"


def window_cuts(**options: Any) -> list[int]:
    data = file_of(voice(65, 8000), 8000)
    return begins(decoded(data, rate=8000, **options))


def test_windows_follow_each_other_and_are_the_same_whatever_the_segments() -> None:
    exact = window_cuts(window_s=6.0)
    assert exact == [n * 48000 for n in range(11)]
    moved = window_cuts(window_s=6.0, reach_s=1.5)
    assert moved == window_cuts(window_s=6.0, reach_s=1.5, segment_s=100.0)
    assert [abs(a - b) <= 12000 for a, b in zip(moved, exact, strict=True)] == [True] * 11
    assert moved != exact


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame")])
def test_each_part_has_the_first_seconds_of_the_media(container: str, codec: str) -> None:
    """However far into the media it is, by G.722; and the windows are those without."""
    data = file_of(voice(45.0, 16000), 16000, container, codec)
    plain = decoded(data, 20.0, window_s=20.0)
    parts = decoded(data, 20.0, window_s=20.0, head_s=12.0)
    assert np.array_equal(joined(parts), joined(plain))
    first = joined(plain)[: 12 * 16000]
    [head] = {part.arrays["head"].row(0).tobytes() for part in parts}  # type: ignore[union-attr]
    near = np.frombuffer(head, np.float32)
    assert len(near) == len(first)
    off = near[22:] - first[:-22]  # its filters take 22 samples
    assert np.sqrt(np.mean(off**2)) < 0.03 * np.sqrt(np.mean(first**2))
    for part in parts:
        rows = part.arrays["head"]
        assert isinstance(rows, Ragged)
        assert len(rows) == len(part.meta.pts)
    assert sum(part.meta.frames for part in parts) == sum(part.meta.frames for part in plain)
    [short] = decoded(file_of(voice(3.0, 16000), 16000), window_s=20.0, head_s=25.0)
    assert len(short.arrays["head"].row(0)) == len(joined([short]))  # type: ignore[union-attr]


@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("mp3", "libmp3lame")])
def test_a_segment_carries_little_beside_its_own_sound(container: str, codec: str) -> None:
    """Blocks of 20 s that its windows touch, a second on both sides, and half a byte a sample of the first seconds."""
    data = file_of(voice(200.0, 8000), 8000, container, codec, 16000)
    stage = DecodeStage(kind="decode", options={"rate": 8000, "window_s": 40.0, "reach_s": 10.0, "head_s": 20.0})
    cuts = list(Audio(stage).split([Input(data, "voice")], SplitRequest(Grid(), 40.0)))
    a_second = len(data) / 200
    seconds = [len(cut.buffers[2]) / a_second for cut in cuts]
    assert seconds == pytest.approx([51, 72, 72, 72, 61], rel=0.03)
    assert {len(cut.buffers[3]) for cut in cuts} == {20 * 8000 // 2}


def test_the_first_windows_are_short() -> None:
    """8 s, by 2 halvings: 2, 2, 4, 8, 8 ...; each of them is a part of its own, whatever the segments."""
    data = file_of(voice(45.0, 8000), 8000)
    parts = decoded(data, rate=8000, window_s=8.0, halvings=2)
    assert begins(parts) == [n * 8000 for n in (0, 2, 4, 8, 16, 24, 32, 40)]
    assert [len(part.meta.pts) for part in parts[:3]] == [1, 1, 1]
    assert [part.meta.span_s for part in parts[:3]] == [(0, 2), (2, 4), (4, 8)]
    moved = begins(decoded(data, rate=8000, window_s=8.0, halvings=2, reach_s=0.9))
    assert moved == begins(decoded(data, 100.0, rate=8000, window_s=8.0, halvings=2, reach_s=0.9))
    assert [abs(a - b) <= 7200 for a, b in zip(moved, begins(parts), strict=True)] == [True] * 8
    assert np.array_equal(joined(parts), joined(decoded(data, rate=8000, window_s=45.0)))
    stage = DecodeStage(kind="decode", options={"rate": 8000, "window_s": 8.0, "halvings": 2, "reach_s": 1.0})
    with pytest.raises(PipelineError, match="reach_s is less than half of the first window, which has 16000 samples"):
        Audio(stage).plan(Grid())


def quietest(sound: np.ndarray, middle: int, reach: int) -> int:
    """The middle of the frame of 20 ms with the least energy within `reach`, at steps of 10 ms, by a plain loop."""
    found = []
    for offset in range(-(reach // 80) * 80, reach + 1, 80):
        place = middle + offset
        if place < len(sound):
            energy = sum(int(value) ** 2 for value in sound[place - 80 : place + 80])
            found.append((energy, abs(offset), offset))
    return middle + min(found)[2]


def test_a_boundary_lies_in_the_quietest_place_near_it() -> None:
    whole = np.rint(voice(25.3, 8000)[0] * 3000).astype(np.int64)
    whole[40_000:41_000] = 0
    data = file_of(whole[None] / 32768, 8000)
    found = begins(decoded(data, rate=8000, window_s=3.0, reach_s=1.0))
    assert found == [0, *(quietest(whole, number * 24_000, 8000) for number in range(1, 9))]


def test_nothing_drifts_in_ten_hours() -> None:
    """The times of Matroska are milliseconds, and 1152 samples are no whole number of them."""
    packets = 36_000 * 44_100 // 1152
    stated = np.rint(np.arange(packets) * 1152 * 1000 / 44_100).astype(np.int64)
    per_ms = 44_100 / 1000
    sizes = np.full(packets, 1152)
    rules = Rules(size=1152, rounding=88, most_slack=576, rate=44_100, counted=True)
    starts, notes = placed(np.rint(stated * per_ms).astype(np.int64), sizes, rules)
    assert notes == []
    np.testing.assert_array_equal(starts, np.arange(packets) * 1152)
    late = stated + (np.arange(packets) > packets // 2) * 78  # three packets are missing
    starts, notes = placed(np.rint(late * per_ms).astype(np.int64), sizes, rules)
    assert notes == ["silence stands for 1 gap in its times"]
    assert starts[-1] == (packets + 2) * 1152


def test_clicks_of_ten_hours_are_at_their_seconds() -> None:
    """Through split and decode, at another rate: as near to their place at the end as at the begin."""
    rate, places = 250, (5, 18_007, 35_993)
    clicks = np.zeros((1, 36_000 * rate), np.int16)
    clicks[0, np.multiply(places, rate)] = 32767
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as out:
        stream = out.add_stream("flac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(clicks, "s16", "mono")
        frame.sample_rate = rate
        out.mux([*stream.encode(frame), *stream.encode(None)])
    stage = DecodeStage(kind="decode", options={"rate": 16000, "window_s": 200.0})
    cuts = list(Audio(stage).split([Input(file.getvalue(), "clicks")], SplitRequest(Grid(), 200.0)))
    assert len(cuts) == 180
    plan, found = DecodePlan(stage, ("audio",), Grid(), {}, {}), []
    for number in (second // 200 for second in places):
        segment = cuts[number].segment(Key(job=JOB, segment=number, final=cuts[number].final))
        [part] = Audio(stage).decode(segment, cuts[number].buffers, plan, lambda *_: {}, DecodePlace())
        found.append(part.meta.media.clock.seconds(part.meta.pts[0]) + np.abs(joined([part])).argmax() / 16000)
    assert found == pytest.approx(places, abs=1e-4)


def test_ogg_files_that_are_joined_are_one_sound_or_an_error_in_words() -> None:
    mono, stereo = (file_of(voice(2.0, 48000, channels=count), 48000, "ogg", "libopus") for count in (1, 2))
    assert 0 <= len(joined(decoded(mono + mono))) - 2 * len(joined(decoded(mono))) < 160, "less than 10 ms of priming"
    with pytest.raises(MediaError, match="FFmpeg cannot read, as are Ogg files whose channels change inside: convert"):
        decoded(mono + stereo)
