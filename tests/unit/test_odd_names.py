"""Names as file systems and other programs make them, in everything that the command line prints."""

import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from cli import text as cli_text
from cli.cluster import _table
from cli.dead import _summary, describe
from cli.jobs import _rows
from cli.jobs import describe as describe_job
from cli.outcomes import facts_of, remarks, summary
from cli.progress import Progress
from cli.run_folder import folder_facts, folder_remarks, folder_summary
from cli.status import render, verdict
from cli.text import cell
from pipelines.broker import Stored
from pipelines.dead import Letter
from pipelines.status import FleetStatus, StreamStatus
from schemas.errors import MediaError
from schemas.jobs import JobRef, JobState, Key, Manifest
from schemas.results import Done, Failure
from schemas.text import printable
from workers.inputs import JobOutcome
from workers.tally import Tally

BRACKETS = ("[abc]", "[/", "[/]", "[red]", "[bold red]x[/bold red]", "\\[x]", "[link=x]y", "{x}", ":smile:")
ODD = (*BRACKETS, "-q", "--json", "a\nb", "a\tb", "\r", "größe.mp4", "中文", "\u202egpj.exe", "שלום.mp4", "\udcff.mp4")
NAMES = st.one_of(st.sampled_from((*ODD, "\x1b[2J", "\ud800")), st.text(st.characters(), min_size=1, max_size=20))
JOB = JobRef(id="j", pipeline="scenes", revision="0" * 16)


def printed(*made: RenderableType) -> str:
    """What our own console prints of it."""
    out = io.StringIO()
    console = cli_text._console(stderr=False)
    console = type(console)(file=out, width=10_000, markup=False, emoji=False, highlight=False)
    console.print(*made, sep="\n")
    return out.getvalue()


def job(name: str) -> Manifest:
    return Manifest(
        job=JOB, name=name, state=JobState.FAILED, created_s=1.0, reasons=(name,), failures=1, files=(name,)
    )


def outcome(name: str) -> JobOutcome:
    made = JobOutcome(name, JOB, [Path("x")], [], Path("out"))
    made.done = Done(job=JOB, segments=1, frames=1, lost=0, files=("file",), notes=(name,), failures=(name,))
    return made


def letter(name: str) -> Letter:
    failure = Failure(key=Key(job=JOB, segment=0), stage="infer", error=name, at_s=1.0)
    return Letter("RIGFLOW_DEAD", 1, failure, "rigflow.work.scenes.infer.bulk", Stored("s", 1, {}, b""))


def tally(name: str) -> Tally:
    return Tally(done=1, failed=[(name, name)], skipped=[(name, name)], notes={name: (name, 2)})


def fleet(name: str) -> FleetStatus:
    of = {"worker": name, "device": name, "stages": [name], "state": name, "why": name, "at_s": time.time()}
    counts = {"in_flight": 0, "failures": 1, "rss_bytes": 1, "done": []}
    gone = of | {"worker": f"gone {name}", "state": "down", "last_exit": name, "deaths": 1}
    rig = {"rig": name, "host": name, "state": name, "at_s": time.time(), "metrics": name, "workers": [gone]}
    worker = of | counts | {"gpu": {"name": name}, "declined": {name: name}}
    return FleetStatus(0, {name: "r"}, [], [worker], [rig], StreamStatus(), StreamStatus())


def progress_of(name: str) -> Progress:
    progress = Progress(Console(file=io.StringIO()))
    progress.planned([JobOutcome(name, JOB, [], [])])
    return progress


SHOWN: Mapping[str, Callable[[str], str]] = {
    "jobs": lambda name: printed(_rows([job(name)], time.time())),
    "a job": lambda name: "\n".join(text for _, text in describe_job(job(name), time.time())),
    "outcomes": lambda name: printed(summary([outcome(name)]), *remarks([outcome(name)])),
    "an outcome with an error": lambda name: printed(*remarks([JobOutcome(name, JOB, [], [], error=MediaError(name))])),
    "a folder": lambda name: printed(folder_summary(tally(name), Path("out")), *folder_remarks(tally(name))),
    "dead letters": lambda name: printed(_summary(letter(name), time.time())),
    "a dead letter": lambda name: "\n".join(text for _, text in describe(letter(name))),
    "the status": lambda name: printed(render(fleet(name), f"nats://{name}"), verdict(fleet(name))),
    "clusters": lambda name: printed(
        _table([{"cluster": 1, "media": [{"name": name, "similarity": 1.0, "duplicate_of": name, "offset_s": 0.0}]}])
    ),
    "progress": lambda name: printed(progress_of(name).shown(), cell(progress_of(name).line(time.monotonic()))),
}


def test_what_is_escaped() -> None:
    assert [printable(name) for name in ("[/", "größe", "a\nb", "\udcff", "\x1b[2J")] == [
        "[/", "größe", "a\\nb", "\\xff", "\\x1b[2J",
    ]  # fmt: skip


@pytest.mark.parametrize("what", SHOWN)
@given(name=NAMES)
def test_a_name_is_printed_as_it_is_and_cannot_move_the_cursor(what: str, name: str) -> None:
    """Where it is no line of a message of ours alone, it is there whole; nothing but line ends moves the cursor."""
    shown = SHOWN[what](name)
    assert shown.encode(), "it is UTF-8"
    plain = printable(name)
    if what != "progress" and plain == name and "://" not in name and "@" not in name:
        assert plain.strip() in shown.replace("\n", " ") or not plain.strip()
    assert not [each for each in shown if each != "\n" and printable(each) != each]


@given(NAMES)
def test_facts_for_programs_are_json(name: str) -> None:
    facts: list[dict[str, Any]] = [facts_of(outcome(name)), folder_facts(tally(name), Path("a"), Path("b"))]
    out = json.dumps(facts)
    out.encode("ascii")
    assert json.loads(out)[1]["failed"] == [{"file": name, "reason": name}]
