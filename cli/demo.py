"""`make demo`: draws a small film, and other samples, and runs three pipelines over the film.

`make demo FILM=street.mp4` also runs `scenes` over that film, and pipelines whose models users bring, where such a
model is kept; it saves the frame in the middle of each result of those as a picture.
"""

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from cli.gateway import PORT
from cli.samples import draw_samples
from cli.text import say_sentence
from engines.media.container import open_container, open_file
from schemas.errors import ExitCode

OF_YOUR_FILM = {"detect-video": ("detect", ("--set", "encode.track=true"))}  # the head of its model, and options


def run(pipeline: str, film: Path, out: Path, *options: str) -> int:
    """Run a pipeline by its command; return the exit code."""
    command = [sys.executable, "-m", "cli", "run", pipeline, str(film), *options, "--out", str(out), "--overwrite"]
    print(f"$ rigflow {shlex.join(command[3:])}", flush=True)
    return subprocess.run(command, check=False).returncode


def run_over(film: Path, out: Path) -> int:
    """Run `scenes` over a film of the user, and the pipelines whose models are kept; return the exit code."""
    from engines.models.store import kept

    if code := run("scenes", film, out):
        return code
    heads = {head.kind: name for name, _, card in kept() if card for head in card.heads}
    for pipeline, (head, options) in OF_YOUR_FILM.items():
        if head not in heads:
            print(f"{pipeline} needs a model with a head `{head}`: docs/detect.md says where people get one")
            continue
        if code := run(pipeline, film, out, "--model", heads[head], *options):
            return code
        save_middle(out / f"{film.stem}.{pipeline}.mp4", out / f"{film.stem}.{pipeline}.png")
    return 0


def save_middle(film: Path, picture: Path) -> None:
    """Save the frame in the middle of a film."""
    with open_file(film) as file, open_container(file) as container:
        count = container.streams.video[0].frames
        for number, frame in enumerate(container.decode(video=0)):
            if number >= count // 2:
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(picture)
                return


def main() -> int:
    """Draw the samples, then run each pipeline by its command."""
    out, own = Path("demo-out"), [Path(each) for each in sys.argv[1:]]
    for given in own:
        if not given.is_file():
            print(f"FILM: {given}: no such file", file=sys.stderr)
            return ExitCode.USAGE
    film, *others = draw_samples(out)
    say_sentence(f"drew {film}: three shots of two seconds, with a tone; and {', '.join(path.name for path in others)}")
    print()
    for pipeline in ("fingerprint", "scenes", "upscale2x"):
        if code := run(pipeline, film, out):
            return code
    for given in own:
        if code := run_over(given, out):
            return code
    print()
    say_sentence(
        f"Everything is in {out}/: descriptors as npz, shots as jsonl with a contact sheet, the film at 1280x720."
    )
    print(page_hint(), end="")
    return 0


def page_hint() -> str:
    """The page's address, with the commands that serve it; nothing where the extra `gateway` is not installed."""
    if any(find_spec(module) is None for module in ("fastapi", "python_multipart", "uvicorn")):
        return ""
    command = Path(sys.executable).with_name("rigflow")
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    commands = f"  {shown} up\n  {shown} gateway        # in another terminal\n"
    return f"\nA page for films of your own, in a browser:\n{commands}http://127.0.0.1:{PORT}\n"


if __name__ == "__main__":
    sys.exit(main())
