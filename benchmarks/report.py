"""Makes docs/benchmarks.md and its plots from a run's records: `python -m benchmarks.report [RECORDS] [--docs DIR]`.

Every number on the page is computed here. Rates are medians over the rounds with the least and the most; ratios are
taken within each round, where both sides had the same machine, and then their median.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import goals, plots
from benchmarks.peers import CONTESTANTS
from benchmarks.records import Records

HERE = Path(__file__).parent
TITLES = {
    "long": "One long video",
    "clips": "Many short clips",
    "images": "Many images",
    "mix": "One long video among short clips",
}
INTRODUCTION = """\
# Benchmarks

This page compares rigflow with what you could use instead, and with the limits of the hardware; it shows what rigflow
costs, and whether that grows in proportion to the work. `make bench` measures it on your machine in under 20 minutes.
`python -m benchmarks --add` adds rounds: on a busy machine a ratio of few rounds is exact only to about 10 %.
`python -m benchmarks.pairs pool images` measures one workload of one contestant beside rigflow. `python -m
benchmarks.report` makes this page from the records (`benchmarks/results/bench.jsonl`); no number is written by hand.
"""
METHOD = """\
## How it is measured

- Each contestant is one small file in `benchmarks/peers/`, written as its project's documentation recommends. Each runs
  in a process of its own, in turn with the others; there are several rounds, and figures are medians (least to most).
  *rigflow against it* is the median of the ratios within the rounds.
- All get the same files and write the same files, as `rigflow run` does. Before the measurement each contestant answers
  the same media twice, and its answers are compared with those of the plain script, which decodes, samples and batches
  by code of its own; a contestant with other answers is left out. Answers to whole workloads are compared with each
  other afterwards.
- All contestants but the script decode, resize, infer and encode by rigflow's own functions, so that they differ only
  in how work and answers travel. Peers get whole files, or segments that rigflow's splitter cut, which their
  documentation does not suggest (reading and cutting is inside their time).
- The time is from the first file read to the last file written, on processes that are started and warm. Ray Data starts
  its actors again for each data set, so this is inside its figure. A contestant that is far slower than rigflow takes
  part in the first round only, and has no least and most here.
- CPU seconds are those of all processes, broker and client included. Memory is the sum of each process's own peak since
  the start of the time; pages that processes share count once for each. Bytes through a broker are the server's own
  count, in and out.
- Limits are measured in the same rounds: decoding alone in one process with frame threads, and in two without, which
  leave out frames that no window uses, as rigflow does; the model alone on pixels that are in memory; one copy of the
  raw frames.
- All is on one machine, with loopback and a warm page cache; failures, real networks and GPUs are not measured here
  ([gpus.md](gpus.md) has GPUs).
"""


def page(records: Records) -> str:
    """The whole page."""
    parts = [INTRODUCTION, machine(records), goals.section(records), "![rates](benchmarks-rates.svg)\n"]
    parts += [workload(records, name) for name in TITLES]
    parts += [roles(records), latency(records), cold(records), pipelines(records), scale(records)]
    parts += [sweep(records), changes(records), skipped(records), METHOD]
    return "\n".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, the others to the right."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([' --- ', *[' ---: '] * (len(head) - 1)])}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median (least to most)."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def machine(records: Records) -> str:
    """The machine, the versions and the workloads."""
    run, ends = records.one("run"), records.of("end")
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    sizes = run["sizes"]
    minutes = " and ".join(f"{end['minutes']:.0f}" for end in ends)
    return (
        f"Measured on {run['cores']} cores of {run['processor']}, {run['memory_gb']} GB, {run['system']}, without a "
        f"GPU, at a load of {run['load']:.1f} before it began; {records.rounds} rounds in {minutes} minutes. "
        f"{versions}.\n\n"
        "Work: the pipeline `fingerprint` (five pictures a second, 32x32 gray, a tiny model), unless said otherwise. "
        f"*Long* is {sizes['long_s']:g} s of 1280x720 with a keyframe every 5 s, *clips* are {sizes['clips']} clips of "
        f"two seconds, half 1280x720 and half 640x272, *images* are {sizes['images']:,} jpegs of 1280x720, *mix* is "
        f"the long video amid {sizes['small']} clips.\n"
    )


def workload(records: Records, name: str) -> str:
    """The main table of a workload."""
    unit = "images/s" if name == "images" else "frames/s"
    rows = []
    for contestant, about in CONTESTANTS.items():
        found = records.timed(contestant, name)
        if not found:
            continue
        ratios = records.ratios("rigflow", contestant, name, "rate")
        against = "" if contestant == "rigflow" else spread(ratios, 2)
        title = f"*limit: {about.title}*" if about.limit else about.title
        title = f"**{title}**" if contestant == "rigflow" else title
        rows.append(
            [
                title,
                spread([record["rate"] for record in found]),
                against,
                _median(found, "cpu_s_per_1000", 2),
                _median(found, "peak_bytes", 0, 1e6),
                "" if about.limit else _median(found, "first_s", 2),
                _median(found, "broker_bytes", 1, 1e6) if any(record["broker_bytes"] for record in found) else "",
            ]
        )
    head = [name, unit, "rigflow against it", "CPU s per 1,000", "peak MB", "first result s", "MB through a broker"]
    return f"## {TITLES[name]}\n\n{table(head, rows)}" if rows else ""


def _median(found: Sequence[dict[str, Any]], figure: str, digits: int, unit: float = 1.0) -> str:
    values = [record[figure] / unit for record in found if figure in record]
    return f"{median(values):,.{digits}f}" if values else ""


def roles(records: Records) -> str:
    """The cost of each of rigflow's processes, and of the whole pool."""
    named = {"workers": "workers", "publisher": "the client, which publishes and collects", "broker": "broker"}
    rows = []
    for name in (*TITLES, "clip"):
        measured = records.timed("rigflow", name)
        if found := [record["cpu_s_per_1000_by_role"] for record in measured if "cpu_s_per_1000_by_role" in record]:
            cells = [f"{median(each.get(role, 0.0) for each in found):.2f}" for role in named]
            rows.append([name, *cells, _median(records.timed("pool", name), "cpu_s_per_1000", 2)])
    head = ["CPU s per 1,000", *named.values(), "the whole pool"]
    return f"## Where rigflow's CPU goes\n\n{table(head, rows)}" if rows else ""


