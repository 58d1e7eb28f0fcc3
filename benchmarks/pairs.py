"""Measures rigflow beside one other contestant, in turn: `python -m benchmarks.pairs pool images --rounds 6`.

For workloads of `python -m benchmarks` (and `--pipeline upscale2x small`), without the rest of it. Each figure is the
median of the rounds, and of the ratios within the rounds; nothing is kept.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import Order
from benchmarks.peers import CONTESTANTS
from benchmarks.runner import Runner
from benchmarks.workloads import Sizes

LIMIT_S = 180.0
Pair = tuple[dict[str, Any], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=CONTESTANTS)
    parser.add_argument("workload")
    parser.add_argument("--pipeline", default="fingerprint")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=1, help="runs in one process")
    parser.add_argument("--images", type=int, default=Sizes().images)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rigflow-bench-") as name:
        rounds = list(pairs(Runner(Path(name), Path(name) / "records.jsonl", LIMIT_S), options))
    if not rounds:
        sys.exit("nothing was measured")
    figures = ["rate", "cpu_s_per_1000", "peak_bytes", *(["p50_ms"] if options.workload == "clip" else [])]
    for figure in figures:
        ours, theirs = (median(float(pair[side][figure]) for pair in rounds) for side in (0, 1))
        ratio = median(mine[figure] / other[figure] for mine, other in rounds)
        print(f"{figure}: rigflow {ours:,.2f}, {options.peer} {theirs:,.2f}, ratio {ratio:.3f}")
    for role in rounds[0][0]["cpu_s_per_1000_by_role"]:
        print(f"  CPU of {role}: {median(mine['cpu_s_per_1000_by_role'].get(role, 0.0) for mine, _ in rounds):.3f}")


def pairs(runner: Runner, options: argparse.Namespace) -> Iterator[Pair]:
    """The records of rigflow and of the peer, round by round; the one that begins changes."""
    workloads = ((options.workload, options.repeats),)
    order = Order("script", options.pipeline, workloads, str(runner.folder), "", sizes=Sizes(images=options.images))
    warm = "images" if options.workload == "images" else "small" if options.workload == "small" else "clip"
    reference = replace(order, workloads=((warm, 1),), reference=True)
    if not runner.contest(reference, "reference"):
        sys.exit("the script has no answers: the others cannot be compared")
    for turn in range(options.rounds):
        found: dict[str, dict[str, Any]] = {}
        for name in ("rigflow", options.peer)[:: 1 if turn % 2 else -1]:
            for record in runner.contest(replace(order, contestant=name), "timed"):
                found[name] = record
        if len(found) == 2:
            mine, other = found["rigflow"], found[options.peer]
            ratios = " ".join(f"{key} {mine[key] / other[key]:.3f}" for key in ("rate", "cpu_s_per_1000"))
            print(f"round {turn + 1}, load {os.getloadavg()[0]:.1f}: {ratios}", flush=True)
            yield mine, other


if __name__ == "__main__":
    main()
