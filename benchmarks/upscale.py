"""Measures super-resolution of a film beside a plain script: `python -m benchmarks.upscale [--short] [--frames 24]`.

Both make each frame four times as large and write H.264. The script (`benchmarks.peers.plain_upscaler`) is one process
of PyAV, NumPy and ONNX Runtime with its default threads, over whole frames; rigflow has two workers, over tiles. They
run in turn, each warm. Three films: two whose frames all differ, of a real clip and of flat drawings, which the script
computes faster than real pictures; and one whose drawings are shown for two frames each, which rigflow computes once.
With `--film` also the beginning of yours. Their pictures are compared. `cpu_s` is what a frame costs in seconds of CPU,
which other programs on the machine change less than the rate, `network_s` the seconds of the network in a frame (of
rigflow's two workers, half), `most` the ratio if rigflow had nothing else to do, and `held` the share of tiles that
rigflow did not compute. `--held FILM` counts them alone in a film of yours, without a network.

The model is realesr-animevideov3-x4.onnx in the folder that TEST_WEIGHTS names; where there is none, a network of the
same form with seeded random weights.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contest import Meter
from benchmarks.peers.plain_upscaler import Upscaler
from benchmarks.peers.rigflow import FilmFleet
from engines.inference.sources import Source
from engines.inference.tiles import Tiles
from engines.models.catalogue import load_model
from pipelines.registry import builtin_pipeline
from schemas.picture import PictureSpec
from tests.clips import real_clip

WORKERS = 2
KINDS = {"moving": 1, "on_twos": 2}  # for how many frames a drawing is shown
REAL = "realesr-animevideov3-x4.onnx"
CLIP = "bikes"
WIDTH, LAYERS = 64, 18
CARD = """
[[inputs]]
name = "input"
tile = [{}, {}]
overlap = 18
[[heads]]
kind = "image"
"""


def random_network(width: int = WIDTH) -> bytes:
    """`input [n, 3, h, w]` -> `output [n, 3, 4h, 4w]`: 18 convolutions of 3 x 3, PReLU between them."""
    random, nodes, kept, name = np.random.default_rng(0), [], [], "input"
    for layer in range(LAYERS):
        into, out = 3 if layer == 0 else width, 48 if layer == LAYERS - 1 else width
        spread = np.sqrt(2 / (9 * into))
        kept.append(
            numpy_helper.from_array((random.standard_normal((out, into, 3, 3)) * spread).astype("f4"), f"w{layer}")
        )
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], pads=[1] * 4))
        name = f"c{layer}"
        if layer < LAYERS - 1:
            kept.append(numpy_helper.from_array(np.full((out, 1, 1), 0.2, "f4"), f"s{layer}"))
            nodes.append(helper.make_node("PRelu", [name, f"s{layer}"], [f"p{layer}"]))
            name = f"p{layer}"
    nodes.append(helper.make_node("DepthToSpace", [name], ["output"], blocksize=4, mode="CRD"))
    values = (("input", ["n", 3, "h", "w"]), ("output", ["n", 3, "h4", "w4"]))
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values)
    graph = helper.make_graph(nodes, "upscaler", [given], [made], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def model_in(folder: Path, tile: tuple[int, int]) -> tuple[Path, str]:
    """The model's file with its card beside it, and which model it is."""
    path, real = folder / "upscaler.onnx", Path(os.environ.get("TEST_WEIGHTS", ""), REAL)
    path.write_bytes(real.read_bytes() if real.is_file() else random_network())
    path.with_suffix(".toml").write_text(CARD.format(*tile))
    return path, REAL if real.is_file() else "random weights"