def latency(records: Records) -> str:
    """One short clip on an idle, warm system."""
    rows = []
    for contestant, about in CONTESTANTS.items():
        if found := records.timed(contestant, "clip"):
            ratios = records.ratios("rigflow", contestant, "clip", "p50_ms")
            p50, p99 = (spread([record[which] for record in found]) for which in ("p50_ms", "p99_ms"))
            against = "" if contestant == "rigflow" else spread(ratios, 2)
            rows.append(["limit: " * about.limit + about.title, p50, p99, against, _median(found, "cpu_s_per_1000", 2)])
    if not rows:
        return ""
    runs = len(records.timed("rigflow", "clip")[0]["seconds"])
    head = ["one clip of 5 s", "p50 ms", "p99 ms", "rigflow's p50 against it", "CPU s per 1,000 frames"]
    note = f"Each round has {runs} runs, one after the other; with so few, p99 is nearly the slowest.\n"
    return f"## Latency of a single clip on the idle, warm system\n\n{table(head, rows)}\n{note}"


def cold(records: Records) -> str:
    """Whole commands."""
    found = [record for record in records.of("cold") if not record["why"]]
    taken: dict[str, list[float]] = {}
    for record in found:
        taken.setdefault(record["contestant"], []).append(record["seconds"])
    rows = [[CONTESTANTS[name].title, spread(seconds, 2)] for name, seconds in taken.items()]
    return (
        f"## The whole command, from the start of its process\n\n{table(['the long video', 'seconds'], rows)}"
        if rows
        else ""
    )


def pipelines(records: Records) -> str:
    """The other pipelines."""
    keys = {(r["pipeline"], r["contestant"]) for r in records.of("timed") if r["pipeline"] != "fingerprint"}
    lines = []
    for pipeline, name in sorted(keys):
        found = records.timed(name, "small", pipeline)
        ratios = records.ratios("rigflow", name, "small", "rate", pipeline)
        cells = [spread([each["rate"] for each in found]), "" if name == "rigflow" else spread(ratios, 2)]
        cells += [_median(found, "cpu_s_per_1000", 2), _median(found, "peak_bytes", 0, 1e6)]
        lines.append([f"{pipeline}: {CONTESTANTS[name].title}", *cells])
    if not lines:
        return ""
    items = records.timed("rigflow", "small", pipeline)[0]["items"]
    head = [f"{items} frames of 176x144", "frames/s", "rigflow against it", "CPU s per 1,000", "peak MB"]
    about = f"The model of `clip-features` was {records.one('run')['clip-features']}.\n"
    return f"## Other pipelines\n\n{table(head, lines)}\n{about}"


