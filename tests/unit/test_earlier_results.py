"""New results and those that are there: equal ones stay, others are written beside, and nothing is replaced."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.outputs.earlier import equal, fits, settled
from engines.outputs.names import OutputNames, Wanted


def written(names: OutputNames, folder: Path, files: dict[str, str]) -> tuple[list[str], str]:
    """Write results of `a.mp4` as a run does; their names, and what is said of earlier ones."""
    wanted = Wanted(folder, "a.mp4", "p")
    target = names.reserve(wanted)
    paths = [target.parent / f"{target.name}{end}" for end in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    there, found = settled(names.earlier(wanted, target), target, paths)
    names.release(target)
    return [str(path.relative_to(folder)) for path in there], found.words


@given(st.lists(st.sampled_from(["one", "two", "six", "four"]), max_size=6), st.sampled_from([".npz", "/0.png"]))
def test_each_content_is_there_once_under_its_first_name(contents: list[str], end: str) -> None:
    with TemporaryDirectory() as place, OutputNames(Path(place)) as names:
        first: dict[str, list[str]] = {}
        for text in contents:
            said = "equal" if text in first else "beside" if first else ""
            files, words = written(names, Path(place), {end: text})
            assert first.setdefault(text, files) == files
            assert Path(place, *files).read_text() == text
            assert said in words
            assert bool(said) is bool(words)
        there = {str(each.relative_to(place)) for each in Path(place).glob("[!.]*") if each.is_file()}
        inside = {str(each.relative_to(place)) for each in Path(place).glob("*.p/*")}
        assert there | inside == {file for files in first.values() for file in files}


def test_names_beside_go_up_from_the_name_with_its_suffix(tmp_path: Path) -> None:
    with OutputNames(tmp_path) as names:
        made = [written(names, tmp_path, {".npz": str(number)})[0] for number in range(4)]
    assert made == [["a.p.npz"], ["a.mp4.p.npz"], ["a.mp4-2.p.npz"], ["a.mp4-3.p.npz"]]


def test_results_of_several_files_are_equal_if_all_are(tmp_path: Path) -> None:
    with OutputNames(tmp_path) as names:
        written(names, tmp_path, {".jsonl": "a", ".png": "b"})
        assert written(names, tmp_path, {".jsonl": "a", ".png": "c"})[0] == ["a.mp4.p.jsonl", "a.mp4.p.png"]
        assert written(names, tmp_path, {".jsonl": "a", ".png": "b"})[0] == ["a.p.jsonl", "a.p.png"]
    assert len(list(tmp_path.iterdir())) == 4


def test_results_that_may_be_replaced_are_not_compared(tmp_path: Path) -> None:
    with OutputNames(tmp_path, overwrite=True) as names:
        assert written(names, tmp_path, {".npz": "1"}) == written(names, tmp_path, {".npz": "2"}) == (["a.p.npz"], "")
    assert (tmp_path / "a.p.npz").read_text() == "2"


@pytest.mark.parametrize("there", ["same", "other", "", None])
def test_a_place_fits_where_nothing_or_the_same_is(tmp_path: Path, there: str | None) -> None:
    (new := tmp_path / "new").write_text("same")
    if there is not None:
        (tmp_path / "there").write_text(there)
    assert equal(new, tmp_path / "there") is (there == "same")
    assert fits({new: tmp_path / "there"}) is (there in ("same", None))


def test_links_and_folders_equal_nothing(tmp_path: Path) -> None:
    (new := tmp_path / "new").write_text("same")
    (tmp_path / "link").symlink_to(new)
    (tmp_path / "folder").mkdir()
    assert not any(equal(new, tmp_path / name) for name in ("link", "folder", "gone"))
    (tmp_path / "gone").symlink_to("nothing")
    assert not fits({new: tmp_path / "gone"})
