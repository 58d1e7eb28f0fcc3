"""Encodes one file of sound: wav, flac, mp3, opus or m4a.

wav and flac hold the samples as they are, and their bytes do not depend on the processor: flac predicts by fixed
polynomials, in whole numbers (its other predictors are computed in floats, whose last bits differ). LAME, libopus and
FFmpeg's AAC compute in floats: their bytes are equal on every run, and may differ between kinds of processors.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np

from engines.files import PartFile, writing
from engines.part import Array
from schemas.errors import OutputError

_BLOCK = 1 << 16  # samples that are encoded at a time
_LEAST_S = 0.1  # players refuse a file without samples
_LAME_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (*_LAME_RATES, 64000, 88200, 96000)
_MOST_RATE = 768_000
_ALWAYS = {"fflags": "+bitexact"}  # without it, files name the version of FFmpeg


class _Kind(NamedTuple):
    """How a kind of file is made; `rates` are those that its encoder takes, none: any."""

    container: str
    codec: str
    options: Mapping[str, str]
    rates: tuple[int, ...] = ()
    kbits: int = 0
    muxer: Mapping[str, str] = {}


_KINDS = {
    "wav": _Kind("wav", "pcm_s16le", {}, muxer={"rf64": "auto"}),
    "flac": _Kind("flac", "flac", {"lpc_type": "fixed", "compression_level": "5"}),
    "mp3": _Kind("mp3", "libmp3lame", {"compression_level": "2"}, _LAME_RATES, 64),
    "opus": _Kind("opus", "libopus", {"application": "audio", "vbr": "on"}, (48000,), 32),
    "m4a": _Kind("ipod", "aac", {"aac_coder": "twoloop"}, _AAC_RATES, 64),
}


class SoundFile:
    """Writes rows of int16 samples end to end, with silence between them. `silence_s`: its seconds.

    `comment` goes into the file. The first row says the rate and the number of channels.
    """

    def __init__(self, file: PartFile, kind: str, kbits: int, silence_s: float, comment: str) -> None:
        self._file, self._kind, self._kbits = file, _KINDS[kind], kbits
        self._silence_s, self._comment = silence_s, comment
        self._rate = self._channels = self._written = 0
        self._container: Any = None
        self._stream: Any = None

    def add(self, row: Array, rate: int) -> None:
        """Encode a row `[S]`, or `[S, C]` of C channels. Raises OutputError."""
        row = row[:, None] if row.ndim == 1 else row
        if self._container is None:
            self._open(rate, row.shape[1])
        elif (rate, row.shape[1]) != (self._rate, self._channels):
            here, new = f"{self._channels} x {self._rate} Hz", f"{row.shape[1]} x {rate} Hz"
            raise OutputError(f"{self._file.path}: sound of {here} is followed by sound of {new}", "give them apart")
        elif len(row) and self._written:
            self._encode(np.zeros((round(self._silence_s * rate), self._channels), np.int16))
        self._encode(row)

    def finish(self) -> list[str]:
        """Write the rest, and return what was out of the ordinary. Raises OutputError."""
        notes = []
        if self._container is None:
            self._open(16000, 1)
        if not self._written:
            self._encode(np.zeros((round(_LEAST_S * self._rate), self._channels), np.int16))
            notes.append(f"a file without sound got {_LEAST_S} s of silence")
        with writing(self._file.path):
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
        self._file.seal()
        return notes

    def abandon(self) -> None:
        """Free the encoder; the file is of no use."""
        self._container = self._stream = None

    def _open(self, rate: int, channels: int) -> None:
        if not 0 < rate <= _MOST_RATE:
            raise OutputError(f"{self._file.path}: sound of {rate} Hz", f"rates are at most {_MOST_RATE} Hz")
        kind = self._kind
        self._rate, self._channels = rate, channels
        to = next((each for each in kind.rates if each >= rate), kind.rates[-1]) if kind.rates else rate
        with writing(self._file.path):
            options = {**_ALWAYS, **kind.muxer}
            self._container = av.open(self._file.file, "w", format=kind.container, options=options)
            if self._comment:
                self._container.metadata["comment"] = self._comment
            self._stream = self._container.add_stream(
                kind.codec, rate=to, layout=self._layout, options={**kind.options, "flags": "+bitexact"}
            )
            self._stream.codec_context.thread_count = 1
            if kind.kbits:
                self._stream.bit_rate = (self._kbits or kind.kbits) * 1000

    @property
    def _layout(self) -> str:
        return "mono" if self._channels == 1 else "stereo"

    def _encode(self, samples: Array) -> None:
        with writing(self._file.path):
            for start in range(0, len(samples), _BLOCK):
                block = np.ascontiguousarray(samples[start : start + _BLOCK])
                frame = av.AudioFrame.from_ndarray(block.reshape(1, -1), format="s16", layout=self._layout)
                frame.rate, frame.pts, frame.time_base = self._rate, self._written, Fraction(1, self._rate)
                self._written += len(block)
                for packet in self._stream.encode(frame):
                    self._container.mux(packet)
