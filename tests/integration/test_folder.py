"""`rigflow run` with a folder: results beside the files or at the same places elsewhere; what is done stays done."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.registry import builtin_pipeline
from schemas.jobs import Priority
from schemas.parts import PartMeta
from tests.cases import drawn, files_under, film
from tests.cli import Running, rigflow
from tests.fleet import ONE_WORKER, Fleet, Silent
from tests.taggers import wd_folder
from workers import run_folder
from workers.definitions import find_models
from workers.tally import Tally

SIZE = (40, 60)


class Frames(Silent):
    """Counts the pictures that were tagged."""

    frames = 0

    def part(self, job: str, meta: PartMeta) -> None:
        self.frames += len(meta.pts)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    done = rigflow("model", "add", wd_folder(home / "wd"), "--yes", HOME=str(home))
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER * 2, tmp_path_factory.mktemp("cache")) as started:
        yield started


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Pictures in folders, one under two names, two of one stem, a film, a text of a person, and other files."""
    folder = tmp_path / "library"
    for number, name in enumerate(("a/one.png", "a/two.png", "b/one.png", "b/one.bmp", "top.webp")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(SIZE, number)).save(path)
    shutil.copy(folder / "a/one.png", folder / "b/copy of one.png")
    (folder / "a/two.txt").write_text("mine")
    (folder / "b/notes.md").write_text("# notes")
    (folder / "b/weights.safetensors").write_bytes(b"\1\0\0\0\0\0\0\0{}")
    film(folder, frames=11)
    return folder