def film(path: Path, frames: int, size: tuple[int, int], hold: int) -> Path:
    """A lossless film of drawings, each shown for `hold` frames; `size` is (height, width)."""
    y, x = np.mgrid[: size[0], : size[1]]
    with av.open(str(path), "w") as out:
        stream = _lossless(out, size)
        for number in range(frames):
            drawing = number // hold
            disc = ((y - size[0] // 2) ** 2 + (x - 20 - 5 * drawing) ** 2 < 400)[..., None]
            ground = np.stack([x + drawing, y + 2 * drawing, x + y], -1) // 2 % 256
            picture = np.where(disc, np.array([250, 200, 40]), ground).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return path


def real_film(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """The first frames of a real clip at a size, lossless."""
    with av.open(real_clip(CLIP)) as container, av.open(str(path), "w") as out:
        stream = _lossless(out, size)
        for frame in islice(container.decode(video=0), frames):
            pixels = frame.reformat(width=size[1], height=size[0], format="rgb24").to_ndarray()
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())
    return path


def _lossless(out: Any, size: tuple[int, int]) -> Any:
    stream = out.add_stream("libx264rgb", rate=25, options={"qp": "0", "bf": "0", "g": "6"})
    stream.height, stream.width, stream.pix_fmt = *size, "rgb24"
    return stream


def beginning(path: Path, out: Path, frames: int) -> Path:
    """The first `frames` packets of a film's video, as they are."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        video = source.streams.video[0]
        copy = target.add_stream_from_template(video)
        for packet in islice((each for each in source.demux(video) if each.dts is not None), frames):
            packet.stream = copy
            target.mux(packet)
    return out


def held_share(path: Path, frames: int, tile: tuple[int, int]) -> float:
    """The share of tiles that equal those of the frame before, in the first frames of a film."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), frames)]
    tiles = Tiles(Source(np.stack(pictures)), PictureSpec(tile=tile, overlap=18))
    return tiles.held / (tiles.held + len(tiles))


def difference(one: Path, other: Path) -> float:
    """The largest mean difference of two films' pictures, of 255."""
    films = []
    for path in (one, other):
        with av.open(str(path)) as container:
            films.append([frame.to_ndarray(format="gray").astype(float) for frame in container.decode(video=0)])
    return max(float(np.abs(a - b).mean()) for a, b in zip(*films, strict=True))


async def compare(
    frames: int, rounds: int, size: tuple[int, int], tile: tuple[int, int], folder: Path, backend: str, own: Path | None
) -> dict[str, Any]:
    """The medians of both, in frames a second, and their ratio, the median of each round's, for each film."""
    model, about = model_in(folder, tile)
    script = Upscaler(model)
    result: dict[str, Any] = {"model": about, "frames": frames, "size": size, "tile": tile, "backend": backend}
    spec = builtin_pipeline("upscale").with_model(model.stem).model_copy(update={"segment_s": 0.2})
    async with FilmFleet(spec, {model.stem: load_model(model)}, WORKERS, folder / "out", backend) as rigflow:
        warm = film(folder / "warm.mp4", 2, size, 1)
        await rigflow.run(warm)
        script.upscale(warm, folder / "warm.out.mp4")
        films = {kind: film(folder / f"{kind}.mp4", frames, size, hold) for kind, hold in KINDS.items()}
        films["real"] = real_film(folder / "real.mp4", frames, size)
        if own:
            films["film"] = beginning(own, folder / f"film{own.suffix}", frames)
        for kind, video in films.items():
            print(f"  {kind}", flush=True)
            result[kind] = await contest(script, rigflow, video, rounds, folder)
    return result


async def contest(script: Upscaler, rigflow: FilmFleet, video: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians of both over one film."""
    rates, costs, before, network_s = [], [], await rigflow.counts("infer"), script.network_s
    for number in range(rounds):
        began, meter = time.perf_counter(), Meter()
        count = script.upscale(video, plain := folder / f"{video.stem}{number}.plain.mp4")
        between, (script_s, _), meter = time.perf_counter(), meter.stop(), Meter()
        made = Path(f"{await rigflow.run(video)}.mp4")
        ended, (rigflow_s, _) = time.perf_counter(), meter.stop()
        rates.append((count / (between - began), count / (ended - between)))
        costs.append((script_s / count, rigflow_s / count))
        print(f"  script {rates[-1][0]:6.2f} frames/s  rigflow {rates[-1][1]:6.2f}", flush=True)
    counts = await rigflow.counts("infer")
    held, computed = counts.held - before.held, counts.rows - before.rows
    done = rounds * count
    each_s = (script.network_s - network_s) / done, (counts.seconds - before.seconds) / WORKERS / done
    script_rate, rigflow_rate = (median(each) for each in zip(*rates, strict=True))
    script_cpu_s, rigflow_cpu_s = (median(each) for each in zip(*costs, strict=True))
    return {
        "script": script_rate,
        "rigflow": rigflow_rate,
        "ratio": median(mine / other for other, mine in rates),
        "cpu_s": [script_cpu_s, rigflow_cpu_s],
        "cpu_ratio": median(other / mine for other, mine in costs),
        "network_s": each_s,
        "most": 1 / script_rate / each_s[1],
        "held": held / max(1, held + computed),
        "difference": difference(plain, made),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where the pictures differ by more than two encodings of the same do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few small frames, once, as a check")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("H", "W"), help="of the film")
    parser.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help="of rigflow; as the film unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--film", type=Path, help="a film of your own")
    parser.add_argument("--backend", default="onnxruntime", help="what rigflow runs the model with, as ncnn")
    parser.add_argument("--held", type=Path, metavar="FILM", help="only count the held tiles of a film")
    options = parser.parse_args(arguments)
    tile = tuple(options.tile or options.size)
    if options.held:
        print(json.dumps({"held": held_share(options.held, options.frames, tile)}))
        return 0
    given = (options.frames, options.rounds, tuple(options.size), tile)
    frames, rounds, size, tile = (4, 1, (72, 96), (64, 64)) if options.short else given
    with tempfile.TemporaryDirectory(prefix="rigflow-upscale-") as name:
        result = asyncio.run(compare(frames, rounds, size, tile, Path(name), options.backend, options.film))
    print(json.dumps(result))
    return 0 if max(result[kind]["difference"] for kind in (*KINDS, "real", "film") if kind in result) < 4 else 1


if __name__ == "__main__":
    sys.exit(main())
