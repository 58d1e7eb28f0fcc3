"""Draws the plots of docs/benchmarks.md as svg."""

from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers import CONTESTANTS
from benchmarks.records import Records

OURS, THEIRS, LIMIT = "#c2410c", "#64748b", "#cbd5e1"
WORKLOADS = ("long", "clips", "images", "mix")


def rates(records: Records, path: Path) -> None:
    """A bar a contestant and workload, with the least and the most of its rounds."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(WORKLOADS), figsize=(13, 4.2))
    for axis, workload in zip(axes, WORKLOADS, strict=True):
        names = [n for n in CONTESTANTS if n not in ("engine", "copy") and records.timed(n, workload)]
        found = [[record["rate"] for record in records.timed(name, workload)] for name in names]
        middle = [median(each) for each in found]
        below = [m - min(each) for m, each in zip(middle, found, strict=True)]
        above = [max(each) - m for m, each in zip(middle, found, strict=True)]
        colours = [OURS if n == "rigflow" else LIMIT if CONTESTANTS[n].limit else THEIRS for n in names]
        axis.barh(names, middle, xerr=[below, above], color=colours, error_kw={"lw": 0.8})
        axis.invert_yaxis()
        axis.set_title(f"{workload}, {'images' if workload == 'images' else 'frames'}/s", fontsize=10)
    _save(figure, path)


def scale(records: Records, path: Path) -> None:
    """Cost a frame by clips queued, rate by workers, rates and the server's memory by parts queued."""
    plt = _pyplot()
    figure, (queued, workers, depth, memory) = plt.subplots(1, 4, figsize=(13, 3.2))
    for name, colour in (("pool", THEIRS), ("rigflow", OURS)):
        found = [record for record in records.of("queued") if record["contestant"] == name]
        counts = [int(record["workload"].split("-")[1]) for record in found]
        queued.plot(counts, [record["cpu_s_per_1000"] for record in found], "o-", color=colour, label=name)
    _titled(queued, "CPU s per 1,000 frames", "clips queued", log=True)
    found = records.of("workers")
    counts = [record["workers"] for record in found]
    workers.plot(counts, [record["rate"] for record in found], "o-", color=OURS, label="measured")
    if found:
        workers.plot(
            counts, [found[0]["rate"] * count / counts[0] for count in counts], "--", color=THEIRS, label="N x one"
        )
    _titled(workers, "segments/s", "simulated workers")
    found = records.of("depth")
    at = [record["queued"] for record in found]
    depth.plot(at, [record["publish_rate"] for record in found], "o-", color=OURS, label="published")
    depth.plot(at, [record["fetch_rate"] for record in found], "o-", color=THEIRS, label="fetched")
    _titled(depth, "parts/s", "parts queued")
    memory.plot(at, [record["server_bytes"] / 1e6 for record in found], "o-", color=OURS, label="publishing")
    memory.plot(at, [record["server_bytes_fetching"] / 1e6 for record in found], "o-", color=THEIRS, label="fetching")
    _titled(memory, "server MB", "parts queued")
    _save(figure, path)


def _titled(axis: Any, title: str, below: str, log: bool = False) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(below)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8)
    if log:
        axis.set_xscale("log")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "rigflow", "font.size": 8}
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
