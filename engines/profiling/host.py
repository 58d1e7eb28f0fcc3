"""The profile of this machine's processor: what its cores compute, copy, decode and encode, one thread a core."""

import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.encoding import Colour, Pictures, VideoOptions
from engines.machine import cores
from engines.outputs.software import Software
from engines.part import Array
from engines.profiling.clips import MAKERS, SIZES, Clip, make_clip, pictures
from engines.profiling.host_name import host_id, processor
from engines.profiling.timing import Report, Step, rate_of
from schemas.device_profile import FP32, INT8, DeviceProfile
from schemas.media import MediaInfo

_SIDE = 512  # of the matrices: they fit into a core's cache
_COPY_BYTES = 64 << 20  # larger than the cache
_UNKNOWN = 2  # FFmpeg's code for colours that are not stated
_SHARES = 4  # of the given seconds: for arithmetic, memory, decoders, encoder


def measure_host(seconds: float, report: Report) -> DeviceProfile:
    """Measure this machine's processor in about `seconds`, after some for making the clips."""
    began, count, share = time.monotonic(), cores(), seconds / _SHARES
    report("arithmetic")
    operations = {
        FP32: rate_of([_multiply(TensorProto.FLOAT) for _ in range(count)], share / 2),
        INT8: rate_of([_multiply(TensorProto.UINT8) for _ in range(count)], share / 2),
    }
    report("memory")
    memory = rate_of([_copy() for _ in range(count)], share)
    wanted = [(codec, size) for codec in MAKERS for size in SIZES]
    decoded: dict[str, float] = {}
    for codec, (width, height) in wanted:
        report(f"decoding of {codec} at {width}x{height}")
        if clip := make_clip(codec, width, height):
            decoded[clip.label] = rate_of([_decode(clip) for _ in range(count)], share / len(wanted))
    encoded = {}
    for width, height in SIZES:
        report(f"encoding of h264 at {width}x{height}")
        encoded[f"h264 {width}x{height}"] = rate_of([_encode(width, height) for _ in range(count)], share / len(SIZES))
    return DeviceProfile(
        device=host_id(),
        kind="cpu",
        name=f"{processor()}, {count} core{'' if count == 1 else 's'}",
        measured_s=time.time(),
        seconds=time.monotonic() - began,
        operations_per_s=operations,
        memory_bytes_per_s=memory,
        decode_frames_per_s=decoded,
        encode_frames_per_s=encoded,
    )


def _multiply(kind: int) -> Step:
    """Multiply two matrices by ONNX Runtime, as a worker does: one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(_product(kind), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    dtypes = {"a": np.uint8, "b": np.int8} if kind == TensorProto.UINT8 else {"a": np.float32, "b": np.float32}
    given = {name: random.integers(0, 100, (_SIDE, _SIDE)).astype(dtype) for name, dtype in dtypes.items()}

    def step() -> float:
        session.run(None, given)
        return 2.0 * _SIDE**3

    return step


def _product(kind: int) -> bytes:
    whole = kind == TensorProto.UINT8
    node = helper.make_node("MatMulInteger" if whole else "MatMul", ["a", "b"], ["product"])
    kinds = {"a": kind, "b": TensorProto.INT8 if whole else kind}
    ends = [helper.make_tensor_value_info(name, each, [_SIDE, _SIDE]) for name, each in kinds.items()]
    out = helper.make_tensor_value_info("product", TensorProto.INT32 if whole else kind, [_SIDE, _SIDE])
    graph = helper.make_graph([node], "product", ends, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    made: bytes = model.SerializeToString()
    return made


def _copy() -> Step:
    source = np.ones(_COPY_BYTES, np.uint8)
    target: Array = np.empty_like(source)

    def step() -> float:
        np.copyto(target, source)
        return 2.0 * _COPY_BYTES

    return step


def _decode(clip: Clip) -> Step:
    import av

    def step() -> float:
        decoder = clip.decoder()
        packets: list[Any] = [*(av.Packet(each) for each in clip.packets), None]
        return float(sum(len(decoder.decode(packet)) for packet in packets))

    return step


def _encode(width: int, height: int) -> Step:
    """Encode pictures as the operator `encode` does."""
    frames = [frame.to_ndarray() for frame in pictures(width, height, 4)]
    luma = np.stack([frame[:height] for frame in frames])
    chroma = np.full((len(frames), height // 2, width // 2), 128, np.uint8)
    media = MediaInfo(kind="profile")
    given = Pictures([luma, chroma, chroma], Colour(0, *(_UNKNOWN,) * 3), media)
    encoder, options = Software(), VideoOptions()

    def step() -> float:
        encoder.encode(given, options)
        return float(len(frames))

    return step
