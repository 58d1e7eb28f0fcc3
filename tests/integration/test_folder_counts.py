"""The counts of a folder that is run add up: each of its files is in one of them, whatever became of the others."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cases import drawn
from tests.cli import rigflow
from tests.fleet import ONE_WORKER, Fleet
from tests.taggers import wd_folder

TEXTS = """
name = "texts"
media = ["text"]

[[stage]]
kind = "decode"

[[stage]]
kind = "encode"
format = "jsonl"
"""
BROKEN = b"\x89PNG\r\n\x1a\n no picture"
EACH = {"upscale2x": (), "tag": ("--model", "wd")}  # a file of each picture, with options; the others: one of all
PIPELINES = {"fingerprint": (), **EACH}
STATES = ("done", "done_before", "results", "no_media", "other_media")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    assert rigflow("model", "add", wd_folder(home / "wd"), "--yes", HOME=str(home)).returncode == 0
    return home


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as started:
        yield started


def library(folder: Path, good: int, bad: int) -> Path:
    """Pictures, some of which are broken and come first, and a file that is no media."""
    folder.mkdir()
    for number in range(good):
        Image.fromarray(drawn((24, 32), number)).save(folder / f"good{number}.png")
    for number in range(bad):
        (folder / f"a: bad{number:03}.png").write_bytes(BROKEN + bytes([number]))
    (folder / "notes.md").write_text("# notes")
    return folder


def counts(folder: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Done, equal, beside, done before and failed, after a look whether all counts add up to the files."""
    total = sum(folder[state] for state in STATES) + len(folder["failed"]) + len(folder["skipped"])
    assert total == sum(path.is_file() and path.name[0] != "." for path in Path(folder["folder"]).rglob("*")), folder
    assert folder["equal"] + folder["beside"] + folder["copied"] <= folder["done"]
    failed = [each["file"] for each in folder["failed"]]
    assert len({*failed}) == len(failed)
    assert not {each["file"] for each in folder["made"]} & {*failed}
    return folder["done"], folder["equal"], folder["beside"], folder["done_before"], len(failed)


class Runs:
    """Runs of one pipeline over one folder."""

    def __init__(self, fleet: Fleet, home: Path, pipeline: str, folder: Path) -> None:
        self._words = ("run", pipeline, folder, *PIPELINES[pipeline], "--nats", fleet.settings.nats)
        self._home = str(home)
        self.out = folder.with_name("out")

    def __call__(self, *more: str | Path) -> tuple[int, int, int, int, int]:
        """Run it; what is counted."""
        done = rigflow(*self._words, "--out", self.out, *more, "--json", HOME=self._home)
        assert done.stdout, done.stderr
        [folder] = json.loads(done.stdout)["folders"]
        assert done.returncode == bool(folder["failed"])
        return counts(folder)

    def words(self, *more: str | Path) -> str:
        """Run it; the answer for people."""
        return rigflow(*self._words, "--out", self.out, *more, HOME=self._home, COLUMNS="400").stdout


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(("good", "bad"), [(3, 0), (3, 1), (0, 2), (2, 130)])
def test_every_file_is_counted_once(
    fleet: Fleet, home: Path, tmp_path: Path, pipeline: str, good: int, bad: int
) -> None:
    folder = library(tmp_path / "in", good, bad)
    run = Runs(fleet, home, pipeline, folder)
    assert run() == (good, 0, 0, 0, bad)
    assert run() == (good, good, 0, 0, bad)
    assert run("--only-new") == (0, 0, 0, good, bad), "what failed is tried again"
    if good:
        Image.fromarray(255 - drawn((24, 32), 0)).save(folder / "good0.png")
        changed = 1 if pipeline in EACH else good
        assert run() == (good, good - changed, changed, 0, bad)
        assert run("--overwrite") == (good, 0, 0, 0, bad)
    run.out = tmp_path / "tree"
    assert run("--keep-tree") == (good, 0, 0, 0, bad)
    again = (0, 0, 0, 0, good + bad) if pipeline in EACH else (good, good, 0, 0, bad)
    assert run("--keep-tree") == again, "a template gives no second name"
    assert run("--keep-tree", "--overwrite") == (good, 0, 0, 0, bad)


def test_the_summary_is_named_after_what_is_done(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    folder = library(tmp_path / "in", 3, 1)
    run = Runs(fleet, home, "fingerprint", folder)
    file = f"good0.png and 2 more  {run.out / 'images.fingerprint.npz'}"
    counted = f"{run.out}: 3 done, 1 no media, 1 failed\n"
    assert run.words() == f"file                  result\n{file}\n{counted}"
    equal = f"{run.out}: 3 done (3 equal to earlier results), 1 no media, 1 failed\n"
    assert run.words() == f"file                  result\n{file}\n{equal}"


def test_files_and_a_folder_are_counted_apart(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    folder, out = library(tmp_path / "in", 2, 1), tmp_path / "out"
    files = [*library(tmp_path / "files", 1, 1).glob("*.png")]
    done = rigflow("run", "upscale2x", folder, *files, "--nats", fleet.settings.nats, "--out", out, "--json")
    answer = json.loads(done.stdout)
    [job] = answer["jobs"]
    assert (done.returncode, job["state"], job["frames"], job["failed"], len(job["files"])) == (1, "failed", 1, 1, 1)
    assert counts(answer["folders"][0]) == (2, 0, 0, 0, 1)


def test_lines_that_fail_are_no_files(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    (folder := tmp_path / "in").mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "one"}\nno json\n')
    (folder / "b.jsonl").write_text("no json\n")
    (folder / "c.txt").write_text("text")
    pipeline = tmp_path / "texts.toml"
    pipeline.write_text(TEXTS)
    done = rigflow("run", pipeline, folder, "--nats", fleet.settings.nats, "--out", tmp_path / "out", HOME=str(home))
    assert done.returncode == 1
    assert "3 done, 2 of their lines failed" in " ".join(done.stdout.split())
    assert "a-2: failed: line 2: it is no JSON" in done.stderr
