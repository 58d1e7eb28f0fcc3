"""`make demo`: draws a small film with three shots and a sound, and runs the three pipelines over it."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
from av.filter import Graph

SHOTS = ("testsrc2=size=640x360:rate=25", "mandelbrot=size=640x360:rate=25", "smptehdbars=size=640x360:rate=25")
SHOT_FRAMES = 50
RATE = 48_000


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


def main() -> int:
    """Draw the film, then run each pipeline by its command."""
    out = Path("demo-out")
    out.mkdir(exist_ok=True)
    film = out / "film.mp4"
    draw_film(film)
    print(f"drew {film}: three shots of two seconds, with a tone\n")
    for pipeline in ("fingerprint", "scenes", "upscale2x"):
        command = [sys.executable, "-m", "cli", "run", pipeline, str(film), "--out", str(out), "--overwrite"]
        print(f"$ rigflow {' '.join(command[3:])}", flush=True)
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    print(f"\nEverything is in {out}/: descriptors as npz, shots as jsonl with a contact sheet, the film at 1280x720.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
