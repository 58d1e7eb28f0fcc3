"""The GPU's video decoder, NVDEC, through FFmpeg: frames stay on the GPU.

Opening a decoder costs as much as decoding dozens of frames. Therefore it is flushed and kept for the next segment of
the same kind.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import av
from av.codec.hwaccel import HWAccel
from av.video.codeccontext import VideoCodecContext

from engines.cuda.burst import BurstDecoder, Converting, together_of
from engines.cuda.burst_library import BurstLibrary
from engines.cuda.transforms import CudaPictures
from engines.media.bursts import IrregularBurst, PartDecoder
from schemas.errors import MediaError

if TYPE_CHECKING:
    from engines.cuda.gpu import CudaGpu

_TRIES = 2  # segments of a kind of which none went well, before it is decoded in another way
# the decoders that NVDEC supports
_NATIVE = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9", "libvpx": "vp8"}
Decoding = Literal["any", "gpu", "host"]


class GpuDecoders:
    """Decoder sessions of one GPU; at most `most` wait idle for their next segment.

    With a `library`, they decode and convert a part in one call where that is asked for.
    """

    def __init__(self, gpu: "CudaGpu", most: int, decoding: Decoding, library: BurstLibrary | None = None) -> None:
        self._gpu = gpu
        self._most = most
        self._decoding = decoding
        self._library = library
        self._idle: OrderedDict[int, tuple[tuple[Any, ...], _Session]] = OrderedDict()
        self._failures: Counter[tuple[Any, ...]] = Counter()
        self._irregular: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()

    def into(self, pictures: CudaPictures) -> "PictureDecoders":
        """Return these decoders for a pipeline's pictures, which kernels make as frames leave the decoder."""
        return PictureDecoders(self, None if pictures.by_host else pictures)

    @contextmanager
    def lease(
        self, like: VideoCodecContext, label: str, pictures: CudaPictures | None = None
    ) -> Iterator[VideoCodecContext | PartDecoder]:
        """Lease a decoder for the stream of `like`, the host's: the GPU's, or `like` itself if the settings allow it.

        With `pictures`, it is one that decodes and converts a part in one call, if there is a `library`. A decoder that
        met an error is not used again. Raises MediaError if the GPU must decode it, and cannot.
        """
        key = _key(like)
        if self._decoding == "host" or self._failures[key] >= _TRIES:
            if self._decoding == "gpu":
                raise MediaError(f"{label}: the GPU cannot decode it", "allow `decoder = any`, or convert it to H.264")
            self._gpu.counters.on_host_segments += 1
            yield like
            return
        self._gpu.enter()
        library = self._library if pictures and self._library and not self._library.fault else None
        if self._irregular[key] >= _TRIES:
            library = None
        kind = (*key, library is not None)
        session = self._taken(kind) or self._opened(like, library)
        if session is None:
            self._failures[key] = _TRIES
            with self.lease(like, label) as other:
                yield other
            return
        try:
            yield Converting(session.bursts, pictures.recipe) if pictures and session.bursts else session.decoder
        except IrregularBurst:  # its frames are decoded again, one by one
            self._gpu.counters.irregular_segments += 1
            self._irregular[key] += 1
            raise
        except Exception:
            self._failures[key] += 1
            self._gpu.counters.on_host_segments += 1
            raise
        self._failures[key] = -1_000_000  # it works; later failures are damaged segments
        if library is not None:
            self._irregular[key] = -1_000_000
        session.decoder.flush_buffers()
        self._gpu.counters.on_gpu_segments += 1
        with self._lock:
            self._idle[id(session)] = (kind, session)
            while len(self._idle) > self._most:
                self._idle.popitem(last=False)

    def close(self) -> None:
        """Close the idle sessions."""
        self._gpu.enter()
        self._idle.clear()

    def _opened(self, like: VideoCodecContext, library: BurstLibrary | None) -> "_Session | None":
        decoder = open_decoder(self._gpu.number, like, library is not None)
        if decoder is None:
            return None
        return _Session(decoder, BurstDecoder(library, self._gpu, decoder) if library else None)

    def _taken(self, key: tuple[Any, ...]) -> "_Session | None":
        with self._lock:
            for number, (kind, session) in self._idle.items():
                if kind == key:
                    del self._idle[number]
                    session.decoder.skip_frame = "DEFAULT"  # the last user may have skipped frames
                    return session
        return None


class PictureDecoders:
    """Decoders of a GPU for one pipeline; without `pictures`, the host makes these, and frames come one by one."""

    def __init__(self, decoders: GpuDecoders, pictures: CudaPictures | None) -> None:
        self._decoders, self._pictures = decoders, pictures

    def lease(
        self, like: VideoCodecContext, label: str, bursts: bool = False
    ) -> AbstractContextManager[VideoCodecContext | PartDecoder]:
        """See `GpuDecoders.lease`."""
        return self._decoders.lease(like, label, self._pictures if bursts else None)


class _Session(NamedTuple):
    """An open decoder; `bursts` decodes by it, if it was opened for that."""

    decoder: VideoCodecContext
    bursts: BurstDecoder | None


def open_decoder(number: int, like: VideoCodecContext, in_place: bool = False) -> VideoCodecContext | None:
    """Open a decoder on GPU `number`, whose context is current, for the stream of `like`; None if there is none.

    Its frames are copies; with `in_place` they are the decoder's own memory, of which it has enough for bursts.
    """
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
    decoder.width, decoder.height = like.width, like.height
    decoder.options = like.options | (_in_place(like) if in_place else {})
    decoder.colorspace, decoder.color_range = like.colorspace, like.color_range
    if hasattr(decoder, "reorder_depth"):
        decoder.reorder_depth = like.reorder_depth
    decoder.thread_type, decoder.thread_count = "NONE", 1
    return decoder


def _in_place(like: VideoCodecContext) -> dict[str, str]:
    kept = 2 * together_of(like.width, like.height) + 1
    return {"hwaccel_flags": "unsafe_output", "extra_hw_frames": str(kept)}


def _key(context: VideoCodecContext) -> tuple[Any, ...]:
    """Return all that a decoder knows before its first packet."""
    return (context.codec.name, context.extradata, context.width, context.height, getattr(context, "reorder_depth", 0))
