"""Models as people export them, through real fleets: media of exact RGB, a pipeline, its answers."""

import asyncio
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnxruntime
from PIL import Image

from engines.models.catalogue import own_model
from schemas.jobs import Priority
from schemas.pipeline import parse_pipeline
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet, Killing, Silent
from workers.inputs import JobOutcome
from workers.run import run_jobs

Array = np.ndarray[Any, Any]
GOP, RATE = 5, 10  # frames a keyframe, frames a second


def film(folder: Path, frames: int = 20, size: tuple[int, int] = (48, 64), name: str = "film", gop: int = GOP) -> Path:
    """A video in lossless RGB; `size` is (height, width)."""
    path = folder / f"{name}.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=RATE, options={"qp": "0", "bf": "0"})
        video.height, video.width = size
        video.pix_fmt = "rgb24"
        video.codec_context.gop_size = gop
        for number in range(frames):
            out.mux(video.encode(av.VideoFrame.from_ndarray(drawn(size, number), "rgb24")))
        out.mux(video.encode())
    return path


def drawn(size: tuple[int, int], number: int) -> Array:
    """A picture that differs from number to number: gradients and a square, `[height, width, 3]` uint8."""
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.stack([x * 3 + 9 * number, y * 4 + 5 * number, x + y + 31 * number], -1) % 251
    picture[5:20, 3 + number : 15 + number] = (250, 128, 7 * number % 256)
    return picture.astype(np.uint8)


def stills(folder: Path, sizes: Sequence[tuple[int, int]] = ((48, 64), (21, 33), (60, 80))) -> list[Path]:
    """A png of each size (height, width), in the order of their names."""
    paths = [folder / f"still{number}.png" for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        Image.fromarray(drawn(size, 3 * number)).save(path)
    return paths


def frames_of(path: Path) -> list[Array]:
    """The RGB of a film or a picture, by PyAV or Pillow alone."""
    if path.suffix == ".png":
        return [np.asarray(Image.open(path).convert("RGB"))]
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def plainly(graph: bytes, **inputs: Array) -> dict[str, Array]:
    """What ONNX Runtime makes of these inputs with the graph as it was exported."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def written(folder: Path, stages: str, decode: str = "", media: str = '["video", "image"]', name: str = "p") -> Path:
    """A pipeline's file with `stages` behind decode, in segments of half a second."""
    path = folder / f"{name}.toml"
    stages, decode = textwrap.dedent(stages), textwrap.dedent(decode)
    path.write_text(
        f'name = "{name}"\nmedia = {media}\nsegment_s = 0.5\n[[stage]]\nkind = "decode"\n{decode}\n{stages}\n'
    )
    return path


def to(encode: str, infer: str = 'model = "m"') -> str:
    """An infer stage and an encode stage of this format."""
    return f'[[stage]]\nkind = "infer"\n{infer}\n[[stage]]\nkind = "encode"\nformat = "{encode}"\n'


def put(folder: Path, graph: bytes, card: str = "", name: str = "m") -> None:
    """A user's model and its card beside the pipeline's file."""
    (folder / f"{name}.onnx").write_bytes(graph)
    if card:
        (folder / f"{name}.toml").write_text(textwrap.dedent(card))


def check(pipeline: Path) -> str:
    """What `rigflow pipelines check` prints for a file that it refuses; empty where it is fine."""
    done = rigflow("pipelines", "check", pipeline)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@dataclass
class Fleets:
    """One worker, three workers, and one worker a stage, each fleet with a broker of its own."""

    fleets: list[Fleet]

    async def answers(self, pipeline: Path, inputs: Sequence[Path], out: Path) -> list[JobOutcome]:
        """The jobs of the first fleet, after `check` found the pipeline fine and all fleets wrote the same."""
        assert check(pipeline) == ""
        spec = parse_pipeline(pipeline.read_text(), pipeline.name)
        models = {name: own_model(name, pipeline.parent) for name in spec.model_names.values()}
        made: list[list[JobOutcome]] = []
        for number, fleet in enumerate(self.fleets):
            folder = out / str(number)
            folder.mkdir(parents=True)
            made.append(await run_jobs(fleet.settings, spec, models, inputs, folder, Priority.BULK, Silent()))
            for outcome in made[-1]:
                assert outcome.ok, outcome.error or (outcome.done and outcome.done.failures)
        first = files_under(out / "0")
        for number in range(1, len(self.fleets)):
            assert files_under(out / str(number)) == first
        return made[0]


def whole_and_killed(pipeline: Path, inputs: Sequence[Path], out: Path, cache: Path) -> list[JobOutcome]:
    """The jobs of two workers, after a run in which one was killed at the first part wrote the same files."""
    spec = parse_pipeline(pipeline.read_text(), pipeline.name)
    models = {name: own_model(name, pipeline.parent) for name in spec.model_names.values()}
    made: list[list[JobOutcome]] = []
    for name in ("whole", "killed"):
        (out / name).mkdir(parents=True)
        with Fleet(ONE_WORKER * 2, cache, ack_wait_s=3.0) as fleet:
            listener = Killing(fleet) if name == "killed" else Silent()
            jobs = run_jobs(fleet.settings, spec, models, inputs, out / name, Priority.BULK, listener)
            made.append(asyncio.run(jobs))
        for outcome in made[-1]:
            assert outcome.ok, outcome.error or (outcome.done and outcome.done.failures)
    first, second = ({each.name: each.done and each.done.digest for each in outcomes} for outcomes in made)
    assert first == second
    assert files_under(out / "whole") == files_under(out / "killed")
    return made[0]


def files_under(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def fleets(cache: Path, *stages: Sequence[tuple[str, ...]]) -> Iterator[Fleets]:
    """One worker, three workers, and a fleet with a worker for each entry of `stages`."""
    started: list[Fleet] = []
    try:
        for number, each in enumerate((ONE_WORKER, ONE_WORKER * 3, *stages)):
            started.append(Fleet(each, cache / str(number)).__enter__())
        yield Fleets(started)
    finally:
        for fleet in started:
            fleet.__exit__(None, None, None)


def arrays(outcome: JobOutcome) -> dict[str, Array]:
    """The npz of a job."""
    with np.load(f"{outcome.target}.npz") as found:
        return dict(found)


def lines(outcome: JobOutcome) -> list[dict[str, Any]]:
    """The lines of JSON of a job."""
    return [json.loads(line) for line in Path(f"{outcome.target}.jsonl").read_text().splitlines()]
