"""The profile of a GPU: arithmetic, memory, the link both ways, decoders, encoder, and clocks under load."""

import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engines.cuda.decoder_engines import decoder_engines
from engines.cuda.gpu import CudaGpu
from engines.cuda.kernels import ADDRESS, INT, Kernels, image_for
from engines.cuda.nvdec import open_decoder
from engines.cuda.probe import opens_encoder
from engines.machine import driver_version
from engines.profiling.clips import MAKERS, SIZES, Clip, make_clip, pictures
from engines.profiling.clips import RATE as FRAME_RATE
from engines.profiling.timing import Report, Step, rate_of
from schemas.device_profile import FP16, FP16_SEPARATE, FP16_TENSOR, FP32, FP32_SEPARATE, INT8, DeviceProfile
from schemas.errors import DeviceLost

SOURCE = Path(__file__).with_name("rate.cu")
RATE = np.dtype([("out", ADDRESS), ("kind", INT), ("rounds", INT)])
_KINDS = (FP32, FP32_SEPARATE, FP16, FP16_SEPARATE, INT8, FP16_TENSOR)  # their order is the kernel's
_OPERATIONS = {FP32: 2, FP32_SEPARATE: 2, FP16: 4, FP16_SEPARATE: 4, INT8: 8}  # of one operation of one thread
_CHAINS = 8  # independent operations of a thread
_TENSOR_OPERATIONS = 2 * 2 * 16**3 // 32  # two products of 16 x 16 matrices a round, by the 32 threads of a warp
_FIRST = {INT8: (6, 1), FP16_TENSOR: (7, 0)}  # the least compute capability
_BLOCKS, _THREADS = 8, 256  # blocks of a multiprocessor; threads of a block
_ROUNDS = 4096
_COPY_BYTES, _LINK_BYTES = 256 << 20, 32 << 20
_SHARES = 5  # of the given seconds: arithmetic, memory, both ways of the link, decoders, encoder
_EDGE = 0.1  # of the samples of a sustained rate, at each end


def measure_gpu(name: str, cache: Path, seconds: float, sustained_s: float, report: Report) -> DeviceProfile:
    """Measure the GPU `cuda:<index or UUID>` in about `seconds`, and its clocks under load for `sustained_s` more.

    Raises UsageError, DeviceLost.
    """
    began, share = time.monotonic(), seconds / _SHARES
    gpu = CudaGpu(name, cache)
    try:
        with gpu.guarded():
            report("arithmetic")
            kernels = Kernels(image_for(gpu.facts.capability, cache, SOURCE), gpu.driver, ["rate"])
            kinds = [kind for kind in _KINDS if gpu.facts.capability >= _FIRST.get(kind, (0, 0))]
            operations = {kind: _arithmetic(gpu, kernels, kind, share / len(kinds)) for kind in kinds}
            report("memory and link")
            memory = _memory(gpu, share)
            there, back = _link(gpu, share / 2)
            decoded, engines = _decoders(gpu, share, report), decoder_engines()
            encoded = _encoders(gpu, share, report)
            report(f"clocks under load for {sustained_s:.0f} s")
            ratio = _sustained(gpu, kernels, sustained_s) if sustained_s else 1.0
        return DeviceProfile(
            device=gpu.facts.uuid,
            kind="cuda",
            name=gpu.facts.name,
            driver=driver_version(),
            link=gpu.facts.link,
            measured_s=time.time(),
            seconds=time.monotonic() - began,
            operations_per_s=operations,
            memory_bytes_per_s=memory,
            to_device_bytes_per_s=there,
            from_device_bytes_per_s=back,
            decoders=engines,
            decode_frames_per_s=decoded,
            encode_frames_per_s=encoded,
            sustained_s=sustained_s,
            sustained_ratio=ratio,
        )
    finally:
        gpu.close()


def _seconds(gpu: CudaGpu, queue: Callable[[Any], None]) -> float:
    """Seconds of the GPU for what `queue` puts on a stream."""
    stream, driver = gpu.stream(), gpu.driver
    first, last = driver.Event(), driver.Event()
    first.record(stream)
    queue(stream)
    last.record(stream)
    last.synchronize()
    return float(first.time_till(last)) / 1000


def _best(gpu: CudaGpu, queue: Callable[[Any], None], seconds: float) -> float:
    """The median seconds of repeated work, after a first one that is not counted."""
    _seconds(gpu, queue)
    until, times = time.perf_counter() + seconds, list[float]()
    while not times or time.perf_counter() < until:
        times.append(_seconds(gpu, queue))
    return statistics.median(times)


def _arithmetic(gpu: CudaGpu, kernels: Kernels, kind: str, seconds: float) -> float:
    """Operations a second of one kind."""
    queue, operations = _work(gpu, kernels, kind)
    return operations / _best(gpu, queue, seconds)


