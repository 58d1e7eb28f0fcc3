"""Pictures beside a plain loop over the same graphs: `python -m benchmarks.imagine FOLDER`.

FOLDER is a Stable Diffusion 1.5 as ONNX files, such as `benchmarks.random_stable` writes. The loop
(`benchmarks.peers.plain_stable`) and rigflow's session, in this process and without a broker, take turns over the same
prompts and seeds with Euler's method, each with the same number of pictures at a time. For each such number of
`--batch` it prints medians of the loop and of rigflow, the least, median and largest ratio of the rounds, in seconds
and in seconds of CPU, and how far the pictures are apart. It says also whether a picture has the same bits alone in its
batch, in another place, and beside others.
`--device cuda:0` measures a GPU.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.plain_stable import PlainStable
from engines.content import ModelFiles, graph_of
from engines.diffusion.drawing import Drawing
from engines.diffusion.noise import normal
from engines.diffusion.session import DiffusionSession
from engines.diffusion.tokens import ClipTokens
from engines.models.diffusion_folder import DiffusionFolder
from engines.models.folder_kinds import take_folder
from engines.models.store import new_files
from engines.part import no_tick
from schemas.errors import RigflowError
from schemas.model import ModelCard

WORDS = ("a cat", "a red dog", "cat cat", "red", "a dog and a cat", "dog", "red red cat", "a")
GUIDANCE = 7.5


class Both:
    """The loop and the session, over one folder."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.gpu = given, None
        kind: Any = DiffusionFolder()
        with new_files() as new:
            content = take_folder(given.folder, kind, new).content
            assert isinstance(content, ModelFiles)
            fields = {line.field: line.value for line in kind.lines(given.folder)}
            sha256 = hashlib.sha256(graph_of(content)).hexdigest()
            card = kind.spec(ModelCard(name="m", sha256=sha256, files=content.files, **fields), content)
            if given.device != "cpu":
                from engines.cuda.gpu import CudaGpu

                self.gpu = CudaGpu(given.device, Path(tempfile.mkdtemp(prefix="rigflow-")))
            self.session = DiffusionSession(
                content, card, 1 << 22, self.gpu, given.tf32, True if given.together else None
            )
            self.tokens = ClipTokens(content, "tokenizer", "m")
        self.loop = PlainStable(given.folder, given.device)

    def close(self) -> None:
        """Leave the device: CUDA ends a process that has not left it."""
        self.session.close()
        if self.gpu is not None:
            self.gpu.leave()
            self.gpu.close()

    def own(self, seeds: Sequence[int], batch: int) -> Any:
        """Pictures of rigflow, `[N, H, W, 3]`; seeds choose prompts too."""
        side, wishes = self.given.side, []
        for seed in seeds:
            wish = Drawing(
                WORDS[seed % len(WORDS)],
                size=(side, side),
                steps=self.given.steps,
                guidance=GUIDANCE,
                sampler="euler",
                spacing="leading",
                seed=seed,
            )
            wishes.append(wish)
        made = []
        for first in range(0, len(wishes), batch):
            made += self.session.draw_all(wishes[first : first + batch], batch, no_tick)
        if errors := [each for each in made if isinstance(each, RigflowError)]:
            sys.exit(f"rigflow: {errors[0]}")
        return np.stack([each[0] for each in made if not isinstance(each, RigflowError)])

    def plain(self, seeds: Sequence[int], batch: int) -> Any:
        """Pictures of the loop."""
        made = []
        for first in range(0, len(seeds), batch):
            some = seeds[first : first + batch]
            ids, nothing = (
                np.concatenate([self.tokens.ids(WORDS[seed % len(WORDS)] if words else "")[0] for seed in some])
                for words in (True, False)
            )
            shape = (1, 4, self.given.side // 8, self.given.side // 8)
            noise = np.concatenate([normal(seed, 0, shape) for seed in some])
            made.append(self.loop.draw(ids, nothing, noise, self.given.steps, GUIDANCE))
        return np.concatenate(made)


class Run(NamedTuple):
    """Seconds, CPU seconds of this process, and the pictures."""

    seconds: float
    cpu_s: float
    made: Any


def timed(method: Any, *given: Any) -> Run:
    """Run a method once."""
    began, cpu = time.perf_counter(), time.process_time()
    made = method(*given)
    return Run(time.perf_counter() - began, time.process_time() - cpu, made)


def measure(both: Both) -> Iterator[dict[str, Any]]:
    """Let both take turns, with each number of pictures in each round; the first round is to warm up."""
    given = both.given
    seeds = list(range(max(given.pictures, *given.batch)))
    rounds: dict[int, list[tuple[Run, Run]]] = {batch: [] for batch in given.batch}
    for number in range(given.rounds + 1):
        for batch, runs in rounds.items():
            some = seeds if number else seeds[:batch]
            pair = timed(both.plain, some, batch), timed(both.own, some, batch)
            runs += [pair] if number else []
            print(f"  batch {batch}: loop {pair[0].seconds:.2f} s, rigflow {pair[1].seconds:.2f} s", file=sys.stderr)
    for batch, runs in rounds.items():
        apart = np.abs(runs[-1][0].made.astype(int) - runs[-1][1].made)
        seconds = [median(pair[n].seconds for pair in runs) for n in range(2)]
        first = rounds[given.batch[0]]
        yield {
            "device": given.device,
            "batch": batch,
            "pictures_a_minute": [round(60 * len(seeds) / each, 2) for each in seconds],
            "s_a_step_and_picture": [round(each / len(seeds) / given.steps, 4) for each in seconds],
            "ratio": _ratios(plain.seconds / own.seconds for plain, own in runs),
            "cpu_ratio": _ratios(plain.cpu_s / own.cpu_s for plain, own in runs),
            "cpu_of_first_batch": _ratios(
                one.cpu_s / own.cpu_s for (_, one), (_, own) in zip(first, runs, strict=True)
            ),
            "apart": {"mean": round(float(apart.mean()), 4), "most": int(apart.max())},
            "equal_bits": same_bits(both, batch, runs[-1][1].made[0]) if batch > 1 else {},
        }


def _ratios(found: Iterable[float]) -> list[float]:
    """Least, median and largest."""
    values = sorted(found)
    return [round(each, 3) for each in (values[0], median(values), values[-1])]


def same_bits(both: Both, batch: int, expected: Any) -> dict[str, bool]:
    """Whether a picture has the same bits alone in its batch, last in it, and beside others."""
    others = list(range(20, 20 + batch - 1))
    return {
        "alone": np.array_equal(both.own([0], batch)[0], expected),
        "last": np.array_equal(both.own([*others, 0], batch)[-1], expected),
        "others": np.array_equal(both.own([0, *others], batch)[0], expected),
        "as batch 1": np.array_equal(both.own([0], 1)[0], expected),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line of JSON for each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="of a picture, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--together", action="store_true", help="several pictures at a time on the CPU too")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rigflow-imagine-") as name:
        os.environ["HOME"] = name  # files of the model are kept there
        both = Both(given)
        for line in measure(both):
            print(json.dumps(line), flush=True)
        both.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