def scale(records: Records) -> str:
    """Whether the cost grows in proportion to the work."""
    parts = ["## Does the cost grow in proportion to the work?\n\n![scale](benchmarks-scale.svg)\n"]
    queued = sorted({record["workload"] for record in records.of("queued")}, key=lambda name: int(name.split("-")[1]))
    rows = []
    for name in queued:
        by = {record["contestant"]: record for record in records.of("queued") if record["workload"] == name}
        cells = [f"{by[who]['cpu_s_per_1000']:.2f}" if who in by else "-" for who in ("rigflow", "pool")]
        rates = [f"{by[who]['rate']:,.0f}" if who in by else "-" for who in ("rigflow", "pool")]
        rows.append([f"{int(name.split('-')[1]):,}", *cells, *rates])
    head = ["clips queued (176x144, 30 frames)", "CPU s per 1,000 frames", "the pool's", "frames/s", "the pool's"]
    parts.append(table(head, rows) + "\n" + growth(records, queued))
    if workers := records.of("workers"):
        one = workers[0]["rate"] / workers[0]["workers"]
        rows = [
            [f"{r['workers']}", f"{r['rate']:.1f}", f"{r['rate'] / r['workers'] / one:.3f}", f"{r['cores']:.2f}"]
            for r in workers
        ]
        head = [f"workers of {workers[0]['pace_ms']:.0f} ms a segment", "segments/s", "of N times one", "cores busy"]
        parts.append(table(head, rows) + "\n" + crowding(records))
    if depth := records.of("depth"):
        rows = [
            [f"{r['queued']:,}", *(f"{r[name]:,.0f}" for name in ("publish_rate", "fetch_rate"))]
            + [f"{r[name] / 1e6:.0f}" for name in ("server_bytes", "server_bytes_fetching")]
            for r in depth
        ]
        head = ["parts queued", "published/s", "fetched/s", "server MB", "while fetching"]
        parts.append(table(head, rows) + f"\nThe idle server holds {depth[0]['idle_bytes'] / 1e6:.0f} MB.\n")
    if queues := records.of("queue_cost"):
        rows = [[f"{r['bytes'] / 1024:,.0f} KB", f"{r['in_process_ms']:.3f}", f"{r['between_ms']:.3f}"] for r in queues]
        head = ["CPU ms to move a part of", "within a process", "through the broker"]
        parts.append(table(head, rows))
    return "\n".join(parts)


def crowding(records: Records) -> str:
    """Why many workers on one machine are less than N times one."""
    most, cores = records.of("workers")[-1], records.one("run")["cores"]
    return (
        f"These workers only wait, so that any number fits on {cores} cores until moving segments fills those: "
        f"{most['workers']} workers keep {most['cores']:.2f} cores busy. Workers on machines of their own do not share "
        "them.\n"
    )


def growth(records: Records, queued: Sequence[str]) -> str:
    """How the cost of a frame changes with the number of queued clips."""
    costs = {r["workload"]: r["cpu_s_per_1000"] for r in records.of("queued") if r["contestant"] == "rigflow"}
    if len(costs) < 2 or not costs[queued[0]]:
        return ""
    least, before, most = queued[0], queued[-2], queued[-1]
    return (
        f"A frame of {most.split('-')[1]} queued clips costs {costs[most] / costs[before]:.2f} times that of "
        f"{before.split('-')[1]}, and {costs[most] / costs[least]:.2f} times that of {least.split('-')[1]}. A run "
        "has costs of its own (connecting, streams, the pipeline and its model), which few clips share.\n"
    )


def sweep(records: Records) -> str:
    """The settings of the peers that were tried."""
    found = records.of("sweep")
    best = records.kept()
    rows = []
    for record in found:
        settings = ", ".join(f"{name} {value}" for name, value in record["options"].items())
        kept = "kept" if record["options"] == best[record["contestant"]] else ""
        rows.append([CONTESTANTS[record["contestant"]].title, settings, f"{record['rate']:,.0f}", kept])
    head = ["settings that were tried on the long video", "", "frames/s", ""]
    return f"## Settings of the peers\n\n{table(head, rows)}" if rows else ""


def changes(records: Records) -> str:
    """The changes of rigflow after these figures, and what each changed."""
    rows = [
        [r["what"], r["figure"], spread(r["before"], r["digits"]), spread(r["after"], r["digits"])]
        for r in records.of("change")
    ]
    head = ["change", "figure", "before", "after"]
    about = "Both sides in turn on the same machine, not the one run of the tables above.\n"
    return f"## What these figures led to\n\n{table(head, rows)}\n{about}" if rows else ""


def skipped(records: Records) -> str:
    """The contestants that were left out, and why."""
    lines = list(
        dict.fromkeys(
            f"- {r['contestant']}, {r['pipeline']} of {r['workload']}: {r['why']}" for r in records.of("skipped")
        )
    )
    return "## Left out\n\n" + "\n".join(lines) + "\n" if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="?", default=HERE / "results" / "bench.jsonl")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    options = parser.parse_args()
    given = [*options.records.parent.glob("change*.jsonl"), options.records]
    records = Records.read(*given)
    (options.docs / "benchmarks.md").write_text(page(records))
    plots.rates(records, options.docs / "benchmarks-rates.svg")
    plots.scale(records, options.docs / "benchmarks-scale.svg")


if __name__ == "__main__":
    main()
