"""What of a folder is new, where its results go, and that a process that ends at any point leaves no wrong result."""

import os
import shutil
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from cli.run_folder import folder_remarks, folder_results, folder_summary
from cli.samples import draw_samples
from pipelines.registry import builtin_pipeline
from schemas.errors import ExitCode, OutputError
from tests.cli import rigflow
from workers import placing
from workers.ledger import Ledger, ledger_path
from workers.media_folder import Entry, MediaFolder
from workers.media_names import is_media_by_name
from workers.placing import made_of, place, token
from workers.tally import SHOWN, Tally

TAG = builtin_pipeline("tag")


class Killed(BaseException):
    """The end of the process."""


def pictures(folder: Path, names: Sequence[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)


def opened(out: Path, revision: str) -> Ledger:
    out.mkdir(exist_ok=True)
    ledger = Ledger(ledger_path(out, "tag"), out, revision)
    ledger.open()
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = opened(tmp_path / "out", "r1")
    yield ledger
    ledger.close()


def tagged(media: MediaFolder, scratch: Path, text: str) -> list[Entry]:
    """Do all that is new, `text` of each with its name."""
    done: list[Entry] = []
    for number, group in enumerate(media.groups()):
        folder = scratch / str(number)
        folder.mkdir(parents=True)
        made = []
        for place_in, entry in enumerate(media.digested(group)):
            path = folder / f"{Path(token(place_in, entry)).stem}.txt"
            path.write_text(f"{text} {entry.name}")
            made.append((entry, {".txt": path}))
        place(media, folder, made)
        done += group
    return done


def targets(folder: Path, out: Path, ledger: Ledger, spec: str = "tag") -> dict[str, str]:
    media = MediaFolder(folder, out, builtin_pipeline(spec), ledger, False, False)
    return {entry.name: entry.target for group in media.groups() for entry in group}


def test_results_are_named_as_the_pictures_and_apart(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    pictures(folder, ["a/one.jpg", "a/one.png", "a/one.png.bmp", "b/one.png", "two words.webp"])
    assert targets(folder, out, ledger) == {
        "a/one.jpg": "a/one",
        "a/one.png": "a/one.png",
        "a/one.png.bmp": "a/one.png.bmp",
        "b/one.png": "b/one",
        "two words.webp": "two words",
    }
    assert targets(folder, out, ledger, "upscale")["a/one.png"] == "a/one.png.upscale"


def test_a_name_stays_its_owners_while_that_is_there(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    pictures(folder, ["one.png"])
    tagged(MediaFolder(folder, out, TAG, ledger, False, True), tmp_path / "scratch", "first")
    pictures(folder, ["one.bmp"])
    assert targets(folder, out, ledger)["one.bmp"] == "one.bmp"
    (folder / "one.png").unlink()
    assert targets(folder, out, ledger) == {"one.bmp": "one"}


def test_results_in_the_folder_itself_are_counted_as_results(tmp_path: Path, ledger: Ledger) -> None:
    out = tmp_path / "out"
    pictures(out, ["a/one.jpg", "two.png"])
    (out / "notes.html").write_text("# notes")
    tagged(MediaFolder(out, out, TAG, ledger, False, True), tmp_path / "scratch", "text")
    again = MediaFolder(out, out, TAG, ledger, False, True)
    assert not list(again.groups())
    assert (again.tally.known, again.tally.results, again.tally.no_media) == (2, 2, 1)


def test_results_of_other_runs_are_recognised_by_their_names(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    media = [
        "a/one.jpg",
        "two.png",
        "two.x.png",
        "alone.upscale2x.png",
        "upscale2x.png",
        "b.2.jpg",
        "images.of/0.png",
    ]
    results = [
        "a/one.upscale2x.png",
        "a/one.jpg.scenes.png",
        "a/one.tag.png",
        "a/one.jpg-2.upscale2x.png",
        "images-2.upscale2x/0.png",
        "two.x.upscale.upscale2x.png",
        "out2/two.scenes.png",
    ]
    pictures(folder, media + results)
    run = MediaFolder(folder, out, TAG, ledger, False, False)
    assert [entry.name for group in run.groups() for entry in group] == sorted(media)
    assert run.tally.results == len(results)


def test_a_tally_names_the_first_results(tmp_path: Path, ledger: Ledger) -> None:
    pictures(tmp_path / "in", [f"{number:02}.png" for number in range(SHOWN + 5)])
    run = MediaFolder(tmp_path / "in", tmp_path / "out", TAG, ledger, False, False)
    tagged(run, tmp_path / "scratch", "text")
    assert run.tally.made[0] == ("00.png", (str(tmp_path / "out" / "00.txt"),))
    assert len(run.tally.made) == run.tally.named == SHOWN
    console = Console(file=(text := StringIO()), width=200)
    console.print(folder_results(run.tally))
    shown = text.getvalue()
    assert shown.splitlines()[1].split() == ["00.png", str(tmp_path / "out" / "00.txt")]
    assert shown.splitlines()[-1].strip() == "and 5 more"


def test_a_folder_without_media_is_an_error_that_says_so(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    done = rigflow("run", "fingerprint", folder, "--out", out)
    assert done.returncode == ExitCode.USAGE
    takes = "pipeline fingerprint takes files of video and image"
    assert done.stderr == f"rigflow: {folder}: there is nothing to do in it: {takes}\n"
    assert not out.exists(), "neither the folder nor the ledger is left"
    (folder / "notes.html").write_text("# notes")
    (folder / "gone.mp4").symlink_to(folder / "film.mp4")
    done = rigflow("run", "fingerprint", folder, "--out", out)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.splitlines() == [
        "gone.mp4: left alone: it is a link to a file that does not exist",
        f"rigflow: {folder}: there is nothing to do in it: 1 no media: {takes}",
    ]


@pytest.mark.parametrize("calls", range(8))
def test_a_process_that_ends_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Results may be replaced: what is known afterwards has its new text, the rest is new."""
    folder, out = tmp_path / "in", tmp_path / "out"
    names = ["a.png", "b.png", "c/d.png"]
    pictures(folder, names)
    ledger = opened(out, "r1")
    tagged(MediaFolder(folder, out, TAG, ledger, True, True), tmp_path / "one", "old")
    ledger.close()

    left = calls

    def dies(*_: object, **__: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    rename, unlink, record = placing.rename, Path.unlink, Ledger.record_all
    monkeypatch.setattr(placing, "rename", lambda *given, **named: (dies(), rename(*given, **named)))
    monkeypatch.setattr(Path, "unlink", lambda *given, **named: (dies(), unlink(*given, **named)))
    monkeypatch.setattr(Ledger, "record_all", lambda *given: (dies(), record(*given)))
    ledger = opened(out, "r2")
    try:
        tagged(MediaFolder(folder, out, TAG, ledger, True, True), tmp_path / "two", "new")
    except Killed:
        assert calls < 7, "three files removed, one record, three files put in place"
    ledger.close()
    monkeypatch.undo()

    texts = {name: out / f"{Path(name).with_suffix('')}.txt" for name in names}
    ledger = opened(out, "r2")
    media = MediaFolder(folder, out, TAG, ledger, True, True)
    again = {entry.name for group in media.groups() for entry in group}
    for name, path in texts.items():
        is_new = path.exists() and path.read_text() == f"new {name}"
        assert (name in again) is not is_new
    tagged(MediaFolder(folder, out, TAG, ledger, True, True), tmp_path / "three", "new")
    assert {name: path.read_text() for name, path in texts.items()} == {name: f"new {name}" for name in names}
    ledger.close()


def test_a_text_that_appears_while_a_picture_is_tagged_is_kept(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    pictures(folder, ["a.png", "b.png"])
    media = MediaFolder(folder, out, TAG, ledger, False, True)
    [group] = media.groups()
    (out / "a.txt").write_text("mine")
    made = []
    for number, entry in enumerate(media.digested(group)):
        (path := tmp_path / f"{number}.txt").write_text("tags")
        made.append((entry, {".txt": path}))
    (scratch := tmp_path / "scratch").mkdir()
    place(media, scratch, made)
    assert (media.tally.done, media.tally.beside) == (2, 1)
    assert [(out / f"{name}.txt").read_text() for name in ("a", "a.png", "b")] == ["mine", "tags", "tags"]


def test_a_picture_that_changes_while_it_is_tagged_is_new_again(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    pictures(folder, ["a.png"])
    media = MediaFolder(folder, out, TAG, ledger, False, True)
    [[entry]] = media.groups()
    media.digested([entry])
    os.utime(folder / "a.png", (1, 1))
    (scratch := tmp_path / "scratch").mkdir()
    (scratch / "0000.txt").write_text("tags")
    place(media, scratch, [(entry, {".txt": scratch / "0000.txt"})])
    assert media.tally.failed == [("a.png", "it changed while it was read; run it again")]
    assert not (out / "a.txt").exists()
    assert [each.name for [each] in MediaFolder(folder, out, TAG, ledger, False, True).groups()] == ["a.png"]


def test_items_of_a_file_of_lines_are_in_a_folder_of_its_name(tmp_path: Path, ledger: Ledger) -> None:
    """Such a file is a job of its own, whose items have the names that their lines give them."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name, text in (("a.jsonl", '{"text": "1"}\n{"text": "2"}'), ("b.txt", "3"), ("c.txt", "4"), ("d.jsonl", "{}")):
        (folder / name).write_text(text)
    media = MediaFolder(folder, out, builtin_pipeline("speak"), ledger, False, True)
    groups = [media.digested(group) for group in media.groups()]
    assert [[entry.name for entry in group] for group in groups] == [["a.jsonl"], ["d.jsonl"], ["b.txt", "c.txt"]]
    for number, made in enumerate((["a/a-1.wav", "a/x.y.wav"], ["d.wav"], ["t/0000.wav", "t/0001.wav"])):
        (scratch := tmp_path / f"scratch-{number}").mkdir()
        for path in made:
            (scratch / path).parent.mkdir(exist_ok=True)
            (scratch / path).write_text(path)
        target = scratch / Path(made[0]).parts[0].removesuffix(".wav")
        entries = enumerate(groups[number])
        place(
            media, scratch, [(each, made_of(target, n, each, len(groups[number]) == 1, media)) for n, each in entries]
        )
    found = {str(each.relative_to(out)): each.read_text() for each in out.rglob("*.wav")}
    assert found == {
        "a.speak/a-1.wav": "a/a-1.wav",
        "a.speak/x.y.wav": "a/x.y.wav",
        "b.speak.wav": "t/0000.wav",
        "c.speak.wav": "t/0001.wav",
        "d.speak.wav": "d.wav",
    }
    assert [*MediaFolder(folder, out, builtin_pipeline("speak"), ledger, False, True).groups()] == []
    (out / "a.speak" / "a-1.wav").write_text("mine")
    again = MediaFolder(folder, out, builtin_pipeline("speak"), ledger, False, False)
    group = again.digested(next(again.groups()))
    (scratch := tmp_path / "again").mkdir()
    for path in ("a/a-1.wav", "a/x.y.wav"):
        (scratch / path).parent.mkdir(exist_ok=True)
        (scratch / path).write_text(path)
    place(again, scratch, [(group[0], made_of(scratch / "a", 0, group[0], True, again))])
    assert (out / "a.speak" / "a-1.wav").read_text() == "mine"
    assert (out / "a.jsonl.speak" / "a-1.wav").read_text() == "a/a-1.wav"


def test_a_folder_in_the_way_of_a_text_is_an_error_in_words(tmp_path: Path, ledger: Ledger) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    pictures(folder, ["a.png"])
    (out / "a.txt").mkdir(parents=True)
    media = MediaFolder(folder, out, TAG, ledger, True, True)
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: Is a directory"):
        tagged(media, tmp_path / "scratch", "x")


def test_sound_is_not_called_as_media_of_a_pipeline_of_films() -> None:
    assert is_media_by_name("a/film.MP4", ("video", "image"))
    assert is_media_by_name("a/sound.wav")
    assert not is_media_by_name("a/sound.wav", ("video", "image"))


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "wma", "amr"])
def test_a_file_called_as_sound_is_never_left_out_without_a_word(suffix: str) -> None:
    """A damaged one fails; which suffixes Python knows depends on its version."""
    assert is_media_by_name(f"talk.{suffix}", ("audio",))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "avi", "m4v", "wmv", "flv", "mxf"])
def test_nor_one_called_as_a_film(suffix: str) -> None:
    assert is_media_by_name(f"film.{suffix.upper()}", ("video",))


def test_what_is_no_media_of_a_pipeline_is_none_before_a_job_is_made(tmp_path: Path, ledger: Ledger) -> None:
    folder = tmp_path / "in"
    draw_samples(folder)
    (folder / "broken.mp4").write_bytes((folder / "film.mp4").read_bytes()[:9000])
    shutil.copy(folder / "film.mp4", folder / "film without suffix")
    run = MediaFolder(folder, tmp_path / "out", builtin_pipeline("scenes"), ledger, False, False)
    names = [entry.name for group in run.groups() for entry in group]
    assert names == ["broken.mp4", "film without suffix", "film.mp4"], (
        "the first is called as a film: it fails as a job"
    )
    assert (run.tally.no_media, run.tally.other_media, run.tally.failed) == (2, 2, [])
    assert folder_summary(run.tally, Path("out")).plain == "out: 0 done, 2 media of another kind, 2 no media"
    assert not is_media_by_name("notes.txt", ("text",))


def test_a_note_names_its_file_once() -> None:
    notes = {"clip.avi: 1 frame is damaged": ("clip.avi", 1), "its alpha is left out": ("a.webm", 2)}
    lines = [line.plain for line in folder_remarks(Tally(notes=notes))]
    assert lines == ["clip.avi: 1 frame is damaged", "a.webm and 1 more: its alpha is left out"]
