"""A file appears whole or not at all, whatever the format and the failure."""

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engines.files import PartFile, atomic_write
from engines.part import Part
from schemas.errors import OutputError, PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, feed, format_of, full_disk, make_part

RNG = np.random.default_rng(5)


def one_part(name: str) -> Part:
    """A part that every byte of which counts: noise does not compress."""
    if name == "video":
        planes = {"plane0": RNG.integers(0, 255, (8, 48, 64), dtype=np.uint8)}
        return make_part(VIDEO, planes, range(8))
    if name == "shots":
        pixels = RNG.integers(0, 255, (3, 90, 160, 3), dtype=np.uint8)
        index = np.array([[0, 1], [1, 2]], dtype=np.int32)
        return make_part(VIDEO, {"score": np.zeros(2, np.float32), "pixels": pixels, "index": index}, range(2))
    return make_part(VIDEO, {"score": RNG.random((2, 4000))}, range(2))


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    file = PartFile.create(tmp_path / "new" / "a.txt")
    file.write(b"whole")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt.part"]
    assert file.commit().read_bytes() == b"whole"
    file.discard()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_many_may_write_a_file_of_a_cache_and_each_reader_sees_one_of_them_entirely(tmp_path: Path) -> None:
    path, bodies = tmp_path / "new" / "a.onnx", [bytes([number]) * 300_000 for number in range(8)]
    atomic_write(path, bodies[0])
    with ThreadPoolExecutor(8) as writers:
        written = [writers.submit(atomic_write, path, body) for body in bodies * 4]
        while not all(future.done() for future in written):
            assert path.read_bytes() in bodies
            time.sleep(0.001)  # the writers need the interpreter, too
        assert [future.exception() for future in written] == [None] * len(written)
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_a_cache_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(IsADirectoryError):
        atomic_write(tmp_path / "a.onnx", b"body")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_what_was_there_stays_until_commit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    file = PartFile.create(path)
    file.write(b"new")
    file.discard()
    file.discard()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.txt.part").write_text("a long rest of a run that was killed")
    file = PartFile.create(tmp_path / "a.txt")
    file.write(b"new")
    assert file.commit().read_text() == "new"


def test_a_link_that_another_user_put_there_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.txt.part").symlink_to(victim)
    with pytest.raises(OutputError, match="a link is in the way"):
        PartFile.create(tmp_path / "a.txt")
    assert victim.read_text() == "precious"


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    first = PartFile.create(tmp_path / "a.txt")
    with pytest.raises(OutputError, match=r"cannot write .*a\.txt: .*another rigflow is writing it"):
        PartFile.create(tmp_path / "a.txt")
    first.write(b"mine")
    assert first.commit().read_text() == "mine"


@pytest.mark.parametrize("name", ["npz", "jsonl", "shots", "video"])
def test_a_file_where_the_folder_should_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write .*out.*: a file is in the way: choose another --out"):
        assemble(format_of(name), tmp_path / "out" / "clip.x", VIDEO, [one_part(name)])


def test_a_folder_where_the_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "clip.x.png").mkdir()
    with pytest.raises(OutputError, match=r"clip\.x\.png: Is a directory: a folder is in the way"):
        format_of("shots").assemble(tmp_path / "clip.x", VIDEO)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.x.png"]


@pytest.mark.parametrize("name", ["npz", "jsonl", "shots", "video"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with full_disk(1000), pytest.raises(OutputError, match=r"^cannot write [^\n]*: File too large: [^\n]*$"):
        assemble(format_of(name), tmp_path / "clip.x", VIDEO, [one_part(name)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["npz", "jsonl", "shots", "video"])
def test_abort_half_way_leaves_nothing_and_close_ends_it(tmp_path: Path, name: str) -> None:
    format_ = format_of(name)
    assembler = format_.assemble(tmp_path / "clip.x", VIDEO)
    feed(format_, assembler, [one_part(name)])
    assembler.abort()
    assembler.abort()
    assert list(tmp_path.iterdir()) == []
    assembler = format_.assemble(tmp_path / "clip.x", VIDEO)
    feed(format_, assembler, [one_part(name)])
    files = assembler.close()
    assembler.abort()
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_full_disk_with_images_leaves_nothing(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    part = make_part(IMAGES, {"pixels": pixels}, [0, 0], items=[Item(name="a"), Item(name="b")])
    with full_disk(1000), pytest.raises(OutputError, match=r"a\.png: File too large"):
        assemble(format_of("video"), tmp_path / "set", IMAGES, [part])
    assert list(tmp_path.iterdir()) == []


def test_the_folder_may_vanish_under_a_run(tmp_path: Path) -> None:
    format_ = format_of("npz")
    assembler = format_.assemble(tmp_path / "out" / "clip.x", VIDEO)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputError, match="No such file or directory: check that the folder exists"):
        assembler.close()
    assembler.abort()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "video",
            {"crv": 20},
            r"format video has no option `crv`: did you mean crf\? its options are: codec, bits, crf, preset, sound",
        ),
        ("video", {"crf": 99}, "stage encode, option crf: should be less than or equal to 63, found 99"),
        ("video", {"crf": 52}, "crf of h264 is at most 51"),
        ("video", {"preset": "fastest"}, "stage encode, option preset: .* found 'fastest'"),
        ("shots", {"threshold": "0.3"}, "stage encode, option threshold: should be a valid number, found '0.3'"),
        ("npz", {"zip": True}, "format npz has no option `zip`: its options are: none"),
        ("jsonl", {"digits": 3}, "format jsonl has no option `digits`"),
    ],
)
def test_options_that_a_format_has_not(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        format_of(name, **options)


def test_what_is_half_written_goes_with_its_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from engines.files import PartFile\n"
    code += "PartFile.create(Path(sys.argv[1])).write(b'half')"
    for end in ("", "; raise KeyboardInterrupt"):
        subprocess.run(
            [sys.executable, "-c", code + end, str(tmp_path / "a")], stderr=subprocess.DEVNULL, timeout=60, check=False
        )
        assert not list(tmp_path.iterdir())
