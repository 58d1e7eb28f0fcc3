"""Runs all benchmarks: `python -m benchmarks [--short | --add] [--minutes 19] [--results FILE]`.

It first measures what is beside the main tables (settings of the peers, cold commands, other pipelines, scale). Then it
makes rounds of all contestants in turn while there is time for another one. `--add` makes only rounds, and adds them to
the records. Each measurement is a line of json; `python -m benchmarks.report` makes a page of them.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import machine
from benchmarks.contest import Order
from benchmarks.peers import CONTESTANTS, SAME_SETTINGS
from benchmarks.records import Records
from benchmarks.runner import Runner
from benchmarks.workloads import Sizes
from engines.models.catalogue import own_model, save_model
from schemas.errors import ModelError
from tests.nets import small_x3d

T = TypeVar("T")
RESULTS = Path(__file__).parent / "results" / "bench.jsonl"
ROUNDS = 5
LONG_A_ROUND, CLIPS_A_ROUND = 2, 15
SHARE_OF_LAST = 1.05  # of the last round's time: another round is begun if as much time is left
LIMIT_S, SHORT_LIMIT_S = 180.0, 3600.0  # a check that all runs also passes on a machine that is slow or stalls
LATENCY = ("script", "script-tuned", "pool", "mosec", "queue", "rigflow", "decode-2")
PIPELINES = ("scenes", "upscale2x", "clip-features")
TABLES: dict[str, tuple[str, ...]] = {  # the contestants of each table, in this order
    "long": tuple(CONTESTANTS),
    "clips": ("script-tuned", "pool", "mosec", "queue", "rigflow", "decode-2"),
    "images": ("script-tuned", "pool", "ray", "mosec", "queue", "rigflow", "decode-2"),
    "mix": ("pool-files", "pool", "mosec", "queue-files", "queue", "rigflow", "decode-2"),
}


@dataclass(slots=True)
class Bench:
    """One run of the benchmarks; `few` for a check that all still runs."""

    runner: Runner
    sizes: Sizes
    few: bool
    chosen: dict[str, dict[str, object]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def order(self, contestant: str, pipeline: str, *workloads: tuple[str, int], **more: Any) -> Order:
        """An order with the settings that were found best."""
        options = self.chosen.get(SAME_SETTINGS.get(contestant, contestant), {})
        folder = str(self.runner.folder)
        return Order(contestant, pipeline, workloads, folder, "", **{"options": options, "sizes": self.sizes, **more})

    def contest(self, order: Order, kind: str, **about: Any) -> list[dict[str, Any]]:
        """Measure a contestant. A failure is an error, unless the contestant is a package's, which may not run here."""
        records = self.runner.contest(order, kind, **about)
        if len(records) < len(order.workloads) and not CONTESTANTS[order.contestant].needs:
            self.wrong.append(f"{order.contestant} is left out of {order.pipeline}")
        return records

    def reference(self) -> None:
        """Make the script's answers, with which all others are compared."""
        for pipeline in ("fingerprint", *PIPELINES):
            small = pipeline != "fingerprint"
            workloads = [("small", 1)] if small else [("clip", 1), ("images", 1)]
            if not self.runner.contest(self.order("script", pipeline, *workloads, reference=True), "reference"):
                sys.exit(f"the script has no answers for {pipeline}: the others cannot be compared")

    def sweep(self) -> None:
        """Try each peer's settings, one after the other on the long video; the best are kept."""
        print(f"{'sweep':14} {'frames/s':>9}  settings")
        found: list[dict[str, Any]] = []
        for name, contestant in CONTESTANTS.items():
            for options in contestant.sweep:
                order = self.order(name, "fingerprint", ("long", 2), options=dict(options))
                for record in self.runner.contest(order, "sweep"):
                    print(f"{name:14} {record['rate']:9.0f}  {dict(options)}", flush=True)
                    found.append(record)
        self.chosen = Records(found).kept()

    def cold(self) -> None:
        """Measure commands from the start of their process to their files."""
        video = self.order("pool", "fingerprint", ("long", 1), cold=True)
        for turn in range(1 if self.few else 3):
            for name in ("pool", "rigflow"):
                began = time.perf_counter()
                if name == "rigflow":
                    out = self.runner.folder / f"cold-{turn}"
                    arguments = ["run", "fingerprint", str(self.runner.folder / long_name(self.sizes))]
                    why = self.runner.process("cli", [*arguments, "--workers", "2", "--out", str(out)])
                else:
                    order = self.order(name, "fingerprint", *video.workloads, cold=True)
                    why = self.runner.process("benchmarks.contest", [order.json()])
                taken = time.perf_counter() - began
                self.runner.keep({"kind": "cold", "round": turn, "contestant": name, "seconds": taken, "why": why})
                self.wrong += [f"cold command of {name}: {why}"] if why else []

    def pipelines(self) -> None:
        """Measure the other pipelines on a small clip."""
        for turn in range(1 if self.few else 2):
            for pipeline in PIPELINES:
                for name in ("rigflow",) if self.few else ("script-tuned", "pool", "rigflow"):
                    self.contest(self.order(name, pipeline, ("small", 1)), "timed", round=turn)

    def scale(self) -> None:
        """Measure how cost grows with clips queued, workers, and parts queued."""
        counts = ((1, 3), (10, 2), (30, 1)) if self.few else ((1, 20), (10, 5), (100, 2), (1000, 1))
        workloads = [(f"queued-{count}", repeats) for count, repeats in counts]
        for name in ("rigflow",) if self.few else ("pool", "rigflow"):
            self.contest(self.order(name, "fingerprint", *workloads), "queued")
        line = self.runner.folder / "scale.jsonl"
        parts = ["--parts", "2000" if self.few else "100000", "--json", str(line)]
        fleet = ["scale", "--json", str(line), "--seconds", "1" if self.few else "3"]
        fleet += ["--counts", *(["1", "2"] if self.few else ["1", "2", "4", "8", "16", "32"])]
        queue_cost = ["--json", str(line), "--rounds", "1" if self.few else "5"]
        for module, arguments in (("depth", parts), ("queue_cost", queue_cost), ("fleet", fleet)):
            if why := self.runner.process(f"benchmarks.{module}", arguments):
                self.wrong.append(f"benchmarks.{module}: {why}")
        if line.exists():
            self.runner.append(line)

    def round(self, turn: int) -> float:
        """Measure all contestants in turn, workload by workload; the seconds of those in the next round."""
        again_s = 0.0
        for workload, names in TABLES.items():
            found: dict[str, dict[str, float]] = {}
            for name in names:
                contestant = CONTESTANTS[name]
                if turn >= contestant.rounds:
                    continue
                workloads = [(workload, LONG_A_ROUND if workload == "long" else 1)]
                if workload == "long" and name in LATENCY:
                    workloads.append(("clip", CLIPS_A_ROUND))
                began = time.monotonic()
                self._timed(name, workloads, turn, {workload: found})
                again_s += time.monotonic() - began if turn + 1 < contestant.rounds else 0.0
            self._compare(workload, found)
        return again_s

    def few_of_all(self) -> None:
        """Run every peer that is given segments over all its workloads, once, in one process for each."""
        found: dict[str, dict[str, dict[str, float]]] = {workload: {} for workload in TABLES}
        for name, contestant in CONTESTANTS.items():
            if contestant.takes == "files":
                continue
            tables = ["long"] if contestant.rounds == 1 else TABLES
            workloads = [(workload, 1) for workload in tables if name in TABLES[workload]]
            self._timed(name, [*workloads, *([("clip", 2)] if name in LATENCY else [])], 0, found)
        for workload, answers in found.items():
            self._compare(workload, answers)

    def _timed(
        self, name: str, workloads: list[tuple[str, int]], turn: int, found: dict[str, dict[str, dict[str, float]]]
    ) -> None:
        """Run one process; the summaries of its answers go into `found`, by workload and contestant."""
        for record in self.contest(self.order(name, "fingerprint", *workloads), "timed", round=turn):
            print(f"  {record['workload']:7} {name:13} {record['rate']:9,.0f}/s", flush=True)
            if record["workload"] in found and "answers" in record:
                found[record["workload"]][name] = record["answers"]

    def _compare(self, workload: str, found: dict[str, dict[str, float]]) -> None:
        self.wrong += disagreements(workload, found)


