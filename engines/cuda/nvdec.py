"""The GPU's video decoder, NVDEC, through FFmpeg: frames stay on the GPU.

Opening a decoder costs as much as decoding dozens of frames. Therefore it is flushed and kept for the next segment of
the same kind.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from engines.cuda.burst import BurstDecoder
from engines.cuda.burst_library import BurstLibrary
from engines.media.bursts import IrregularBurst
from schemas.errors import MediaError

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_TRIES = 2  # segments of a kind that gave no frame at all, before the host decodes that kind
# the decoders that NVDEC supports
_NATIVE = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9", "libvpx": "vp8"}
Decoding = Literal["any", "gpu", "host"]


class GpuDecoders:
    """Decoder sessions of one GPU; at most `most` wait idle for their next segment.

    With a `library`, they decode in bursts where that is asked for.
    """

    def __init__(self, gpu: "CudaGpu", most: int, decoding: Decoding, library: BurstLibrary | None = None) -> None:
        self._gpu = gpu
        self._most = most
        self._decoding = decoding
        self._library = library
        self._idle: OrderedDict[int, tuple[tuple[Any, ...], _Session]] = OrderedDict()
        self._failures: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> Iterator[VideoCodecContext | BurstDecoder]:
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
        session = self._taken(key) or self._opened(like)
        if session is None:
            self._failures[key] = _TRIES
            with self.lease(like, label) as other:
                yield other
            return
        try:
            yield session.in_bursts(self._library) if bursts and self._library else session.decoder
        except IrregularBurst:  # its frames are decoded again, one by one
            self._gpu.counters.irregular_segments += 1
            raise
        except Exception:
            self._failures[key] += 1
            self._gpu.counters.on_host_segments += 1
            raise
        self._failures[key] = -1_000_000  # it works; later failures are damaged segments
        session.decoder.flush_buffers()
        self._gpu.counters.on_gpu_segments += 1
        with self._lock:
            self._idle[id(session)] = (key, session)
            while len(self._idle) > self._most:
                self._idle.popitem(last=False)

    def close(self) -> None:
        """Close the idle sessions."""
        self._gpu.enter()
        self._idle.clear()

    def _opened(self, like: VideoCodecContext) -> "_Session | None":
        decoder = open_decoder(self._gpu.number, like)
        return None if decoder is None else _Session(decoder)

    def _taken(self, key: tuple[Any, ...]) -> "_Session | None":
        with self._lock:
            for number, (kind, session) in self._idle.items():
                if kind == key:
                    del self._idle[number]
                    session.decoder.skip_frame = "DEFAULT"  # the last user may have skipped frames
                    return session
        return None


class OneByOne:
    """Decoders of a GPU that give their frames one by one: the host reads them."""

    def __init__(self, decoders: GpuDecoders) -> None:
        self._decoders = decoders

    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> AbstractContextManager[VideoCodecContext | BurstDecoder]:
        """See `GpuDecoders.lease`."""
        return self._decoders.lease(like, label)


class _Session:
    """An open decoder, with the memory of its bursts."""

    def __init__(self, decoder: VideoCodecContext) -> None:
        self.decoder = decoder
        self._bursts: BurstDecoder | None = None

    def in_bursts(self, library: BurstLibrary) -> VideoCodecContext | BurstDecoder:
        """Return it as one that decodes in bursts, unless the library turned out to be of no use."""
        if library.fault:
            return self.decoder
        if self._bursts is None:
            self._bursts = BurstDecoder(library, self.decoder)
        return self._bursts


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
