"""`watch` over a folder where people are at work, with the watcher killed again and again: each content once, and
nothing of theirs is touched."""

import asyncio
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.workloads import looped
from engines.part import Array
from pipelines.broker import Broker
from pipelines.jobs import all_manifests
from pipelines.registry import builtin_pipeline
from schemas.messages import JobState
from schemas.settings import MIB
from tests.cli import Running
from tests.clips import Clip, generated, still
from tests.fleet import ONE_WORKER, Fleet
from tests.rig import eventually

QUIET_S = 1.5
PAUSE_S = 0.15  # between the pieces of a file that is written slowly
GENEROUS_S = 120.0
SPEC = builtin_pipeline("fingerprint")


class People:
    """Whoever works in the folder: copies, moves, renames, writes slowly, writes again."""

    def __init__(self, folder: Path, outside: Path, chance: random.Random) -> None:
        self.folder = folder
        self.did: list[str] = []
        self.stamps: dict[str, tuple[int, ...]] = {}  # of all files, as we left them
        self.longest_pause_s = 0.0
        self._outside = outside
        self._chance = chance
        self._made = 0
        for name in (folder, outside, folder / "deep"):
            name.mkdir()

    def act(self) -> None:
        """Do something."""
        makers = (self._copy, self._move_in, self._write_slowly, self._finish_download)
        changers = (self._rename, self._copy_again, self._write_again)
        act: Callable[[], str] = self._chance.choice(makers + (changers if self.stamps else ()))
        self.did.append(f"{act.__name__.strip('_')} {act()}")

    def _new(self) -> tuple[str, bytes]:
        """A name that was never there, and a content that was never there."""
        self._made += 1
        if self._chance.random() < 0.3:
            clip = Clip(frames=self._chance.randrange(10, 60), seed=self._made)
            return f"clip {self._made}.mp4", generated(clip).read_bytes()
        return f"deep/{self._made}.png" if self._made % 3 else f"{self._made}.PNG", still("png", seed=self._made)

    def _copy(self) -> str:
        name, content = self._new()
        (self.folder / name).write_bytes(content)
        return self._left(name)

    def _move_in(self) -> str:
        name, content = self._new()
        beside = self._outside / Path(name).name
        beside.write_bytes(content)
        beside.rename(self.folder / name)
        return self._left(name)

    def _write_slowly(self) -> str:
        name, content = self._new()
        return self._slowly(name, content)

    def _finish_download(self) -> str:
        name, content = self._new()
        unfinished = self.folder / f"{name}.part"
        unfinished.write_bytes(content[: len(content) // 2])
        time.sleep(PAUSE_S)
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / name)
        return self._left(name)

    def _rename(self) -> str:
        before, after = self._any(), f"deep/renamed {len(self.did)}"
        after += Path(before).suffix
        (self.folder / before).rename(self.folder / after)
        del self.stamps[before]
        return f"{before} -> {self._left(after)}"

    def _copy_again(self) -> str:
        before = self._any()
        after = f"copy {len(self.did)}{Path(before).suffix}"
        shutil.copy2(self.folder / before, self.folder / after)
        return f"{before} -> {self._left(after)}"

    def _write_again(self) -> str:
        name = self._any()
        made, content = self._new()
        del self.stamps[name]
        if Path(made).suffix.lower() != Path(name).suffix.lower():
            (self.folder / name).unlink()
            name = made
        return self._slowly(name, content)

    def _any(self) -> str:
        return self._chance.choice(sorted(self.stamps))

    def _slowly(self, name: str, content: bytes) -> str:
        with (self.folder / name).open("wb") as file:
            for part in range(4):
                began_s = time.monotonic()
                file.write(content[part * len(content) // 4 : (part + 1) * len(content) // 4])
                file.flush()
                time.sleep(PAUSE_S)
                self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - began_s)
        return self._left(name)

    def _left(self, name: str) -> str:
        self.stamps[name] = stamp_of(self.folder / name)
        return name

    def files(self) -> dict[str, tuple[int, ...]]:
        """All files that are there now."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): stamp_of(path) for path in paths}

    def digests(self) -> dict[str, str]:
        """sha256 of every file by name."""
        return {name: sha256((self.folder / name).read_bytes()).hexdigest() for name in self.stamps}


def stamp_of(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode, int(sha256(path.read_bytes()).hexdigest(), 16)


class Watcher:
    """`rigflow watch`, which somebody kills and starts again."""

    def __init__(self, fleet: Fleet, folder: Path, out: Path) -> None:
        self.lives = 0
        self.said: list[str] = []
        settings = out.with_suffix(".toml")
        settings.write_text(f'nats = "{fleet.settings.nats}"\nhop_bytes = {fleet.settings.hop_bytes}\n')
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
        self.said.append(self._running.said)
        return code


def ledger(out: Path) -> dict[str, Any]:
    path = out / ".rigflow-watch-fingerprint.json"
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {"files": {}, "contents": {}}
    return found


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


async def rounds(fleet: Fleet) -> tuple[int, int]:
    """How many jobs there were, and how many were begun anew."""
    broker = await Broker.connect(fleet.settings)
    manifests = await all_manifests(broker)
    await broker.close()
    assert all(manifest.state is JobState.DONE for manifest in manifests)
    return len(manifests), sum(manifest.job.round > 0 for manifest in manifests)


@pytest.mark.parametrize(
    ("acts", "kills"), [(12, 1), pytest.param(150, 20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_each_content_once_and_no_source_touched(acts: int, kills: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("RIGFLOW_TEST_SEED", "1"))
    chance = random.Random(seed)
    people, out = People(tmp_path / "folder", tmp_path / "outside", chance), tmp_path / "out"
    deadly = set(chance.sample(range(acts), kills))
    with Fleet(ONE_WORKER, tmp_path / "cache", ack_wait_s=2.0) as fleet:
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
        jobs, anew = asyncio.run(rounds(fleet))
        assert_results(fleet, people, out, tmp_path / "again")
    pages = ledger(out)
    ever = set(pages["contents"])
    made = len(list(out.rglob("*.npz")))
    assert not list(out.rglob("*.part"))
    if people.longest_pause_s < QUIET_S / 2:  # nobody kept a file half-written for so long that it seemed whole
        assert not [outcome for outcome in pages["contents"].values() if outcome["failures"]]
    assert made <= len(ever)
    contents = len(set(wanted.values()))
    print(f"\nwatch, seed {seed}: {acts} acts, {watcher.lives - 1} kills; {len(wanted)} files of {contents} contents,")
    print(f"each done once, in {jobs} jobs, of which {anew} begun anew after a kill; no source touched")


def known(out: Path) -> dict[str, str]:
    """Digest of each file as the ledger has it."""
    return {
        name: digest for name, (_, digest) in ledger(out)["files"].items() if (out.parent / "folder" / name).exists()
    }


async def reasons_of(fleet: Fleet) -> list[str]:
    broker = await Broker.connect(fleet.settings)
    found = [reason for manifest in await all_manifests(broker) for reason in manifest.reasons]
    await broker.close()
    return found


async def queued_bytes(fleet: Fleet, stream: str) -> int:
    broker = await Broker.connect(fleet.settings)
    info = await broker.api_unless_gone(f"STREAM.INFO.{stream}")
    await broker.close()
    return 0 if info is None else int(info["state"]["bytes"])


@pytest.mark.slow
def test_a_file_written_again_while_it_is_sent(tmp_path: Path) -> None:
    """Its first content, when it comes back under another name, is not mixed up with the second."""
    first = looped(tmp_path / "first.mp4", 40, "carphone_pristine")
    changed = bytearray(first.read_bytes())
    for place in range(len(changed) // 3, 9 * len(changed) // 10, 5000):
        changed[place] ^= 0xFF
    people, out = People(tmp_path / "folder", tmp_path / "outside", random.Random(1)), tmp_path / "out"
    with Fleet((), tmp_path / "cache", hop_bytes=MIB) as fleet:
        watcher = Watcher(fleet, people.folder, out)
        watcher.start()
        shutil.copy(first, people.folder / "clip.mp4")
        stream = "RIGFLOW_WORK_fingerprint_decode"
        eventually(lambda: asyncio.run(queued_bytes(fleet, stream)) > MIB // 2, GENEROUS_S)
        time.sleep(1.0)
        with (people.folder / "clip.mp4").open("r+b") as file:
            file.write(changed)
        people._left("clip.mp4")
        fleet.add()
        eventually(lambda: known(out) == people.digests(), GENEROUS_S)
        reasons = asyncio.run(reasons_of(fleet))
        shutil.copy(first, people.folder / "back.mp4")
        people._left("back.mp4")
        eventually(lambda: known(out) == people.digests(), GENEROUS_S)
        assert watcher.end(signal.SIGTERM) == 0
        print("\n" + "".join(watcher.said))
        assert people.files() == people.stamps
        assert_results(fleet, people, out, tmp_path / "again")
    assert any("changed while it was read" in reason for reason in reasons), "a mix of both was taken for the first"
