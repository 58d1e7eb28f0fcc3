"""Films with all kinds of sound, made by PyAV; the way of a film through split and mux; and a plain reading of both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from engines.media.decode import decode_video
from engines.media.split import Splitter
from engines.media.tracks import SoundChoice, TrackPackets
from engines.part import Array, pack_arrays, unpack_arrays
from schemas.jobs import JobRef, Key
from schemas.media import MediaInfo
from schemas.messages import decode
from schemas.segments import Fragment
from tests.plans import converter, decode_plan
from tests.unit.media_passes import pipeline
from tests.unit.outputs_parts import format_of

JOB = JobRef(id="job", pipeline="test", revision="0")
RATE = 25  # pictures a second
SHOWN_S = 6
_FORMATS = {"mkv": "matroska", "ts": "mpegts", "webm": "webm", "wma": "asf"}
Wave = NDArray[np.float64]


@dataclass(frozen=True)
class Sound:
    """A sound track: an encoder's name, and the seconds in which there are packets."""

    codec: str = "aac"
    rate: int = 48000
    layout: str = "stereo"
    spans: tuple[tuple[float, float], ...] = ((0, SHOWN_S),)
    language: str = ""
    title: str = ""
    default: bool = False
    seed: int = 0


Text = tuple[float, float, str]  # a subtitle: from when to when in seconds, and what it says


def make_film(
    path: Path,
    sounds: Sequence[Sound] = (),
    texts: Sequence[Text] = (),
    chapters: Sequence[tuple[float, float, str]] = (),
    **tags: str,
) -> Path:
    """A film of six seconds with a keyframe each second, in the container that the suffix of `path` names."""
    kind = path.suffix[1:]
    codec = {"webm": "libvpx", "avi": "mpeg4", "wma": "mpeg4"}.get(kind, "libx264")
    options = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w", format=_FORMATS.get(kind, kind)) as out:
        out.metadata.update(tags)
        picture = out.add_stream(codec, rate=RATE, options=options)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.gop_size = RATE
        tracks = [(sound, add_track(out, sound)) for sound in sounds]
        jobs = [_pictures(picture), *(sound_packets(track, sound) for sound, track in tracks)]
        if texts:
            jobs.append(_texts(out, texts))
        out.set_chapters(
            [
                {
                    "id": number,
                    "start": round(start * 1000),
                    "end": round(end * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, (start, end, title) in enumerate(chapters)
            ]
        )
        packets = [packet for job in jobs for packet in job]
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * (packet.time_base or 1)):
            out.mux(packet)
    return path


def add_track(out: Any, sound: Sound) -> Any:
    options = {"strict": "experimental"}
    track = out.add_stream(sound.codec, rate=sound.rate, layout=sound.layout, options=options)
    track.metadata.update({"language": sound.language, "title": sound.title})
    track.disposition = int(sound.default)
    return track


def _pictures(stream: Any) -> "Iterator[av.Packet[Any]]":
    for number in range(RATE * SHOWN_S):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), "rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _texts(out: Any, texts: Sequence[Text]) -> "Iterator[av.Packet[Any]]":
    stream = out.add_stream("srt")
    stream.codec_context.subtitle_header = b"[Script Info]\n"
    stream.metadata["language"] = "eng"
    packets: list[av.Packet[Any]] = []
    for start, end, text in texts:
        packet: av.Packet[Any] = av.Packet(text.encode())
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(start * 1000)
        packet.duration = round((end - start) * 1000)
        packets.append(packet)
    return iter(packets)


def wave_of(sound: Sound) -> Wave:
    """What it sounds like, `[samples]` in -1..1: noise that never repeats."""
    dice = np.random.default_rng(sound.seed)
    noise = np.convolve(dice.standard_normal(sound.rate * SHOWN_S), np.ones(12) / 12, "same")
    return np.clip(noise, -0.9, 0.9)


