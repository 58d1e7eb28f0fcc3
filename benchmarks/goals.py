"""The goals of rigflow in comparison with its peers, and whether a run reached them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers import CONTESTANTS
from benchmarks.records import Records

FILE_PEERS = tuple(name for name, one in CONTESTANTS.items() if one.takes == "files" or one.module == "script")
SEGMENT_PEERS = tuple(name for name, one in CONTESTANTS.items() if one.queue and one.takes == "segments")
QUEUE_PEERS = tuple(name for name, one in CONTESTANTS.items() if one.queue and name != "rigflow")
POOL = ("pool",)
_ONE_CORE = (
    "a clip of one keyframe is decoded on one core, where the script's frame threads use both; rigflow does not use "
    "frame threads, because they give other pictures on damaged streams, also where the decoder reports no error, and "
    "no answer may depend on the machine"
)
_SHORT = "a job's first and last steps (its manifest, its subscription, its Done) weigh more the shorter the work is"
_COPIES = "a segment crosses the loopback twice and is written to the stream once, which the pool's pipe does once"
_DECODING = "decoding is nearly all of the work, and frame threads spread it over the cores as well"
_STARTS = "a broker, a fork server and a supervisor are started besides the workers"
_ALL = "each worker holds what a failure needs (two segments in hand), and the broker its streams"
_PARTS = "a part of some frames is a result of its own, which crosses the broker and is settled there"
_THIRD = (
    "the publisher and the broker are processes of their own, on the same two cores as the workers, whose computing "
    "threads take as much CPU as the pool's"
)


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of rigflow's `figure` to that of each of `peers`, the worst of which is to be `least` or `most`.

    `because` is the reason if it is not met.
    """

    what: str
    workload: str
    figure: str
    peers: Sequence[str]
    because: str
    least: float | None = None
    most: float | None = None
    pipeline: str = "fingerprint"

    def reached(self, records: Records) -> tuple[float, str] | None:
        """The worst ratio and its peer, or None where nothing was measured."""
        found: list[tuple[float, str]] = []
        for peer in self.peers:
            if ratios := self._ratios(records, peer):
                found.append((median(ratios), peer))
        if not found:
            return None
        return min(found) if self.least is not None else max(found)

    def _ratios(self, records: Records, peer: str) -> list[float]:
        if self.workload != "cold":
            return records.ratios("rigflow", peer, self.workload, self.figure, self.pipeline)
        by = {(r["contestant"], r["round"]): r["seconds"] for r in records.of("cold") if not r["why"]}
        turns = [turn for name, turn in by if name == peer]
        return [by["rigflow", turn] / by[peer, turn] for turn in turns if ("rigflow", turn) in by]


GOALS = (
    Goal("long video: rate, against every peer that takes files", "long", "rate", FILE_PEERS, _DECODING, least=1.5),
    Goal("long video: rate, against every peer handed segments", "long", "rate", SEGMENT_PEERS, _COPIES, least=1.0),
    Goal("long video: rate, against the pool without a broker", "long", "rate", POOL, _COPIES, least=0.97),
    Goal("short clips: rate, against every peer with a queue", "clips", "rate", QUEUE_PEERS, _SHORT, least=1.0),
    Goal("short clips: rate, against the pool", "clips", "rate", POOL, _SHORT, least=0.95),
    Goal("images: rate, against every peer with a queue", "images", "rate", QUEUE_PEERS, _THIRD, least=1.0),
    Goal("images: rate, against the pool", "images", "rate", POOL, _THIRD, least=0.97),
    Goal("upscale2x: rate, against the pool", "small", "rate", POOL, _PARTS, least=0.95, pipeline="upscale2x"),
    Goal("one clip on an idle system: p50, against the script", "clip", "p50_ms", ("script",), _ONE_CORE, most=1.15),
    Goal(
        "whole cold command: seconds, against the pool's", "cold", "seconds", POOL, "a broker is started too", most=1.5
    ),
    Goal("long video: CPU seconds, against the pool", "long", "cpu_s_per_1000", POOL, _COPIES, most=1.05),
    Goal("short clips: CPU seconds, against the pool", "clips", "cpu_s_per_1000", POOL, _SHORT, most=1.05),
    Goal("images: CPU seconds, against the pool", "images", "cpu_s_per_1000", POOL, _THIRD, most=1.05),
    Goal("long video: peak memory, against peers with a queue", "long", "peak_bytes", QUEUE_PEERS, _THIRD, most=1.0),
    Goal("long video: rate, against decoding alone", "long", "rate", ("decode-2",), _COPIES, least=0.9),
    Goal("short clips: rate, against decoding alone", "clips", "rate", ("decode-2",), _SHORT, least=0.9),
    Goal("images: rate, against decoding alone", "images", "rate", ("decode-2",), _THIRD, least=0.9),
)


def _room(records: Records, goal: Goal, peer: str) -> str:
    """The best possible ratio: what decoding alone reaches against the same peer."""
    if goal.figure not in ("rate", "p50_ms") or peer == "decode-2":
        return ""
    limits = records.ratios("decode-2", peer, goal.workload, goal.figure, goal.pipeline)
    return f" (decoding alone reaches {median(limits):.2f})" if limits else ""


def section(records: Records) -> str:
    """The goals as a table, and the reasons for those that are not met."""
    lines = ["## Goals\n", "| goal | wanted | reached | against | |", "| --- | --- | ---: | --- | --- |"]
    held: dict[str, list[str]] = {}
    for goal in GOALS:
        wanted = f"at least {goal.least}" if goal.least is not None else f"at most {goal.most}"
        reached = goal.reached(records)
        if reached is None:
            lines.append(f"| {goal.what} | {wanted} | - | | not measured |")
            continue
        ratio, peer = reached
        shown = round(ratio, 2)  # rounds differ by more than what this takes away
        met = shown >= goal.least if goal.least is not None else goal.most is not None and shown <= goal.most
        lines.append(f"| {goal.what} | {wanted} | {ratio:.2f} | {peer} | {'met' if met else '**not met**'} |")
        if not met:
            held.setdefault(goal.because, []).append(goal.what + _room(records, goal, peer))
    reasons = [f"- {'; '.join(what)}: {because}." for because, what in held.items()]
    return "\n".join([*lines, "", *(["Reasons for those that are not met:\n", *reasons, ""] if reasons else [])])
