"""`watch` over a folder where people are at work, with the watcher killed again and again: each content once, and
nothing of theirs is touched."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.workloads import looped
from engines.part import Array
from pipelines.broker import Broker
from pipelines.job_records import all_manifests
from pipelines.registry import builtin_pipeline
from schemas.jobs import JobState
from schemas.settings import MIB
from tests.cli import Running
from tests.faults.people import PAUSE_S, People
from tests.fleet import ONE_WORKER, Fleet
from tests.rig import eventually

QUIET_S = 1.5
GENEROUS_S = 120.0
SPEC = builtin_pipeline("fingerprint")


class Watcher:
    """`rigflow watch`, which somebody kills and starts again."""

    def __init__(self, fleet: Fleet, folder: Path, out: Path) -> None:
        self.lives = 0
        self.output: list[str] = []
        settings = out.with_suffix(".toml")
        settings.write_text(f'nats = "{fleet.settings.nats}"\nqueue_bytes = {fleet.settings.queue_bytes}\n')
        self._command = ("watch", "fingerprint", folder, "--out", out, "--quiet", str(QUIET_S), "--settings", settings)
        self._running: Running | None = None

    def start(self) -> None:
        self._running = Running(*self._command)
        self._running.__enter__()
        self.lives += 1

    def end(self, number: signal.Signals) -> int:
        assert self._running is not None
        code = self._running.end(number)
        self._running.__exit__(None, None, None)
        self.output.append(self._running.output)
        return code


def ledger(out: Path) -> dict[str, Any]:
    """`files`: name -> digest; `contents`: digest -> files and failures."""
    path = out / ".rigflow-fingerprint.db"
    if not path.exists():
        return {"files": {}, "contents": {}}
    with closing(sqlite3.connect(path, timeout=30)) as database:
        try:
            files = dict(database.execute("SELECT name, digest FROM files").fetchall())
            rows = database.execute("SELECT digest, files, failures FROM contents").fetchall()
        except sqlite3.OperationalError:  # it is being made
            return {"files": {}, "contents": {}}
    contents = {digest: {"files": json.loads(names), "failures": json.loads(why)} for digest, names, why in rows}
    return {"files": files, "contents": contents}


def descriptors(path: Path) -> Array:
    with np.load(path) as found:
        return np.array(found["descriptor"])


def assert_results(fleet: Fleet, people: People, out: Path, again: Path) -> None:
    """Each content that is there has the result that a plain run of its file gives."""
    pages = ledger(out)
    one_of = {digest: name for name, digest in people.digests().items()}
    for digest, name in one_of.items():
        outcome = pages["contents"][digest]
        assert not outcome["failures"], (name, outcome)
        (plain,) = fleet.run(SPEC, [people.folder / name], again / digest)
        assert plain.done is not None, plain.error
        expected = descriptors(again / digest / plain.done.files[0])
        np.testing.assert_array_equal(descriptors(out / outcome["files"][0]), expected, err_msg=name)


async def rounds(fleet: Fleet, kills: int) -> tuple[int, int]:
    """How many jobs there were, and how many were started again.

    All are done, but for those of contents that somebody wrote over while their watcher was dead.
    """
    broker = await Broker.connect(fleet.settings)
    manifests = await all_manifests(broker)
    await broker.close()
    assert sum(manifest.state is not JobState.DONE for manifest in manifests) <= kills
    return len(manifests), sum(manifest.job.generation > 0 for manifest in manifests)


@pytest.mark.parametrize(
    ("acts", "kills"), [(8, 1), pytest.param(150, 20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_each_content_once_and_no_source_touched(acts: int, kills: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    chance = random.Random(seed)
    people, out = People(tmp_path / "folder", tmp_path / "outside", chance), tmp_path / "out"
    deadly = set(chance.sample(range(acts), kills))
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=3.0) as fleet:
        watcher = Watcher(fleet, people.folder, out)
        watcher.start()
        for number in range(acts):
            people.act()
            time.sleep(chance.uniform(0.0, 2 * PAUSE_S))
            if number in deadly:
                watcher.end(signal.SIGKILL)
                watcher.start()
        wanted = people.digests()
        eventually(lambda: known(out) == wanted, GENEROUS_S)
        assert watcher.end(signal.SIGTERM) == 0
        assert people.files() == people.stamps, "a source is not as it was left"
        jobs, anew = asyncio.run(rounds(fleet, kills))
        assert_results(fleet, people, out, tmp_path / "again")
    pages = ledger(out)
    named = [file for outcome in pages["contents"].values() for file in outcome["files"]]
    made = len(list(out.rglob("*.npz")))
    assert not list(out.rglob("*.part"))
    if people.longest_pause_s < QUIET_S / 2:  # nobody kept a file half-written for so long that it seemed whole
        assert not [outcome for outcome in pages["contents"].values() if outcome["failures"]]
    left = made - len(named)  # of files that were renamed since, and done again under their new names
    assert 0 <= left <= kills + sum(act.startswith("rename") for act in people.did)
    contents = len(set(wanted.values()))
    print(f"\nwatch, seed {seed}: {acts} acts, {watcher.lives - 1} kills; {len(wanted)} files of {contents} contents,")
    print(f"each done, in {jobs} jobs, of which {anew} started again; no source touched;")
    print(f"{left} results under names that files had before")


def known(out: Path) -> dict[str, str]:
    """Digest of each file as the ledger has it."""
    return {name: digest for name, digest in ledger(out)["files"].items() if (out.parent / "folder" / name).exists()}


async def reasons_of(fleet: Fleet) -> list[str]:
    broker = await Broker.connect(fleet.settings)
    found = [reason for manifest in await all_manifests(broker) for reason in manifest.reasons]
    await broker.close()
    return found


async def queued_bytes(fleet: Fleet) -> int:
    broker = await Broker.connect(fleet.settings)
    info = await broker.api_unless_gone("STREAM.INFO.RIGFLOW_WORK_fingerprint_decode")
    await broker.close()
    return 0 if info is None else int(info["state"]["bytes"])


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[tuple[Fleet, People, Watcher]]:
    """A watcher in the middle of sending clip.mp4, with a queue that is full and nobody who works."""
    first = looped(tmp_path / "first.mp4", 40, "carphone_pristine")
    people = People(tmp_path / "folder", tmp_path / "outside", random.Random(1))
    with Fleet((), tmp_path / "cache", queue_bytes=MIB) as fleet:
        watcher = Watcher(fleet, people.folder, tmp_path / "out")
        watcher.start()
        shutil.copy(first, people.folder / "clip.mp4")
        eventually(lambda: asyncio.run(queued_bytes(fleet)) > MIB // 2, GENEROUS_S)
        time.sleep(1.0)
        yield fleet, people, watcher
        assert watcher.end(signal.SIGTERM) == 0
        print("\n" + "".join(watcher.output))
        assert people.files() == people.stamps


@pytest.mark.slow
def test_a_file_written_again_while_it_is_sent(sending: tuple[Fleet, People, Watcher], tmp_path: Path) -> None:
    """Its first content, when it comes back under another name, is not mixed up with the second."""
    fleet, people, _ = sending
    first, out = tmp_path / "first.mp4", tmp_path / "out"
    changed = bytearray(first.read_bytes())
    for place in range(len(changed) // 3, 9 * len(changed) // 10, 5000):
        changed[place] ^= 0xFF
    with (people.folder / "clip.mp4").open("r+b") as file:
        file.write(changed)
    people.left("clip.mp4")
    fleet.add()
    eventually(lambda: known(out) == people.digests(), GENEROUS_S)
    reasons = asyncio.run(reasons_of(fleet))
    shutil.copy(first, people.folder / "back.mp4")
    people.left("back.mp4")
    eventually(lambda: known(out) == people.digests(), GENEROUS_S)
    assert_results(fleet, people, out, tmp_path / "again")
    assert any("changed while it was read" in reason for reason in reasons), "a mix of both was taken for the first"


@pytest.mark.slow
def test_a_file_moved_while_it_is_sent(sending: tuple[Fleet, People, Watcher], tmp_path: Path) -> None:
    """It was open, so it is whole; it has its result under its new name too."""
    fleet, people, _ = sending
    out = tmp_path / "out"
    (people.folder / "clip.mp4").rename(people.folder / "deep" / "moved.mp4")
    people.left("deep/moved.mp4")
    fleet.add()
    eventually(lambda: known(out) == people.digests(), GENEROUS_S)
    assert_results(fleet, people, out, tmp_path / "again")
    assert sorted(path.name for path in out.rglob("*.npz")) == ["clip.fingerprint.npz", "moved.fingerprint.npz"]
