"""Converts tracks that an output cannot hold: sound to AAC, text subtitles to mov_text."""

import io
from fractions import Fraction
from typing import Any

import av
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream
from av.packet import Packet
from av.subtitles.stream import SubtitleStream

_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # of AAC
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}  # by channels; others are mixed to stereo
_BITS_PER_CHANNEL = 96_000  # a second
_FRAME = 1024  # samples of an AAC packet
_BACK_S = Fraction(1, 10)
# fills holes with silence and cuts what overlaps, wherever times are off by more than 5 ms
_EVEN = "async=1:min_hard_comp=0.005"


class AacTrack:
    """A sound track encoded to AAC; packets that cannot be decoded become silence."""

    def __init__(self, stream: AudioStream) -> None:
        self.source = stream
        given = stream.codec_context
        rate = given.sample_rate if given.sample_rate in _RATES else 48000
        layout = _LAYOUTS.get(given.layout.nb_channels, "stereo")
        self._out = av.open(io.BytesIO(), "w", format="mp4")  # never written: PyAV has no track without a file
        self.template = self._out.add_stream("aac", rate=rate, layout=layout)
        self.template.bit_rate = _BITS_PER_CHANNEL * AudioLayout(layout).nb_channels
        self._out.start_encoding()
        self.time_base = Fraction(1, rate)
        self.frame = _FRAME
        self._shape = f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"
        self._graph: av.filter.Graph | None = None
        self._graph_of: tuple[Any, ...] = ()
        self._next = -Fraction(10**12)  # seconds; where the last frame ended

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Return the AAC packets that are ready after this packet of the source."""
        try:
            frames = self.source.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            return []
        return self._encoded(frames)

    def end(self) -> "list[Packet[Any]]":
        """Return the packets after the last one of the source."""
        try:
            frames = self.source.codec_context.decode(None)
        except (av.error.FFmpegError, ValueError):
            frames = []
        return [*self._encoded(frames), *self._drained(), *self.template.encode(None)]

    def _encoded(self, frames: list[av.AudioFrame]) -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        for frame in frames:
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if kind != self._graph_of:
                packets += self._drained()
                self._graph, self._graph_of = self._new_graph(frame), kind
            assert self._graph is not None
            self._time(frame)
            self._graph.push(frame)
            packets += self._pulled(self._graph)
        return packets

    def _time(self, frame: av.AudioFrame) -> None:
        """Time a frame without a time, or one far back, after the last frame: at its own time it would be cut away."""
        base = frame.time_base or Fraction(1, frame.sample_rate)
        if frame.pts is None or frame.pts * base < self._next - _BACK_S:
            frame.pts = max(0, round(self._next / base))
        self._next = frame.pts * base + Fraction(frame.samples, frame.sample_rate)

    def _drained(self) -> "list[Packet[Any]]":
        graph, self._graph, self._graph_of = self._graph, None, ()
        if graph is None:
            return []
        graph.push(None)
        return self._pulled(graph)

    def _pulled(self, graph: "av.filter.Graph") -> "list[Packet[Any]]":
        packets: list[Packet[Any]] = []
        while True:
            try:
                frame = graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return packets
            assert isinstance(frame, av.AudioFrame)
            packets += self.template.encode(frame)

    def _new_graph(self, frame: av.AudioFrame) -> "av.filter.Graph":
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate,
            format=frame.format,
            layout=frame.layout.name,
            time_base=frame.time_base or Fraction(1, frame.sample_rate),
        )
        nodes = [
            source,
            graph.add("aresample", _EVEN),
            graph.add("aformat", self._shape),
            graph.add("asetnsamples", f"n={_FRAME}:p=1"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*nodes).configure()
        return graph


class TextTrack:
    """A subtitle track of text as mov_text, with the source's times."""

    def __init__(self, stream: SubtitleStream) -> None:
        """Raises PyAV's errors if FFmpeg cannot decode the subtitles to text."""
        self.source = stream
        self.time_base = stream.time_base or Fraction(1, 1000)
        self.frame = 0
        stream.codec_context.open(strict=False)
        self._out = av.open(io.BytesIO(), "w", format="mp4")  # never written: PyAV has no track without a file
        self.template = self._out.add_stream("mov_text")
        self.template.codec_context.subtitle_header = stream.codec_context.subtitle_header
        self._out.start_encoding()

    def take(self, packet: "Packet[Any]") -> "list[Packet[Any]]":
        """Return the subtitle in its new form; nothing if it has no text."""
        try:
            shown = self.source.codec_context.decode2(packet)
            if shown is None or not len(shown):
                return []
            made = self.template.codec_context.encode_subtitle(shown)
        except (av.error.FFmpegError, ValueError):
            return []
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.time_base, made.is_keyframe = self.time_base, True
        return [made]

    def end(self) -> "list[Packet[Any]]":
        """Return nothing: no packet comes after the last subtitle."""
        return []
