"""jsonl: a line a window, whose numbers any JSON reader takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from engines.ragged import Ragged
from schemas.errors import PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_a_window_in_order(tmp_path: Path) -> None:
    media = VIDEO.model_copy(update={"origin": -3})
    score = np.array([0.1, 2 / 3, 123456.789], dtype=np.float32)
    boxes = np.arange(12).reshape(3, 2, 2)
    parts = [
        make_part(media, {"score": score[:1], "boxes": boxes[:1]}, [-3]),
        make_part(media, {"score": score[1:], "boxes": boxes[1:]}, [-2, 22], number=1),
    ]
    (path,) = assemble(format_of("jsonl"), tmp_path / "clip.x", media, parts)
    assert path == tmp_path / "clip.x.jsonl"
    assert path.read_text().splitlines()[0] == '{"time": 0.0, "score": 0.1, "boxes": [[0, 1], [2, 3]]}'
    assert [row["time"] for row in read(path)] == [0.0, 0.04, 1.0]
    assert [row["score"] for row in read(path)] == [0.1, 0.666667, 123457.0]
    assert [row["boxes"] for row in read(path)] == boxes.tolist()


def test_rows_of_different_lengths_are_lists(tmp_path: Path) -> None:
    boxes = Ragged.of([np.array([[1.0, 2.0]]), np.empty((0, 2)), np.array([[3.0, 4.0], [5.0, 6.0]])])
    (path,) = assemble(format_of("jsonl"), tmp_path / "a", VIDEO, [make_part(VIDEO, {"boxes": boxes}, range(3))])
    assert [row["boxes"] for row in read(path)] == [[[1.0, 2.0]], [], [[3.0, 4.0], [5.0, 6.0]]]


def test_what_json_cannot_hold_is_null(tmp_path: Path) -> None:
    part = make_part(VIDEO, {"x": np.array([[np.nan, np.inf], [1.0, -np.inf]])}, [0, 1])
    (path,) = assemble(format_of("jsonl"), tmp_path / "a", VIDEO, [part])
    assert [row["x"] for row in read(path)] == [[None, None], [1.0, None]]


def test_images_are_named_and_failures_have_reasons(tmp_path: Path) -> None:
    items = [Item(name='say "cheese".jpg'), Item(name="böse.png", error="not an image"), Item(name="c.webp")]
    part = make_part(IMAGES, {"ok": np.array([True, False])}, [0, 0], items=items)
    (path,) = assemble(format_of("jsonl"), tmp_path / "a", IMAGES, [part])
    assert read(path) == [
        {"name": 'say "cheese".jpg', "ok": True},
        {"name": "böse.png", "error": "not an image"},
        {"name": "c.webp", "ok": False},
    ]


def test_a_part_of_failed_images_only(tmp_path: Path) -> None:
    part = make_part(IMAGES, {}, [], items=[Item(name="a.jpg", error="truncated")])
    (path,) = assemble(format_of("jsonl"), tmp_path / "a", IMAGES, [part])
    assert read(path) == [{"name": "a.jpg", "error": "truncated"}]


def test_names_that_lines_need_themselves() -> None:
    with pytest.raises(PipelineError, match="output `time`: the format uses that name itself"):
        format_of("jsonl").encode(make_part(VIDEO, {"time": np.zeros(1)}, [0]))
