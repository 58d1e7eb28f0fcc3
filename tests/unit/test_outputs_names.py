"""Two inputs never share the name of a result, and no file that is there loses its own."""

import fcntl
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.files import PartFile
from engines.outputs.names import OutputNames, Wanted, clean, unused
from schemas.errors import OutputError


def reserved(names: OutputNames, folder: Path, *inputs: str) -> list[str]:
    found = names.reserve_all([Wanted(folder, name, "p", parent="cam") for name in inputs])
    return [target.name if isinstance(target, Path) else str(target) for target in found]


def test_the_first_choice_is_the_stem_then_the_name_then_the_folder_then_a_number(tmp_path: Path) -> None:
    wanted = ["a.p", "a.mp4.p", "cam-a.mp4.p", "cam-a.mp4-2.p", "a.mov.p", "a.mp4.mkv.p"]
    with OutputNames(tmp_path) as names:
        assert reserved(names, tmp_path, "a.mp4", "a.mp4", "a.mp4", "a.mp4", "a.mov", "a.mp4.mkv") == wanted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["a.p.npz", "a.p.jsonl", "a.p"])
def test_what_is_there_keeps_its_name_unless_it_may_be_replaced(tmp_path: Path, there: str) -> None:
    (tmp_path / there).touch()
    (tmp_path / "b.p.npz.part").touch()  # left by a run that was killed
    (tmp_path / "c.p.npz").touch()
    with OutputNames(tmp_path) as names:
        assert reserved(names, tmp_path, "a.mp4", "b.mp4") == ["a.mp4.p", "b.p"]
    with OutputNames(tmp_path, overwrite=True, inputs=[tmp_path / "c.p.npz"]) as names:
        assert reserved(names, tmp_path, "a.mp4", "c.mp4") == ["a.p", "c.mp4.p"]  # an input is no result


def test_an_input_is_kept_whatever_way_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.p.npz").touch()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "elsewhere").mkdir()
    ways = [tmp_path / "link", tmp_path / "elsewhere" / ".." / "out"]
    for folder in ways:
        with OutputNames(tmp_path / "out", overwrite=True, inputs=[folder / "a.p.npz"]) as names:
            assert reserved(names, tmp_path / "out", "a.mp4") == ["a.mp4.p"]
    with OutputNames(tmp_path / "out", overwrite=True, inputs=[tmp_path / "elsewhere" / "a.p.npz"]) as names:
        assert reserved(names, tmp_path / "out", "a.mp4") == ["a.p"]


def test_an_input_gets_no_name_of_another(tmp_path: Path) -> None:
    other = Wanted(tmp_path, "b.mp4", "p", owned=lambda target: target.name == "b.p")
    with OutputNames(tmp_path) as names:
        assert names.reserve(other) == tmp_path / "b.mp4.p"
        assert names.earlier(other, tmp_path / "b.mp4.p") == []
        names.release(tmp_path / "b.mp4.p")
        assert names.reserve(other) == tmp_path / "b.mp4.p"


def test_a_name_that_is_too_long_is_its_own_fault(tmp_path: Path) -> None:
    long = "n" * 250
    with OutputNames(tmp_path) as names:
        good, bad = names.reserve_all([Wanted(tmp_path, f"{name}.jpg", "p") for name in ("a", long)])
    assert good == tmp_path / "a.p"
    assert isinstance(bad, OutputError)
    assert "File name too long: rename the input" in str(bad)


def test_two_processes_reserve_two_names_and_a_dead_one_none(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from engines.outputs.names import OutputNames, Wanted\n"
    code += "folder = Path(sys.argv[1]); names = OutputNames(folder)\n"
    code += "print(names.reserve(Wanted(folder, 'a.mp4', 'p')).name, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with (
        OutputNames(tmp_path) as names,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "a.p\n"
        assert reserved(names, tmp_path, "a.mp4") == ["a.mp4.p"]
        other.kill()
        other.wait()
        assert reserved(names, tmp_path, "a.mp4") == ["a.p"]
        [ours] = tmp_path.glob(".rigflow-names-*")
        assert json.loads(ours.read_text()) == ["a.mp4.p", "a.p"]


@given(st.lists(st.text(min_size=0, max_size=8), max_size=8))
def test_any_names_give_readable_names_in_the_folder_each_once(inputs: list[str]) -> None:
    folder = Path("/")
    taken: set[str] = set()
    for name in inputs:
        wanted = Wanted(folder, name, "p")
        choice = next(each for each in itertools.islice(wanted.choices(), 100) if each not in taken)
        taken.add(choice)
        assert (folder / choice).parent == folder
        assert (folder / choice).name == choice
        assert clean(choice) == choice


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    file = PartFile.create(tmp_path / "a.npz")
    file.write(b"ours")
    (tmp_path / "a.npz").write_text("theirs")
    with pytest.raises(OutputError, match="a file is in the way"):
        file.commit()
    file.discard()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.npz", "theirs")]
    assert unused(tmp_path / "a.npz") == tmp_path / "a-2.npz"


@pytest.mark.parametrize("content", ["5", "[5]", "[", "\0"])
def test_a_list_of_names_that_is_none_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / ".rigflow-names-x").write_text(content)
    with (tmp_path / ".rigflow-names-x").open() as held, OutputNames(tmp_path) as names:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert names.reserve(Wanted(tmp_path, "a.mp4", "p")).name == "a.p"
