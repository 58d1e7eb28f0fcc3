"""Measures one GPU beside its limits: decoding, transforms, inference, and the whole chain through a broker.

`python -m benchmarks.gpu [SECTION ...] [--json FILE] [--model x3d_s.onnx] [--device cuda:0]`: each section runs in a
process of its own, so that none disturbs another, and its table is printed when it ends. Sections are the functions of
`benchmarks.gpu_parts`, `gpu_path`, `gpu_frames`, `gpu_chain`, `gpu_results`, `gpu_infer`, `gpu_outputs`, `gpu_goals`
and `gpu_networks`.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SECTIONS = {
    "gpu": "benchmarks.gpu_parts",
    "planes": "benchmarks.gpu_parts",
    "transforms": "benchmarks.gpu_parts",
    "nvdec": "benchmarks.gpu_chain",
    "path": "benchmarks.gpu_path",
    "frames": "benchmarks.gpu_frames",
    "chain": "benchmarks.gpu_chain",
    "results": "benchmarks.gpu_results",
    "kill": "benchmarks.gpu_results",
    "infer": "benchmarks.gpu_infer",
    "windows": "benchmarks.gpu_infer",
    "outputs": "benchmarks.gpu_outputs",
    "detect": "benchmarks.gpu_goals",
    "upscale": "benchmarks.gpu_goals",
    "networks": "benchmarks.gpu_networks",
    "boxes": "benchmarks.gpu_networks",
    "gpus": "benchmarks.gpu_infer",
}
DEFAULT = tuple(name for name in SECTIONS if name != "gpus")
LIMIT_S = 400.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--model", type=Path, help="x3d_s.onnx; without it what needs the model is left out")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--folder", type=Path, help="where clips are made and kept")
    parser.add_argument("--here", action="store_true", help="run one section in this process")
    options = parser.parse_args()
    if options.here:
        (name,) = options.sections
        found = getattr(importlib.import_module(SECTIONS[name]), name)(options)
        print("\n" + json.dumps(found), flush=True)
        os._exit(0)  # end at once: the contexts of threads need not be destroyed one by one
    with tempfile.TemporaryDirectory(prefix="rigflow-gpu-") as folder:
        options.folder = options.folder or Path(folder)
        options.folder.mkdir(parents=True, exist_ok=True)
        report: dict[str, Any] = {}
        for name in options.sections or DEFAULT:
            report[name] = section(name, options)
            print("\n".join(["", name, *(f"  {line}" for line in table(report[name]))]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(report, indent=1))


def section(name: str, options: argparse.Namespace) -> Any:
    """The figures of one section, or its error."""
    command = [sys.executable, "-m", "benchmarks.gpu", name, "--here", "--device", options.device]
    command += ["--folder", str(options.folder)]
    command += ["--model", str(options.model)] if options.model else []
    began_s = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        text, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        text, errors = "", f"timed out after {LIMIT_S:.0f} s: {str(error.stderr or b'')[-2000:]}"
    took_s = round(time.monotonic() - began_s, 1)
    print(f"{name}: {took_s} s", file=sys.stderr, flush=True)
    try:
        return {"took_s": took_s, **json.loads(text.rstrip().splitlines()[-1])}
    except (ValueError, IndexError):
        traceback.print_exc(file=sys.stderr)
        return {"took_s": took_s, "error": (text[-600:] + errors)[-3000:]}


def table(found: Any, above: str = "") -> list[str]:
    """Figures as lines, a path and a value each."""
    if not isinstance(found, dict):
        value = f"{found:,.4g}" if isinstance(found, float) else found
        return [f"{above:58} {value}"]
    return [line for key, value in found.items() for line in table(value, f"{above} {key}".strip())]


if __name__ == "__main__":
    main()
