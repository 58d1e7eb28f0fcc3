"""npz: rows in order, exact times, images by name."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from engines.ragged import Ragged
from schemas.errors import OutputError, PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part


def test_rows_of_all_parts_in_order_with_exact_times(tmp_path: Path) -> None:
    media = VIDEO.model_copy(update={"time_base": (1001, 30000), "origin": 7})
    rows = np.random.default_rng(1).random((5, 3)).astype(np.float32)
    parts = [
        make_part(media, {"descriptor": rows[:2], "index": np.zeros((2, 1), np.int32)}, [7, 9]),
        make_part(media, {"descriptor": rows[2:2]}, [], number=1),
        make_part(media, {"descriptor": rows[2:]}, [12, 13, 40], number=2),
    ]
    (path,) = assemble(format_of("npz"), tmp_path / "clip.fp", media, parts)
    assert path == tmp_path / "clip.fp.npz"
    with np.load(path) as file:
        assert set(file) == {"descriptor", "times"}
        np.testing.assert_array_equal(file["descriptor"], rows, strict=True)
        assert file["times"].tolist() == [pts * 1001 / 30000 for pts in (0, 2, 5, 6, 33)]


def test_equal_jobs_give_equal_files(tmp_path: Path) -> None:
    part = make_part(VIDEO, {"descriptor": np.ones((2, 3), np.float32)}, [0, 1])
    first, second = (assemble(format_of("npz"), tmp_path / name, VIDEO, [part])[0] for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_images_have_names_and_failures_have_reasons(tmp_path: Path) -> None:
    items = [Item(name="a.jpg"), Item(name="böse.png", error="not an image"), Item(name="c.webp")]
    rows = np.arange(4, dtype=np.float32).reshape(2, 2)
    part = make_part(IMAGES, {"descriptor": rows}, [0, 0], items=items)
    (path,) = assemble(format_of("npz"), tmp_path / "set.fp", IMAGES, [part])
    with np.load(path) as file:
        assert set(file) == {"descriptor", "names", "failed"}
        assert file["names"].tolist() == ["a.jpg", "c.webp"]
        assert file["failed"].tolist() == [["böse.png", "not an image"]]
        np.testing.assert_array_equal(file["descriptor"], rows)


def test_rows_of_different_lengths_are_values_and_offsets(tmp_path: Path) -> None:
    rows = [np.full((count, 4), number, np.float32) for number, count in enumerate([2, 0, 0, 3, 1])]
    parts = [
        make_part(VIDEO, {"boxes": Ragged.of(rows[start:stop]), "n": np.arange(start, stop)}, range(start, stop), part)
        for part, (start, stop) in enumerate([(0, 2), (2, 4), (4, 5)])
    ]
    (path,) = assemble(format_of("npz"), tmp_path / "a", VIDEO, parts)
    with np.load(path) as file:
        assert set(file) == {"boxes", "boxes_offsets", "n", "times"}
        assert file["boxes_offsets"].tolist() == [0, 2, 2, 2, 5, 6]
        assert file["boxes_offsets"].dtype == np.int64
        assert [row[:, 0].tolist() for row in np.split(file["boxes"], file["boxes_offsets"][1:-1])] == [
            [0, 0],
            [],
            [],
            [3, 3, 3],
            [4],
        ]
    clash = make_part(VIDEO, {"boxes": Ragged.of(rows[:1]), "boxes_offsets": np.zeros(1)}, [0])
    with pytest.raises(PipelineError, match="output `boxes_offsets`: the format uses that name itself"):
        format_of("npz").encode(clash)


def test_an_output_may_be_called_offsets(tmp_path: Path) -> None:
    arrays = {"x": np.arange(2), "x_offsets": np.arange(6).reshape(2, 3)}
    (path,) = assemble(format_of("npz"), tmp_path / "a", VIDEO, [make_part(VIDEO, arrays, [0, 1])])
    with np.load(path) as file:
        assert file["x_offsets"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_job_without_windows_is_an_empty_table(tmp_path: Path) -> None:
    (path,) = assemble(format_of("npz"), tmp_path / "a", IMAGES, [])
    with np.load(path) as file:
        assert file["names"].shape == (0,)
        assert file["failed"].shape == (0, 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((2, 4, 4), np.uint8)}, "the part holds frames and no output of a model: add an infer"),
        ({"x": np.zeros((3, 2))}, "output `x` has shape [3, 2] for 2 windows: a model must give one row a window"),
        ({"x": np.float32(1)}, "output `x` has shape [] for 2 windows"),
        ({"times": np.zeros(2)}, "output `times`: the format uses that name itself: rename the output"),
        (
            {"x": Ragged.of([np.zeros(1)] * 3)},
            "output `x` has 3 rows for 2 windows: a model must give one row a window",
        ),
        ({"file": np.zeros(2)}, "output `file`: the format uses that name itself"),
    ],
)
def test_arrays_that_are_no_rows_of_windows(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)):
        format_of("npz").encode(make_part(VIDEO, arrays, [0, 1]))


def test_an_output_that_changes_its_shape(tmp_path: Path) -> None:
    parts = [make_part(VIDEO, {"x": np.zeros((1, size))}, [size]) for size in (2, 3)]
    with pytest.raises(
        OutputError, match="output `x` changes its shape or type from part to part: give the model one input"
    ):
        assemble(format_of("npz"), tmp_path / "a", VIDEO, parts)


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    rows = np.arange(1 << 20, dtype=np.float32).reshape(1, -1)
    assembler = format_of("npz").assemble(tmp_path / "a", VIDEO)
    tracemalloc.start()
    for number in range(40):
        assembler.add(make_part(VIDEO, {}, [number]).meta, {"x": rows + number}, {})
    (path,) = assembler.close()
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    with np.load(path) as file:
        assert file["x"].shape == (40, 1 << 20)
        assert file["x"][39, 7] == 46
        assert file["times"].tolist() == [number / 25 for number in range(40)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_is_a_path_stays_in_the_archive(tmp_path: Path) -> None:
    names = ["../../evil", "/head/out", "head_out", "_head_out", "a\\b", "..", "Identity:0"]
    outputs = {name: np.full((2, 1), number, np.float32) for number, name in enumerate(names)}
    (path,) = assemble(format_of("npz"), tmp_path / "clip", VIDEO, [make_part(VIDEO, outputs, [0, 1])])
    with np.load(path) as archive:
        held = {name: archive[name].tolist() for name in archive.files}
    made = [name for number in range(len(names)) for name, rows in held.items() if rows == [[number]] * 2]
    assert made == ["__.._evil", "_head_out-2", "head_out", "_head_out", "a_b", "_", "Identity:0"]
