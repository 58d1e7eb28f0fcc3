"""Draws small files of each kind of media, for the first runs of a person who has none at hand."""

from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph
from PIL import Image

from engines.canary import tones

SHOTS = ("testsrc2=size=640x360:rate=25", "mandelbrot=size=640x360:rate=25", "smptehdbars=size=640x360:rate=25")
SHOT_FRAMES = 50
RATE = 48_000
TEXT = "A rig is a machine with many graphics cards. It was built to mine coins. Now it reads films.\n"
PROMPTS = (
    '{"id": "q1", "prompt": "What is a mining rig? Answer in one sentence."}\n'
    '{"id": "q2", "prompt": "a small red boat on a quiet lake"}\n'
)


def draw_samples(folder: Path) -> list[Path]:
    """Write film.mp4, picture.jpg, sound.wav, text.txt and prompts.jsonl; their paths."""
    folder.mkdir(exist_ok=True)
    paths = [folder / name for name in ("film.mp4", "picture.jpg", "sound.wav", "text.txt", "prompts.jsonl")]
    film, picture, sound, text, prompts = paths
    draw_film(film)
    Image.fromarray(_pictures(SHOTS[1])[-1].to_ndarray(format="rgb24")).save(picture)
    sound.write_bytes(tones(4))
    text.write_text(TEXT)
    prompts.write_text(PROMPTS)
    return paths


def draw_film(path: Path) -> None:
    """Three shots of two seconds, H.264, with a tone, AAC."""
    with av.open(path, "w") as film:
        picture = film.add_stream("libx264", rate=25, width=640, height=360, pix_fmt="yuv420p", options={"g": "50"})
        sound = film.add_stream("aac", rate=RATE)
        for shot, source in enumerate(SHOTS):
            for number, frame in enumerate(_pictures(source)):
                frame.pts, frame.time_base = shot * SHOT_FRAMES + number, Fraction(1, 25)
                film.mux(picture.encode(frame))
        film.mux(picture.encode(None))
        for samples in _tone(len(SHOTS) * SHOT_FRAMES // 25):
            film.mux(sound.encode(samples))
        film.mux(sound.encode(None))


def _pictures(source: str) -> list[av.VideoFrame]:
    graph = Graph()
    name, arguments = source.split("=", 1)
    graph.link_nodes(graph.add(name, arguments), graph.add("format", "yuv420p"), graph.add("buffersink")).configure()
    return [frame for frame in (graph.pull() for _ in range(SHOT_FRAMES)) if isinstance(frame, av.VideoFrame)]


def _tone(seconds: int) -> list[av.AudioFrame]:
    graph = Graph()
    source = graph.add("sine", f"frequency=440:sample_rate={RATE}:duration={seconds}:samples_per_frame=1024")
    shape = graph.add("aformat", f"sample_fmts=fltp:sample_rates={RATE}:channel_layouts=mono")
    graph.link_nodes(source, shape, graph.add("abuffersink")).configure()
    frames = []
    for _ in range(seconds * RATE // 1024):
        frame = graph.pull()
        assert isinstance(frame, av.AudioFrame)
        frames.append(frame)
    return frames
