"""Measures what a change of rigflow changed: the same workload on two checkouts, in turn.

`python -m benchmarks.compare BEFORE --what "..." [--workload clip --figure p50_ms --rounds 3]`. BEFORE is the folder of
another checkout, with this one's folder `benchmarks` in the place of its own. The record is added to
benchmarks/results/changes.jsonl.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import Order
from benchmarks.report import HERE
from benchmarks.runner import Runner

LIMIT_S = 180.0
WORDS = {
    "p50_ms": "p50, ms",
    "rate": "items/s",
    "cpu_s_per_1000": "CPU s per 1,000",
    "client": "the client's CPU s per 1,000",
    "peak_bytes": "peak bytes",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--what", required=True, help="the change, in a few words")
    parser.add_argument("--workload", default="clip")
    parser.add_argument("--figure", default="p50_ms", choices=WORDS)
    parser.add_argument("--repeats", type=int, default=11, help="runs in one process")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sides: dict[Path, list[float]] = {options.before.resolve(): [], HERE.parent: []}
    with tempfile.TemporaryDirectory(prefix="rigflow-bench-") as name:
        runner = Runner(Path(name), Path(name) / "records.jsonl", LIMIT_S)
        warm = Order("script", "fingerprint", ((options.workload, 1),), name, "", reference=True)
        if not runner.contest(warm, "reference"):
            sys.exit("the script has no answers: the others cannot be compared")
        for _ in range(options.rounds):
            for checkout, values in sides.items():
                order = Order("rigflow", "fingerprint", ((options.workload, options.repeats),), name, "")
                values += [figure_of(record, options.figure) for record in runner.contest(order, "change", checkout)]
    before, after = sides.values()
    figure = f"{options.workload}: {WORDS[options.figure]}"
    record = {"kind": "change", "what": options.what, "figure": figure, "before": before, "after": after}
    digits = 0 if median(before) >= 100 else 3
    with (HERE / "results" / "changes.jsonl").open("a") as lines:
        lines.write(json.dumps({**record, "digits": digits}) + "\n")
    print(f"{options.what}; {figure}: {median(before):.{digits}f} before, {median(after):.{digits}f} after")


def figure_of(record: dict[str, Any], figure: str) -> float:
    """A figure of a record by its name here."""
    return float(record["cpu_s_per_1000_by_role"]["publisher"] if figure == "client" else record[figure])


if __name__ == "__main__":
    main()
