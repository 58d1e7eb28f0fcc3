"""The GPU's video encoder, NVENC, through FFmpeg: pictures on the GPU are encoded without a copy to the host.

Everything except `_new_encoder`, the call that needs the hardware, is tested without it: the same code makes frames on
any GPU, and on the host instead of a GPU.
"""

from collections import deque
from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import CudaContext

from engines.cuda.arrays import GpuRows
from engines.cuda.dlpack import Lent
from engines.cuda.gpu import CudaGpu
from engines.cuda.kernels import NV12
from engines.cuda.memory import Block
from engines.encoding import Colour, Encoded, PictureEncoder, Pictures, VideoOptions
from engines.outputs.gop import Geometry, encode_gop, geometry_of, new_encoder
from engines.part import Array, Tick, no_tick
from schemas.errors import MediaError
from schemas.media import MediaInfo

NAME = "h264_nvenc"
_MAKES = "h264 of 8 bits"
_PITCH = 256  # each line of a picture begins at a multiple of so many bytes, as in FFmpeg's own
_TRIED = (256, 256)  # a size that every NVENC accepts
_UNSPECIFIED = 2
_REFUSED = (av.error.FFmpegError, UnknownCodecError)
_PRESETS = {
    "ultrafast": "p1",
    "superfast": "p2",
    "veryfast": "p3",
    "faster": "p4",
    "fast": "p4",
    "medium": "p5",
    "slow": "p6",
    "slower": "p7",
    "veryslow": "p7",
}


class GpuEncoder:
    """NVENC of one GPU, with a session for each part; pictures that it refuses go to `host`, if that is set."""

    on_gpu = True

    def __init__(self, gpu: CudaGpu, host: PictureEncoder | None) -> None:
        self._gpu = gpu
        self._host = host
        # use the current context: FFmpeg accepts a primary context only with exactly the flags that it would set
        self._context = CudaContext(gpu.number, primary_ctx=False, current_ctx=True)

    def opens(self) -> bool:
        """Return whether it encodes a picture here. Raises DeviceLost."""
        grey = Pictures([np.zeros((1, *_TRIED), np.uint8)], Colour(0, *(_UNSPECIFIED,) * 3), MediaInfo(kind="trial"))
        try:
            GpuEncoder(self._gpu, None).encode(grey, VideoOptions())
        except MediaError:
            return False
        return True

    def encode(self, pictures: Pictures, options: VideoOptions, tick: Tick = no_tick) -> Encoded:
        """Encode one closed GOP. Raises PipelineError, DeviceLost, and MediaError if NVENC refuses without a `host`."""
        gpu, geometry = self._gpu, geometry_of(pictures.planes)
        wanted = f"{options.codec} of {options.bits} bits"
        why = "it is not 4:2:0" if wanted == _MAKES else f"it makes {_MAKES}, not {wanted}"
        if geometry.pix_fmt == "yuv420p" and wanted == _MAKES:
            gpu.enter()
            try:
                with gpu.guarded():
                    frames = gpu_frames(gpu, pictures.planes, geometry, self._context)
                    return encode_gop(_new_encoder(geometry, pictures, options), frames, tick)
            except _REFUSED as error:
                if not gpu.works():
                    raise gpu.lost(error) from error
                why = getattr(error, "strerror", None) or str(error)
        if self._host is None:
            what = f"{pictures.media.name}: the GPU cannot encode {geometry.width}x{geometry.height} ({why})"
            raise MediaError(what, "allow `encoder = any`")
        return self._host.encode(pictures, options, tick)


def nvenc_options(options: VideoOptions) -> dict[str, str]:
    """Return NVENC's options: `crf` becomes the nearest whole quantiser of all pictures; `preset` one of p1 to p7.

    Pictures refer only to earlier ones, so every GOP is closed; decoding can start at every keyframe.
    """
    quality = {"rc": "constqp", "qp": str(round(options.quantiser)), "preset": _PRESETS[options.preset]}
    return quality | {
        "bf": "0",
        "g": "250",
        "profile": "high",
        "forced-idr": "1",
        "strict_gop": "1",
        "no-scenecut": "1",
    }


def _new_encoder(geometry: Geometry, pictures: Pictures, options: VideoOptions) -> VideoCodecContext:
    """Create the NVENC context; it opens with the first frame, on that frame's GPU."""
    encoder = new_encoder(NAME, geometry._replace(pix_fmt="cuda"), pictures)
    encoder.options = nvenc_options(options)
    return encoder


def gpu_frames(
    gpu: CudaGpu, planes: Sequence[Array], geometry: Geometry, context: CudaContext
) -> Iterator[av.VideoFrame]:
    """Yield an NV12 frame on the GPU for each row of planes `[N, H, W]` uint8, which may be on the host.

    All are made before the first is yielded: the GPU is waited for once. A frame's memory returns to the GPU's pool
    when its last reference is gone. Raises DeviceLost.
    """
    stream = gpu.stream()
    pitch = -(-geometry.width // _PITCH) * _PITCH
    held: list[Block] = []
    blocks: deque[Block] = deque()
    for number in range(len(planes[0])):
        block = gpu.memory.take(geometry.height * 3 // 2 * pitch)
        given = np.zeros((), NV12)
        for name, plane in zip(("luma", "cb", "cr"), planes, strict=False):
            source = plane.rows[number].block if isinstance(plane, GpuRows) else _uploaded(gpu, plane[number], held)
            given[name] = source.pointer
            held.append(source)
        given["out"], given["pitch"] = block.pointer, pitch
        given["height"], given["width"] = planes[0].shape[1:]
        given["chroma_height"], given["chroma_width"] = planes[-1].shape[1:]
        given["rows"], given["columns"] = geometry.height, geometry.width
        grid = -(-geometry.width // 512), geometry.height * 3 // 2  # four columns a thread
        gpu.kernels.launch("nv12", grid, (128, 1, 1), stream, given[()])
        blocks.append(block)
    stream.synchronize()
    held.clear()
    while blocks:
        block = blocks.popleft()
        luma = Lent(gpu, block, (geometry.height, geometry.width), pitch)
        # NVENC gets the address of the luma, and expects the chroma right behind it
        chroma = Lent(gpu, block, (geometry.height // 2, geometry.width), pitch, geometry.height * pitch)
        yield av.VideoFrame.from_dlpack((luma, chroma), format="nv12", cuda_context=context)


def _uploaded(gpu: CudaGpu, plane: Array, held: list[Block]) -> Block:
    """Queue a copy of a plane of the host; `held` keeps what is needed until the copy is done."""
    block, pinned = gpu.memory.take(plane.nbytes), gpu.pinned.take(plane.nbytes)
    staged = pinned.host(np.uint8, plane.shape)
    staged[...] = plane
    gpu.upload(block.pointer, staged, gpu.stream())
    held.append(pinned)
    return block