def sound_packets(stream: Any, sound: Sound) -> "Iterator[av.Packet[Any]]":
    """Packets of the whole time, of which those outside of the spans are dropped."""
    context = stream.codec_context
    context.open()
    step = context.frame_size or sound.rate // 50
    kind = context.format.name
    most = max(end for _, end in sound.spans) + 0.2
    wave = wave_of(sound)[: round(most * sound.rate)]
    made: list[av.Packet[Any]] = []
    resampler = av.AudioResampler(kind, sound.layout, sound.rate)
    for start in range(0, len(wave), step):
        samples = wave[start : start + step].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(samples[None], context.layout.nb_channels, 0), "fltp", sound.layout
        )
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, start, Fraction(1, sound.rate)
        for ready in resampler.resample(frame):
            made += stream.encode(ready)
    made += stream.encode(None)
    for packet in made:
        time = float(packet.pts * packet.time_base)
        if any(start - 0.1 * (start == 0) <= time < end for start, end in sound.spans):
            yield packet


def through(
    path: Path, target: Path, segment_s: float = 1.0, sound: SoundChoice = "copy", **options: Any
) -> tuple[Path, list[str]]:
    """The video output that is made of a film cut in segments, and its notes."""
    format_ = format_of("video", **{"preset": "ultrafast", "sound": sound, **options})
    spec = pipeline()
    with Splitter(path, spec.grid, segment_s, sound=sound) as splitter:
        assembler = format_.assemble(target, splitter.media)
        notes: dict[str, None] = {}
        try:
            for number, segment_data in enumerate(splitter.segments()):
                if segment_data.tracks is not None:
                    assembler.add_tracks(*_travelled(segment_data.tracks, splitter.media, number))
                segment = segment_data.segment(Key(job=JOB, segment=number, final=segment_data.final))
                for part in decode_video(segment, segment_data.buffers, decode_plan(spec), converter(spec).convert):
                    encoded = format_.encode(part)
                    assembler.add(part.meta, encoded.arrays, encoded.facts)
                    notes |= dict.fromkeys(part.meta.notes)
            return assembler.close()[0], [*assembler.notes, *notes]
        finally:
            assembler.abort()


def _travelled(tracks: TrackPackets, media: MediaInfo, number: int) -> tuple[Fragment, dict[str, Array]]:
    """What a segment has beside the picture, after its way as a message."""
    specs, buffers = pack_arrays(tracks.arrays)
    facts = {"container": tracks.container, "tracks": tracks.tracks, "notes": tracks.notes}
    body = Fragment(key=Key(job=JOB, segment=number), media=media, arrays=specs, **facts)
    message, views = decode(body.encode(buffers))
    assert isinstance(message, Fragment)
    return message, unpack_arrays(message.arrays, views)


def heard(path: Path, track: int = 0, first: float | None = None) -> tuple[Wave, int]:
    """`(wave, rate)` of a track as PyAV decodes it, from the `first` picture on: silence where there is nothing."""
    if first is None:
        with av.open(path) as container:
            first = next(float(frame.time or 0) for frame in container.decode(video=0))
    with av.open(path) as container:
        stream = container.streams.audio[track]
        pieces: list[tuple[int, Wave]] = []
        end, rate, mono = 0, stream.codec_context.sample_rate, av.AudioResampler("fltp", "mono")
        for frame in container.decode(stream):
            (ready,) = mono.resample(frame)
            rate = frame.sample_rate
            start = round((float(frame.time or 0) - first) * rate)
            if abs(start - end) < 0.002 * rate:  # containers round times, players play on
                start = end
            end = start + frame.samples
            pieces.append((max(0, start), ready.to_ndarray()[0][max(0, -start) :]))
    wave = np.zeros(max((start + len(samples) for start, samples in pieces), default=0))
    for start, samples in pieces:
        wave[start : start + len(samples)] = samples
    return wave, rate


def offset_s(found: Wave, expected: Wave, rate: int) -> float:
    """By how many seconds `found` is late, by where the two are most alike; infinite where they are nowhere."""
    least = len(found) + len(expected)
    bits = max(3, least.bit_length())
    size = next(size for size in (5 << bits - 3, 3 << bits - 2, 1 << bits) if size >= least)
    alike = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)), size)
    place = int(np.argmax(alike))
    most = np.sqrt(np.sum(found**2) * np.sum(expected**2))
    if not most or alike[place] < 0.5 * most:
        return float("inf")
    return (place - size if place > size // 2 else place) / rate