def run(
    fleet: Fleet,
    home: Path,
    folder: Path,
    out: Path,
    *,
    only_new: bool = True,
    overwrite: bool = False,
    **fields: float | bool,
) -> tuple[Tally, int]:
    """What became of the files, and how many pictures were tagged."""
    spec = builtin_pipeline("tag").with_model("wd").with_fields({f"infer.head.{k}": v for k, v in fields.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        models = find_models(spec, None)
    out.mkdir(exist_ok=True)
    listener = Frames()
    with run_folder.folder_run(folder, out, spec, models, True, overwrite, only_new) as work:
        if work.first():
            asyncio.run(work.run(fleet.settings, Priority.BULK, listener))
    return work.tally, listener.frames


def results(folder: Path) -> dict[str, bytes]:
    """Its texts and json files, without hidden folders."""
    made = files_under(folder).items()
    return {name: body for name, body in made if name.endswith((".txt", ".json")) and not name.startswith(".")}


def test_results_lie_at_the_same_places(fleet: Fleet, home: Path, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tally, frames = run(fleet, home, library, out)
    assert (tally.done, tally.known, tally.beside, tally.failed) == (7, 0, 0, [])
    assert tally.no_media == 3
    assert frames == 5 + 2, "each content once, and two frames of the film"
    made = results(out)
    texts = ("a/one.txt", "a/two.txt", "b/copy of one.txt", "b/one.txt", "b/one.png.txt", "top.txt")
    assert sorted(made) == sorted([*texts, "film.tag.json"])
    assert made["a/one.txt"] == made["b/copy of one.txt"] != made["b/one.png.txt"]
    assert not [path for path in out.rglob("*") if "unfinished" in path.name]
    tally, frames = run(fleet, home, library, out)
    assert (tally.done, tally.known, frames) == (0, 7, 0)


def test_nothing_that_is_there_is_replaced(fleet: Fleet, home: Path, library: Path) -> None:
    before = files_under(library)
    tally, _ = run(fleet, home, library, library)
    assert (tally.done, tally.equal, tally.beside) == (7, 0, 1)
    made = files_under(library)
    assert {name: made[name] for name in before} == before
    assert results(library).keys() >= {"a/two.txt", "a/two.png.txt"}
    # by other thresholds: beside the first ones, and the results are no input
    tally, frames = run(fleet, home, library, library, threshold=0.01, **{"thresholds.general": 0.05})
    assert (tally.done, tally.equal, tally.beside, frames) == (7, 0, 7, 5 + 2)
    again = files_under(library)
    assert {name: again[name] for name in made if not name.startswith(".")} == {
        name: body for name, body in made.items() if not name.startswith(".")
    }
    assert len(again["a/one.png.txt"]) > len(made["a/one.txt"])
    tally, _ = run(fleet, home, library, library)
    assert (tally.done, tally.equal, tally.beside) == (7, 7, 0), "those of the first thresholds are there"
    assert results(library).keys() == {name for name in again if name.endswith((".txt", ".json"))}
    tally, _ = run(fleet, home, library, library, only_new=False, overwrite=True)
    assert (tally.done, tally.equal, tally.beside) == (7, 0, 0)
    assert results(library)["a/two.txt"] == made["a/two.png.txt"]


def test_only_what_is_missing_or_changed_is_done_again(fleet: Fleet, home: Path, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(fleet, home, library, out)
    made = results(out)
    (out / "top.txt").unlink()
    Image.fromarray(drawn(SIZE, 77)).save(library / "a/two.png")
    os.utime(library / "b/one.png")  # its content is the same
    shutil.copy(library / "b/one.bmp", library / "b/new name.bmp")
    (library / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    tally, frames = run(fleet, home, library, out)
    assert (tally.done, tally.copies, tally.known, frames) == (3, 1, 5, 2)
    assert [name for name, _ in tally.failed] == ["bad.jpg"]
    again = results(out)
    assert again["top.txt"] == made["top.txt"]
    assert again["a/two.txt"] == made["a/two.txt"] != again["a/two.png.txt"]
    assert again["b/new name.txt"] == made["b/one.txt"]
    tally, frames = run(fleet, home, library, out)
    assert (tally.done, tally.known, len(tally.failed), frames) == (0, 8, 1, 0), "a bad picture is tried again"


def test_a_run_that_is_killed_while_results_are_put_in_place(fleet: Fleet, home: Path, tmp_path: Path) -> None:
    """Nothing is skipped that has no text, and the texts are those of a run that was not killed."""
    library = tmp_path / "library"
    library.mkdir()
    for number in range(60):
        Image.fromarray(drawn(SIZE, number)).save(library / f"{number:03}.png")
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = ("--model", "wd", "--only-new", "--workers", "1", "--out", out)
    with Running("run", "tag", library, *options, HOME=str(home)) as running:
        while not any(out.glob("*.txt")) and running.process.poll() is None:
            time.sleep(0.0005)
        running.end(signal.SIGKILL)
    left = 60 - len(results(out))
    tally, _ = run(fleet, home, library, out)
    assert (tally.done, tally.known, tally.beside, tally.failed) == (left, 60 - left, 0, [])
    run(fleet, home, library, whole)
    assert results(out) == results(whole)
    assert len(results(out)) == 60
    done = rigflow("run", "tag", library, *options, HOME=str(home))
    assert done.stdout == f"{out}: 0 done, 60 done before\n"


def test_a_folder_and_its_options_in_words(home: Path, library: Path, tmp_path: Path) -> None:
    done = rigflow("run", "tag", library / "top.webp", "--only-new", "--out", tmp_path, "--model", "wd", HOME=str(home))
    assert (done.returncode, done.stderr) == (2, "rigflow: --only-new is for folders: give folders as INPUT\n")
    for option, hint in (("--overwrite", "leave out --overwrite"), ("--keep-tree", "give a folder as --out")):
        (library / "b" / "one.bmp").unlink(missing_ok=True)  # a template would give it the name of one.png's
        done = rigflow("run", "fingerprint", library, "--only-new", option, "--out", tmp_path / "o", HOME=str(home))
        assert done.returncode == 2
        what = "pipeline fingerprint writes one result of all new images, beside those of earlier runs"
        assert done.stderr.startswith(f"rigflow: {what}: {hint}"), done.stderr
    Image.fromarray(drawn(SIZE, 3)).save(library / "b" / "one.bmp")
    page = Image.open(library / "a/two.png")
    page.save(library / "pages.tiff", save_all=True, append_images=[page])
    done = rigflow("run", "fingerprint", library, "--out", tmp_path / "o", "--workers", "1", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "a/one.png and 6 more: of each image that has several pictures only the first is used" in done.stderr
    made = sorted(name for name in files_under(tmp_path / "o") if name.endswith("npz"))
    assert made == ["film.fingerprint.npz", "images.fingerprint.npz"]
    with np.load(tmp_path / "o" / "images.fingerprint.npz") as found:
        pictures = ["a/one.png", "a/two.png", "b/copy of one.png", "b/one.bmp", "b/one.png", "pages.tiff", "top.webp"]
        assert sorted(found["names"].tolist()) == pictures, "two of the same content have a place each"


def names_in(result: Path) -> list[str]:
    """The pictures that one result of all has."""
    with np.load(result) as found:
        return sorted(found["names"].tolist())


def prints(fleet: Fleet, folder: Path, out: Path) -> Tally:
    """Fingerprints of what is new in a folder."""
    spec = builtin_pipeline("fingerprint")
    out.mkdir(exist_ok=True)
    with run_folder.folder_run(folder, out, spec, find_models(spec, None), False, False, True) as work:
        if work.first():
            asyncio.run(work.run(fleet.settings, Priority.BULK, Silent()))
    return work.tally


def test_new_pictures_have_one_result_beside_that_of_the_others(fleet: Fleet, library: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = out / "images.fingerprint.npz", out / "images-2.fingerprint.npz"
    tally = prints(fleet, library, out)
    assert (tally.done, tally.known, tally.failed) == (7, 0, [])
    six = ["a/one.png", "a/two.png", "b/copy of one.png", "b/one.bmp", "b/one.png", "top.webp"]
    assert names_in(first) == six
    before = first.read_bytes()
    assert (tally := prints(fleet, library, out)).done == 0
    assert tally.known == 7
    shutil.copy(library / "a/one.png", library / "of the same content.png")
    Image.fromarray(drawn(SIZE, 78)).save(library / "a/two.png")
    (library / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    tally = prints(fleet, library, out)
    assert (tally.done, tally.known, tally.beside) == (2, 6, 2)
    assert [name for name, _ in tally.failed] == ["bad.jpg"]
    assert names_in(second) == ["a/two.png", "of the same content.png"]
    assert first.read_bytes() == before
    tally = prints(fleet, library, out)
    assert (tally.done, tally.known, len(tally.failed)) == (0, 8, 1), "a bad picture is tried again"
    second.unlink()
    (library / "bad.jpg").unlink()
    tally = prints(fleet, library, out)
    assert (tally.done, tally.known) == (2, 6), "what lost its result is new"
    assert names_in(second) == ["a/two.png", "of the same content.png"]


def test_pictures_that_all_failed_have_no_result(fleet: Fleet, tmp_path: Path) -> None:
    (folder := tmp_path / "bad").mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    for _ in range(2):
        tally = prints(fleet, folder, tmp_path / "out")
        assert (tally.done, tally.equal, tally.made, len(tally.failed)) == (0, 0, [], 2)
        assert not [*(tmp_path / "out").glob("*.npz")]


def test_the_pictures_of_a_replaced_result_are_new(fleet: Fleet, library: Path, tmp_path: Path) -> None:
    out, aside = tmp_path / "out", tmp_path / "aside"
    prints(fleet, library, out)
    shutil.move(library / "a", aside)
    (out / "images.fingerprint.npz").unlink()
    prints(fleet, library, out)
    assert len(names_in(out / "images.fingerprint.npz")) == 4
    shutil.move(aside, library / "a")
    tally = prints(fleet, library, out)
    assert (tally.done, tally.known) == (2, 5)
    assert names_in(out / "images-2.fingerprint.npz") == ["a/one.png", "a/two.png"]
