"""rigflow beside the script a user would write, a process pool without a broker, and decoding alone.

`python -m benchmarks.end_to_end [--rounds 5] [--json FILE]`: every contestant in turn, round by round, medians with
minimum and maximum, and ratios within the round. The pool runs rigflow's own decode-to-result code.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

REPEATS = {"long": 2, "images": 1, "clip": 8}  # runs inside one process, so that start-up is not what is measured
CONTESTANTS = {
    "long": ("script", "decode", "decode2", "pool", "rigflow"),
    "images": ("script", "decode2", "pool", "rigflow"),
    "clip": ("script", "rigflow"),
}


def measured(name: str, workload: str, folder: Path) -> dict[str, Any]:
    """One contestant in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.contestants", name, workload, str(folder), str(REPEATS[workload])]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    report["rate"] = report["items"] / median(report["seconds"])
    return report


def cold(folder: Path, turn: int) -> float:
    """Seconds of the whole command `rigflow run fingerprint`, nothing started before."""
    command = [sys.executable, "-m", "workers.cli", "run", "fingerprint", str(folder / "long.mp4")]
    started = time.perf_counter()
    subprocess.run([*command, "--workers", "2", "--out", str(folder / f"cold{turn}")], check=True, capture_output=True)
    return time.perf_counter() - started


def spread(values: list[float], digits: int = 0) -> str:
    """Median (minimum to maximum)."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append every single measurement to this file, a line each")
    parser.add_argument("--workloads", nargs="*", default=list(CONTESTANTS))
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    rounds: list[dict[tuple[str, str], dict[str, Any]]] = []
    colds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rigflow-bench-") as name:
        folder = Path(name)
        for turn in range(options.rounds):
            rounds.append({})
            for workload in options.workloads:
                for contestant in CONTESTANTS[workload]:
                    report = measured(contestant, workload, folder)
                    rounds[-1][workload, contestant] = report
                    if options.json:
                        with options.json.open("a") as lines:
                            lines.write(json.dumps({"round": turn, **report}) + "\n")
            if "long" in options.workloads:
                colds.append(cold(folder, turn))
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr)
    for workload in options.workloads:
        print_workload(workload, rounds)
    if colds:
        print(f"\nwhole cold command, 60 s clip: {spread(colds, 2)} s")


def print_workload(workload: str, rounds: list[dict[tuple[str, str], dict[str, Any]]]) -> None:
    """A table of one workload: each contestant's rate, CPU seconds, and rigflow's ratio to it within the rounds."""
    unit = {"long": "frames/s", "images": "images/s", "clip": "ms a clip"}[workload]
    print(f"\n{workload:8} {unit:>28} {'CPU s':>8} {'rigflow against it':>26}")
    for contestant in CONTESTANTS[workload]:
        reports = [one[workload, contestant] for one in rounds]
        mine = [one[workload, "rigflow"] for one in rounds]
        ratios = [own["rate"] / other["rate"] for own, other in zip(mine, reports, strict=True)]
        values = (
            [1000 * median(report["seconds"]) for report in reports]
            if workload == "clip"
            else [r["rate"] for r in reports]
        )
        used = median(report["cpu_s"] for report in reports)
        ratio = "" if contestant == "rigflow" else spread(ratios, 2)
        print(f"{contestant:8} {spread(values):>28} {used:8.2f} {ratio:>26}")
    shares = [one[workload, "rigflow"]["broker_share"] for one in rounds]
    print(f"the broker's share of all CPU seconds: {100 * median(shares):.1f} %")


if __name__ == "__main__":
    main()
