"""Films of any size that cost little to work on: a few small pictures a second, and sound without compression."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE, CHANNELS = 192_000, 8  # of 16 bits: 3 MB a second
PICTURES = 5  # a second, a key frame each
SIDE = 64


def write_film(path: Path, nbytes: int) -> None:
    """Write a Matroska film of about so many bytes."""
    second_bytes = RATE * CHANNELS * 2
    noise = random.Random(0).randbytes(second_bytes)
    times = np.arange(SIDE)
    with av.open(str(path), "w", format="matroska") as out:
        video = out.add_stream("mpeg4", rate=PICTURES)
        video.width = video.height = SIDE
        video.pix_fmt, video.codec_context.gop_size = "yuv420p", 1
        sound = out.add_stream("pcm_s16le", rate=RATE)
        sound.codec_context.layout = "7.1"
        for second in range(max(1, nbytes // second_bytes)):
            for number in range(PICTURES * second, PICTURES * (second + 1)):
                waves = np.sin(times[:, None] / 9 + number / 3) + np.cos(times / 7 - number / 5)
                picture = np.repeat((waves * 60 + 128).astype(np.uint8)[:, :, None], 3, axis=2)
                out.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            packet = av.Packet(noise)
            packet.stream, packet.time_base = sound, Fraction(1, RATE)
            packet.pts = packet.dts = second * RATE
            packet.duration = RATE
            out.mux(packet)
        out.mux(video.encode(None))
