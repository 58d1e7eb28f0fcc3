"""The GPU's video decoder, NVDEC, through FFmpeg: frames stay on the GPU.

Opening a decoder costs as much as decoding dozens of frames. Therefore it is flushed and kept for the next segment of
the same kind.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from schemas.errors import MediaError

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_TRIES = 2  # segments of a kind that gave no frame at all, before the host decodes that kind
# the decoders that NVDEC supports
_NATIVE = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9", "libvpx": "vp8"}
Decoding = Literal["any", "gpu", "host"]


class GpuDecoders:
    """Decoder sessions of one GPU; at most `most` wait idle for their next segment."""

    def __init__(self, gpu: "CudaGpu", most: int, decoding: Decoding) -> None:
        self._gpu = gpu
        self._most = most
        self._decoding = decoding
        self._idle: OrderedDict[int, tuple[tuple[Any, ...], VideoCodecContext]] = OrderedDict()
        self._failures: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def lease(self, like: VideoCodecContext, label: str) -> Iterator[VideoCodecContext]:
        """Lease a decoder for the stream of `like`, the host's: the GPU's, or `like` itself if the settings allow it.

        A decoder that met an error is not used again. Raises MediaError if the GPU must decode it, and cannot.
        """
        key = _key(like)
        if self._decoding == "host" or self._failures[key] >= _TRIES:
            if self._decoding == "gpu":
                raise MediaError(f"{label}: the GPU cannot decode it", "allow `decoder = any`, or convert it to H.264")
            self._gpu.counters.on_host_segments += 1
            yield like
            return
        self._gpu.enter()
        decoder = self._taken(key) or open_decoder(self._gpu.number, like)
        if decoder is None:
            self._failures[key] = _TRIES
            with self.lease(like, label) as other:
                yield other
            return
        try:
            yield decoder
        except Exception:
            self._failures[key] += 1
            self._gpu.counters.on_host_segments += 1
            raise
        self._failures[key] = -1_000_000  # it works; later failures are damaged segments
        decoder.flush_buffers()
        self._gpu.counters.on_gpu_segments += 1
        with self._lock:
            self._idle[id(decoder)] = (key, decoder)
            while len(self._idle) > self._most:
                self._idle.popitem(last=False)

    def close(self) -> None:
        """Close the idle sessions."""
        self._gpu.enter()
        self._idle.clear()

    def _taken(self, key: tuple[Any, ...]) -> VideoCodecContext | None:
        with self._lock:
            for number, (kind, decoder) in self._idle.items():
                if kind == key:
                    del self._idle[number]
                    decoder.skip_frame = "DEFAULT"  # the last user may have skipped frames
                    return decoder
        return None


def open_decoder(number: int, like: VideoCodecContext) -> VideoCodecContext | None:
    """Open a decoder on GPU `number`, whose context is current, for the stream of `like`; None if there is none."""
    # use the current context: FFmpeg accepts a primary context only with exactly the flags that it would set
    options: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}
    accel = HWAccel("cuda", str(number), allow_software_fallback=False, options=options, is_hw_owned=True)
    try:
        decoder = av.CodecContext.create(_NATIVE.get(like.codec.name, like.codec.name), "r", accel)
    except (av.error.FFmpegError, ValueError):
        return None
    assert isinstance(decoder, VideoCodecContext)
    if not decoder.is_hwaccel:
        return None
    decoder.extradata = like.extradata
    decoder.width, decoder.height, decoder.options = like.width, like.height, like.options
    decoder.colorspace, decoder.color_range = like.colorspace, like.color_range
    if hasattr(decoder, "reorder_depth"):
        decoder.reorder_depth = like.reorder_depth
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder


def _key(context: VideoCodecContext) -> tuple[Any, ...]:
    """Return all that a decoder knows before its first packet."""
    return (context.codec.name, context.extradata, context.width, context.height, getattr(context, "reorder_depth", 0))