def disagreements(workload: str, found: dict[str, dict[str, float]]) -> list[str]:
    """A line for each contestant whose answers to a whole workload differ from the others'."""
    names = list(found)
    return [
        f"{name} answers {workload} differently from {names[0]}"
        for name in names[1:]
        if found[name]["rows"] != found[names[0]]["rows"]
        or abs(found[name]["mean"] - found[names[0]]["mean"]) > 1e-4 * (1 + abs(found[names[0]]["mean"]))
    ]


def long_name(sizes: Sizes) -> str:
    """The file name of the long video."""
    return f"long-{sizes.long_s:g}.mp4"


def bring_model(folder: Path) -> str:
    """Write the model of clip-features into a folder: the user's, or a small one of random weights; returns which."""
    try:
        model, about = own_model("x3d_s"), "the user's own x3d_s"
    except ModelError:
        model, about = small_x3d(), "a small network of X3D's kind with random weights"
    save_model(folder, *model)
    return about


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--short", action="store_true", help="a small run of everything, once, as a check")
    which.add_argument("--add", action="store_true", help="add rounds to the records of an earlier run")
    parser.add_argument("--minutes", type=float, default=19.0, help="no round is begun that would end later")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the most rounds of this run")
    parser.add_argument(
        "--results", type=Path, help="file of the records, written anew without --add (default: with --short, none)"
    )
    usual = Sizes()
    parser.add_argument("--long-s", type=float, default=usual.long_s, help="seconds of the long video")
    parser.add_argument("--images", type=int, default=usual.images)
    parser.add_argument("--clips", type=int, default=usual.clips)
    parser.add_argument("--small", type=int, default=usual.small, help="clips beside the long video in `mix`")
    options = parser.parse_args(arguments)
    if options.add and not (options.results or RESULTS).exists():
        parser.error(f"{options.results or RESULTS} is not there: make records without --add first")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where answers differ or a part of it did not run."""
    options = _options(arguments)
    began = time.monotonic()
    sizes = Sizes.few() if options.short else Sizes(options.long_s, options.images, options.clips, options.small)
    with tempfile.TemporaryDirectory(prefix="rigflow-bench-") as name:
        results = options.results or (Path(name) / "results.jsonl" if options.short else RESULTS)
        results.parent.mkdir(parents=True, exist_ok=True)
        limit_s = SHORT_LIMIT_S if options.short else LIMIT_S
        bench = Bench(Runner(Path(name), results, limit_s), sizes, options.short)
        model = bring_model(Path(name) / "models")
        first = 0
        if options.add:
            earlier = Records.read(results)
            bench.chosen, first = earlier.kept(), earlier.rounds
        else:
            results.write_text("")
            bench.runner.keep(
                {"kind": "run", **machine.described(), "sizes": sizes.described(), "clip-features": model}
            )
        _measure(bench, options, first, began)
        bench.runner.keep({"kind": "end", "minutes": (time.monotonic() - began) / 60, "wrong": bench.wrong})
    for each in bench.wrong:
        print(f"WRONG: {each}", file=sys.stderr)
    return 1 if bench.wrong else 0


def _measure(bench: Bench, options: argparse.Namespace, first: int, began: float) -> None:
    """Run the parts that the options choose, and the rounds from `first` on until the time is up."""

    def step(about: str, do: Callable[[], T]) -> T:
        print(f"{about}, after {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
        return do()

    step("the script's answers", bench.reference)
    if not options.short and not options.add:
        step("settings of the peers", bench.sweep)
    if not options.add:
        step("cold commands", bench.cold)
        step("other pipelines", bench.pipelines)
        step("scale", bench.scale)
    if options.short:
        step("all contestants", bench.few_of_all)
        return
    for turn in range(first, first + options.rounds):
        again_s = step(f"round {turn + 1}", partial(bench.round, turn))
        if time.monotonic() - began + SHARE_OF_LAST * again_s > 60 * options.minutes:
            break


if __name__ == "__main__":
    sys.exit(main())
