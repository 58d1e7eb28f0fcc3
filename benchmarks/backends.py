"""Times models by several backends, on one thread of the CPU.

`python -m benchmarks.backends MODEL.onnx ... [--size H W]`: each model gets the same random rows, by turns, of the size
of its card or of `--size`. Printed are seconds of CPU a row, the median of `--rounds`; how many times as long ONNX
Runtime takes; and the largest difference from its answer, of the largest value. What a model's file does not say of its
input stands in a card beside it, `MODEL.toml`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from engines.backends.choice import EVERYWHERE, backend_of
from engines.device.host import Host
from engines.models.catalogue import load_model
from schemas.errors import ModelError
from schemas.model import ModelSpec
from schemas.settings import Settings


def row_of(spec: ModelSpec, size: tuple[int, int]) -> dict[str, Any]:
    """Random inputs of one row; free sizes are those of `size`."""
    random, made = np.random.default_rng(0), {}
    for tensor in spec.inputs:
        sides = iter(size)
        shape = (1, *(each if isinstance(each, int) else next(sides) for each in tensor.shape[1:]))
        numbers = random.random(shape)
        made[tensor.name] = (numbers * 255 if tensor.dtype == "uint8" else numbers).astype(tensor.dtype)
    return made


def compare(model: Path, backends: Sequence[str], size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """For each backend its seconds, or why it does not run the model."""
    spec, body = load_model(model)
    row, sessions, answers, result = row_of(spec, size), {}, {}, {}
    for name in backends:
        try:
            settings = Settings(backend=name)
            session = backend_of(spec, settings).open(body, spec, Host(settings))
            answers[name], sessions[name] = session.run(row), session
        except ModelError as error:
            result[name] = str(error)
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            began = time.thread_time()
            session.run(row)
            seconds[name].append(time.thread_time() - began)
    for name, times in seconds.items():
        far = max(
            float(np.abs(answers[name][key] - array).max() / max(1e-9, np.abs(array).max()))
            for key, array in answers[EVERYWHERE].items()
        )
        result[name] = {"cpu_s": median(times), "gain": median(seconds[EVERYWHERE]) / median(times), "far": far}
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where answers differ by more than a thousandth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--backends", nargs="+", default=["ncnn"], help=f"beside {EVERYWHERE}")
    parser.add_argument("--size", type=int, nargs=2, default=(198, 184), metavar=("H", "W"), help="of free inputs")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    worst = 0.0
    for model in options.models:
        result = compare(model, (EVERYWHERE, *options.backends), tuple(options.size), options.rounds)
        print(json.dumps({"model": model.name, **result}), flush=True)
        worst = max([worst, *(each["far"] for each in result.values() if isinstance(each, dict))])
    return int(worst > 1e-3)


if __name__ == "__main__":
    sys.exit(main())