def _work(gpu: CudaGpu, kernels: Kernels, kind: str) -> tuple[Callable[[Any], None], float]:
    """What queues the arithmetic of a kind, and its operations."""
    attribute = gpu.driver.device_attribute.MULTIPROCESSOR_COUNT
    blocks = _BLOCKS * int(gpu.driver.Context.get_device().get_attribute(attribute))
    threads = blocks * _THREADS
    out = gpu.memory.take(4 * threads)
    given = np.zeros((), RATE)
    given["out"], given["kind"], given["rounds"] = out.pointer, _KINDS.index(kind), _ROUNDS
    each = _TENSOR_OPERATIONS if kind == FP16_TENSOR else _CHAINS * _OPERATIONS[kind]

    def queue(stream: Any, held: Any = out) -> None:
        kernels.launch("rate", (blocks, 1), (_THREADS, 1, 1), stream, given[()])

    return queue, float(threads) * _ROUNDS * each


def _memory(gpu: CudaGpu, seconds: float) -> float:
    """Bytes a second that the GPU reads and writes by copying within its memory."""
    nbytes = min(_COPY_BYTES, gpu.facts.memory_bytes // 16)
    source, target = gpu.memory.take(nbytes), gpu.memory.take(nbytes)

    def queue(stream: Any) -> None:
        gpu.driver.memcpy_dtod_async(target.pointer, source.pointer, nbytes, stream)

    return 2 * nbytes / _best(gpu, queue, seconds)


def _link(gpu: CudaGpu, seconds: float) -> tuple[float, float]:
    """Bytes a second of copies from pinned memory to the GPU, and back."""
    block, pinned = gpu.memory.take(_LINK_BYTES), gpu.pinned.take(_LINK_BYTES)
    host = pinned.host(np.uint8, (_LINK_BYTES,))
    host[...] = 1
    there = _best(gpu, lambda stream: gpu.upload(block.pointer, host, stream), seconds)
    back = _best(gpu, lambda stream: gpu.download(host, block.pointer, stream), seconds)
    return _LINK_BYTES / there, _LINK_BYTES / back


def _decoders(gpu: CudaGpu, seconds: float, report: Report) -> dict[str, float]:
    """Frames a second of its video decoder by codec and size, by eight sessions at a time."""
    wanted = [(codec, size) for codec in MAKERS for size in SIZES]
    rates = {}
    for codec, (width, height) in wanted:
        report(f"decoding of {codec} at {width}x{height}")
        clip = make_clip(codec, width, height)
        steps = [_decode(gpu, clip) for _ in range(_CHAINS)] if clip and _decodes(gpu, clip) else []
        if clip and steps:
            rates[clip.label] = rate_of(steps, seconds / len(wanted))
    return rates


def _decodes(gpu: CudaGpu, clip: Clip) -> bool:
    """Whether the GPU gives all frames of a clip."""
    try:
        return _decode(gpu, clip)() == clip.frames
    except (av.error.FFmpegError, ValueError):
        return False
    finally:
        gpu.enter()  # the step left it


def _decode(gpu: CudaGpu, clip: Clip) -> Step:
    opened: list[VideoCodecContext] = []  # opening costs as much as decoding dozens of frames

    def step() -> float:
        gpu.enter()
        try:
            if not opened:
                decoder = open_decoder(gpu.number, clip.decoder())
                if decoder is None:
                    return 0.0
                opened.append(decoder)
            packets: list[Any] = [*(av.Packet(each) for each in clip.packets), None]
            frames = sum(len(opened[0].decode(packet)) for packet in packets)
            opened[0].flush_buffers()
            return float(frames)
        finally:
            gpu.leave()

    return step


def _encoders(gpu: CudaGpu, seconds: float, report: Report) -> dict[str, float]:
    """Frames a second of its video encoder for h264 by size, pictures from the host; empty where it has none."""
    if not opens_encoder("h264_nvenc", gpu.number):
        return {}
    rates = {}
    for width, height in SIZES:
        report(f"encoding of h264 at {width}x{height}")
        rates[f"h264 {width}x{height}"] = rate_of([_encode(gpu, width, height)] * 2, seconds / len(SIZES))
    return rates


def _encode(gpu: CudaGpu, width: int, height: int) -> Step:
    frames = pictures(width, height, SIZES[width, height])

    def step() -> float:
        encoder = av.CodecContext.create("h264_nvenc", "w")
        assert isinstance(encoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.framerate = Fraction(FRAME_RATE)
        encoder.options = {"gpu": str(gpu.number), "preset": "p4", "rc": "constqp", "qp": "23", "bf": "0"}
        for frame in (*frames, None):
            encoder.encode(frame)
        return float(len(frames))

    return step


def _sustained(gpu: CudaGpu, kernels: Kernels, seconds: float) -> float:
    """The rate of fp32 at the end of `seconds` under load, as a part of that at their start."""
    queue, _ = _work(gpu, kernels, FP32)
    _seconds(gpu, queue)
    until, times = time.perf_counter() + seconds, list[float]()

    def often(stream: Any) -> None:
        for _ in range(_CHAINS):
            queue(stream)

    while time.perf_counter() < until:
        times.append(_seconds(gpu, often))
        if not times[-1]:
            raise DeviceLost(f"device {gpu.name} does no work", "see dmesg for Xid errors")
    edge = max(1, int(len(times) * _EDGE))
    return min(1.0, statistics.median(times[:edge]) / statistics.median(times[-edge:]))
