"""Compares the steps of a GPU's path with the host's: codecs that open, decoded planes, transforms."""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks import measure
from benchmarks.gpu_clips import KINDS, pattern
from engines.cuda.gpu import CudaGpu
from engines.cuda.nvdec import GpuDecoders
from engines.cuda.probe import gpu_codecs
from engines.cuda.transforms import CudaPictures
from engines.part import Array
from engines.pictures import HostPictures
from schemas.picture import PictureSpec
from tests.clips import real_clip

REAL = ("bigbuckbunny", "bikes", "carphone_pristine")


def gpu(options: argparse.Namespace) -> dict[str, Any]:
    """Its name, the codecs that it opens, and the time to open it."""
    without_mb = measure.rss_bytes([os.getpid()]) / 1e6
    began_s = time.perf_counter()
    opened = CudaGpu(options.device, options.folder / "cache")
    first_s = time.perf_counter() - began_s
    facts = opened.facts
    with_context_mb = measure.rss_bytes([os.getpid()]) / 1e6
    opened.close()
    began_s = time.perf_counter()
    CudaGpu(options.device, options.folder / "cache").close()
    again_s = time.perf_counter() - began_s
    decoders, encoders = gpu_codecs(options.device, options.folder / "cache")
    measured = {"name": facts.name, "uuid": facts.uuid, "memory_bytes": facts.memory_bytes, "link": facts.link}
    measured |= {"capability": f"{facts.capability}", "decodes": ", ".join(decoders), "encodes": ", ".join(encoders)}
    measured |= {"resident MB of a context alone": with_context_mb - without_mb}
    return measured | {"open, kernels compiled, s": first_s, "open, kernels cached, s": again_s}


def decoded(opened: CudaGpu, path: Path, most: int = 30) -> list[tuple[av.VideoFrame, av.VideoFrame]]:
    """The first frames of a clip as the host and as the GPU decode them."""
    with av.open(path) as container:
        host = [frame for _, frame in zip(range(most), container.decode(video=0), strict=False)]
    decoders = GpuDecoders(opened, 1, "gpu")
    mine: list[av.VideoFrame] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        with decoders.lease(stream.codec_context, path.name) as decoder:
            for packet in container.demux(stream):
                mine += decoder.decode(packet if packet.size else None)
                if len(mine) >= most:
                    break
    assert all(frame.format.name == "cuda" for frame in mine), "decoded by the host"
    return list(zip(host, mine[:most], strict=True))


def planes(options: argparse.Namespace) -> dict[str, Any]:
    """Decoded planes of both, and the largest difference; 10 bits against the host's own 10."""
    opened = CudaGpu(options.device, options.folder / "cache")
    found: dict[str, Any] = {}
    paths = {name: real_clip(name) for name in REAL}
    paths |= {kind: pattern(options.folder / f"{kind.replace(' ', '-')}.mp4", kind) for kind in KINDS}
    for name, path in paths.items():
        try:
            pairs = decoded(opened, path)
        except Exception as error:
            found[name] = repr(error)[:200]
            continue
        worst = 0
        for host, mine in pairs:
            assert mine.sw_format is not None
            there = mine.reformat(format=mine.sw_format.name)
            for one, other in zip(samples(host), samples(there), strict=True):
                worst = max(worst, int(np.abs(one.astype(np.int32) - other).max()))
        layout = pairs[0][1].sw_format
        found[name] = {"frames": len(pairs), "layout": layout.name if layout else "", "largest difference": worst}
    opened.close()
    return found


def samples(frame: av.VideoFrame) -> list[Array]:
    """Y, Cb and Cr as numbers, whichever way they are laid out."""
    deep = "10" in frame.format.name
    dtype, bytes_each = (np.uint16, 2) if deep else (np.uint8, 1)
    arrays = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).view(dtype)  # type: ignore[call-overload]
        arrays.append(
            rows[: plane.height, : plane.width * (2 if plane.width * 2 * bytes_each <= plane.line_size else 1)]
        )
    if frame.format.name in ("nv12", "p010le"):
        half = frame.width + 1 >> 1
        luma, chroma = arrays
        arrays = [luma[:, : frame.width], chroma[:, : 2 * half : 2], chroma[:, 1 : 2 * half : 2]]
        return [array >> 6 if deep else array for array in arrays]
    half = frame.width + 1 >> 1
    return [arrays[0][:, : frame.width], arrays[1][:, :half], arrays[2][:, :half]]


def transforms(options: argparse.Namespace) -> dict[str, Any]:
    """Largest and mean difference of converted frames: matrices, ranges, odd sizes, depths; and the time of one."""
    opened = CudaGpu(options.device, options.folder / "cache")
    found: dict[str, Any] = {}
    sizes = {"32x32": (32, 32), "182x182": (182, 182), "odd 91x161": (91, 161)}
    for kind in ("h264", "h264 odd", "hevc 10 bit"):
        plain, mine = decoded(opened, pattern(options.folder / f"{kind.replace(' ', '-')}.mp4", kind), 1)[0]
        for name, colour in {
            "709": (1, 1),
            "709 full": (1, 2),
            "601": (5, 1),
            "601 full": (5, 2),
            "2020": (9, 1),
        }.items():
            host = plain
            if colour[1] == 2 and "10" not in kind:
                host = plain.reformat(format="yuvj420p", src_color_range=2, dst_color_range=2)
            host.colorspace, host.color_range = colour
            mine.colorspace, mine.color_range = colour
            for label, size in sizes.items():
                found[f"{kind} {name} {label}"] = " ".join(
                    _apart(opened, host, mine, {"size": size, **given})
                    for given in ({}, {"layout": "gray"}, {"resize": "bilinear", "fit": "crop"})
                )
    host, mine = decoded(opened, pattern(options.folder / "h264.mp4", "h264"), 1)[0]
    found["rotated, padded"] = _apart(opened, host, mine, {"size": (182, 182), "fit": "letterbox"}, 8)
    found["planes"] = _apart(opened, host, mine, {"layout": "planes"})
    kinds: dict[str, dict[str, Any]] = {
        "32x32 gray": {"size": (32, 32), "layout": "gray"},
        "182x182": {"size": (182, 182)},
    }
    for label, given in kinds.items():
        convert = CudaPictures(_pictures(given), opened)
        convert.convert(mine)
        convert.synchronize()
        began_s = time.perf_counter()
        for _ in range(200):
            convert.convert(mine)
        convert.synchronize()
        found[f"720p to {label}, us a frame"] = (time.perf_counter() - began_s) / 200 * 1e6
    opened.close()
    return found


def _pictures(given: dict[str, Any]) -> dict[str, PictureSpec]:
    return {"plane" if given.get("layout") == "planes" else "pixels": PictureSpec.model_validate(given)}


def _apart(
    opened: CudaGpu, host: av.VideoFrame, mine: av.VideoFrame, given: dict[str, Any], orientation: int = 1
) -> str:
    convert = CudaPictures(_pictures(given), opened)
    made = convert.convert(mine, orientation)
    convert.synchronize()
    gaps = [
        np.abs(array.astype(np.int32) - np.asarray(made[name]))
        for name, array in HostPictures(_pictures(given)).convert(host, orientation).items()
    ]
    return f"{max(int(gap.max()) for gap in gaps)} ({max(float(gap.mean()) for gap in gaps):.3f})"
