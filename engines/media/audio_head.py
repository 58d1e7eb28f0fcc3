"""The first seconds of a media beside each of its segments: one channel by G.722, half a byte a sample.

G.722 computes in integers, so every CPU makes the same bytes and the same sound of them. It is good enough to find the
language that is spoken, and `split` makes it once.
"""

from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.packet import Packet

from engines.part import Array
from schemas.wire import Buffer

_CODEC: Literal["g722"] = "g722"
_RATE = 16_000  # the codec knows no other rate, and does not need one
_CHUNK = 1 << 16  # samples, or half as many bytes, at a time


def coded_head(samples: Array) -> bytes:
    """Return samples `[n]` int32 as G.722; of an odd number the last one is followed by silence."""
    values = np.concatenate([samples >> 16, np.zeros(len(samples) % 2, np.int32)]).astype(np.int16)
    encoder = _context("w")
    made: list[bytes] = []
    for start in range(0, len(values), _CHUNK):
        frame = AudioFrame.from_ndarray(values[None, start : start + _CHUNK], "s16", "mono")
        frame.sample_rate, frame.pts = _RATE, None
        made += map(bytes, encoder.encode(frame))
    return b"".join([*made, *map(bytes, encoder.encode(None))])


def decoded_head(data: Buffer) -> Array:
    """Return float32 samples of -1 ... 1 of any bytes, two for each."""
    decoder, made = _context("r"), [np.zeros(0, np.int16)]
    for start in range(0, len(data), _CHUNK // 2):
        packet = Packet(bytes(data[start : start + _CHUNK // 2]))
        made += [frame.to_ndarray()[0] for frame in decoder.decode(packet)]
    return np.concatenate(made).astype(np.float32) / np.float32(1 << 15)


def _context(mode: Literal["r", "w"]) -> AudioCodecContext:
    context: AudioCodecContext = av.CodecContext.create(_CODEC, mode)
    context.sample_rate, context.layout = _RATE, "mono"
    if mode == "w":
        context.format = "s16"
    return context
