"""Restored faces of a film beside a plain script: `python -m benchmarks.faces [--short] [--frames 300] [--rounds 3]`.

Both find the faces of each frame, restore them at 512 x 512, paste them back and write H.264. The script
(`benchmarks.peers.plain_faces`) is one process of PyAV, OpenCV and ONNX Runtime with its default threads, as GFPGAN's
own works: a face at a time, pasted through masks of the whole frame. rigflow has two workers. They run by turns, each
warm, and their pictures are held against each other. Then a picture that a person waits for is sent while the film is
worked on, several times. `fill` is how full the batches of faces were.

Faces are discs of five colours, every third frame has one; the detector finds exactly these, and the network that
restores is one of convolutions with seeded random weights, which changes the picture little. Needs the extra `bench`.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.contest import Meter
from benchmarks.peers.plain_faces import SIDE, Restorer
from benchmarks.peers.rigflow import FilmFleet
from benchmarks.upscale import difference
from engines.models.catalogue import load_model
from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from tests.faces import DETECTOR, RESTORER, detector, drawn_faces, face

WORKERS = 2
PICTURES = 5  # for a person
WIDTH, LAYERS = 48, 8  # of the network between its two reductions and their inverse


def random_network(width: int = WIDTH, layers: int = LAYERS) -> bytes:
    """`input [n, 3, 512, 512]` -> `output`, the same and a twentieth of what convolutions at a quarter of it make."""
    random, nodes, kept = np.random.default_rng(0), [], []

    def conv(name: str, into: int, out: int, stride: int) -> str:
        number = len(kept)
        weights = random.standard_normal((out, into, 3, 3)) * np.sqrt(2 / (9 * into))
        kept.append(numpy_helper.from_array(weights.astype("f4"), f"w{number}"))
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4, strides=[stride] * 2))
        return f"c{number}"

    def active(name: str) -> str:
        nodes.append(helper.make_node("LeakyRelu", [name], [f"a{name}"], alpha=0.2))
        return f"a{name}"

    value = active(conv(active(conv("input", 3, width, 2)), width, width, 2))
    for _ in range(layers):
        value = active(conv(value, width, width, 1))
    nodes.append(helper.make_node("DepthToSpace", [conv(value, width, 48, 1)], ["large"], blocksize=4, mode="CRD"))
    kept.append(numpy_helper.from_array(np.float32(0.05), "little"))
    nodes += [
        helper.make_node("Tanh", ["large"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "little"], ["detail"]),
        helper.make_node("Add", ["input", "detail"], ["output"]),
    ]
    shape = ["n", 3, SIDE, SIDE]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output"))
    graph = helper.make_graph(nodes, "restorer", [given], [made], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def film(path: Path, frames: int, size: tuple[int, int]) -> Path:
    """A lossless film whose every third frame has a face; `size` is (height, width)."""
    eyes = size[0] / 8
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264rgb", rate=25, options={"qp": "0", "bf": "0", "g": "25", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *size, "rgb24"
        for number in range(frames):
            place = face(size[1] / 2 + number % 40, size[0] / 2, eyes, number % 30)
            picture = drawn_faces({0: place} if number % 3 == 0 else {}, number % 20, size)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return path


def models_in(folder: Path, size: tuple[int, int]) -> dict[str, Path]:
    """The models' files with their cards beside them, by the names of the pipeline."""
    found = {}
    for name, body, card in (
        ("face_detection_yunet_2023mar", detector(size), DETECTOR),
        ("GFPGANv1.4", random_network(), RESTORER),
    ):
        found[name] = folder / f"{name}.onnx"
        found[name].write_bytes(body)
        found[name].with_suffix(".toml").write_text(card)
    return found


async def compare(frames: int, rounds: int, size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """The medians of both, in frames a second, and their ratio, the median of each round's."""
    paths = models_in(folder, size)
    script = Restorer(*paths.values())
    spec = builtin_pipeline("restore-faces").model_copy(update={"segment_s": 1.0})
    models = {name: load_model(path) for name, path in paths.items()}
    async with FilmFleet(spec, models, WORKERS, folder / "out") as rigflow:
        warm, video = film(folder / "warm.mp4", 6, size), film(folder / "film.mp4", frames, size)
        await rigflow.run(warm)
        script.restore(warm, folder / "warm.out.mp4")
        rates, costs = [], []
        for _ in range(rounds):
            began, meter = time.perf_counter(), Meter()
            script.restore(video, plain := folder / "plain.mp4")
            between, (script_cpu_s, _), meter = time.perf_counter(), meter.stop(), Meter()
            made = Path(f"{await rigflow.run(video)}.mp4")
            ended, (rigflow_cpu_s, _) = time.perf_counter(), meter.stop()
            rates.append((frames / (between - began), frames / (ended - between)))
            costs.append((1000 * script_cpu_s / frames, 1000 * rigflow_cpu_s / frames))
            print(f"  script {rates[-1][0]:6.2f} frames/s  rigflow {rates[-1][1]:6.2f}", flush=True)
        counts = await rigflow.counts("restore")
        waits = await picture_s(rigflow, film(folder / "picture.mp4", 1, size), video)
    names = "script", "rigflow"
    medians = {name: median(each) for name, each in zip(names, zip(*rates, strict=True), strict=True)}
    cpu = {f"cpu_ms_{name}": median(each) for name, each in zip(names, zip(*costs, strict=True), strict=True)}
    ratio = median(mine / other for other, mine in rates)
    filled = {"fill": counts.rows / counts.room, "batches": counts.batches, "faces": counts.rows}
    result = {"frames": frames, "size": size, **medians, "ratio": ratio, **cpu, **filled, **waits}
    return {**result, "difference": difference(plain, made)}


async def picture_s(rigflow: FilmFleet, picture: Path, video: Path) -> dict[str, float]:
    """Median seconds of a picture for a person: on an idle fleet, and beside a film in bulk."""
    idle = [await _seconds(rigflow, picture) for _ in range(PICTURES)]
    bulk = asyncio.create_task(rigflow.run(video))
    busy = []
    while len(busy) < PICTURES and not bulk.done():
        await asyncio.sleep(1.0)
        busy.append(await _seconds(rigflow, picture))
    await bulk
    return {"picture_idle_s": median(idle), "picture_beside_film_s": median(busy)}


async def _seconds(rigflow: FilmFleet, picture: Path) -> float:
    began = time.perf_counter()
    await rigflow.run(picture, Priority.INTERACTIVE)
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where the pictures differ by more than two encodings of the same do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few small frames, once: does it still run?")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("H", "W"), help="of the film")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    frames, rounds, size = (
        (9, 1, (120, 160)) if options.short else (options.frames, options.rounds, tuple(options.size))
    )
    with tempfile.TemporaryDirectory(prefix="rigflow-faces-") as name:
        result = asyncio.run(compare(frames, rounds, size, Path(name)))
    print(json.dumps(result))
    return 0 if result["difference"] < 2 else 1


if __name__ == "__main__":
    sys.exit(main())
