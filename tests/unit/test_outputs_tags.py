"""tags: the labels of each picture as json, as a table, and as the text files that training reads."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import OutputError, PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

LABELS = {
    "tags": ("general", "1girl", "long_hair", "^_^", "hatsune_miku_(初音)", "comma, quote"),
    "tags.categories": ("rating", "general", "general", "general", "character", "general"),
}
ITEMS = [Item(name="a.jpg"), Item(name="böse.png", error="not an image"), Item(name="b.png"), Item(name="x/a.jpeg")]
TAGGED = {
    "tags": Ragged.of([np.array([0, 1, 2, 3]), np.array([], int), np.array([4, 5])]),
    "scores": Ragged.of([np.array([0.9, 0.8, 0.7, 0.6]), np.array([]), np.array([2 / 3, 0.5])]),
}


def make_files(folder: Path, **options: Any) -> dict[str, Path]:
    part = make_part(IMAGES, TAGGED, [0, 0, 0], items=ITEMS)
    files = assemble(format_of("tags", LABELS, **options), folder / "set", IMAGES, [part])
    return {str(path.relative_to(folder)): path for path in files}


def test_each_picture_has_its_tags_by_score(tmp_path: Path) -> None:
    files = make_files(tmp_path, csv=True)
    rows = json.loads(files["set.json"].read_text())
    assert rows == [
        {
            "name": "a.jpg",
            "tags": [
                {"tag": "general", "score": 0.9, "category": "rating"},
                {"tag": "1girl", "score": 0.8, "category": "general"},
                {"tag": "long_hair", "score": 0.7, "category": "general"},
                {"tag": "^_^", "score": 0.6, "category": "general"},
            ],
        },
        {"name": "böse.png", "error": "not an image"},
        {"name": "b.png", "tags": []},
        {
            "name": "x/a.jpeg",
            "tags": [
                {"tag": "hatsune_miku_(初音)", "score": 0.666667, "category": "character"},
                {"tag": "comma, quote", "score": 0.5, "category": "general"},
            ],
        },
    ]
    with files["set.csv"].open(newline="") as table:
        read = [(row["name"], row["tag"], float(row["score"]), row["category"]) for row in csv.DictReader(table)]
    assert read == [
        (row["name"], tag["tag"], tag["score"], tag["category"]) for row in rows for tag in row.get("tags", ())
    ]


def test_a_text_file_beside_each_picture_as_taggers_write(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    assert sorted(files) == ["set.json", "set/a-2.txt", "set/a.txt", "set/b.txt"]
    assert files["set/a.txt"].read_text() == "1girl, long_hair, ^_^"
    assert files["set/b.txt"].read_text() == ""
    assert files["set/a-2.txt"].read_text() == "hatsune_miku_(初音), comma, quote"


def test_text_files_with_spaces_and_all_categories(tmp_path: Path) -> None:
    files = make_files(tmp_path, spaces=True, without="")
    assert files["set/a.txt"].read_text() == "general, 1girl, long hair, ^_^"
    assert sorted(make_files(tmp_path / "b", txt=False)) == ["set.json"]


def test_classes_of_a_video_and_of_boxes(tmp_path: Path) -> None:
    classes = np.array([[2, 0], [1, 2]], np.int32)
    parts = [
        make_part(VIDEO, {"classes": classes[:1], "scores": np.array([[0.7, 0.2]])}, [0]),
        make_part(VIDEO, {"classes": classes[1:], "scores": np.array([[0.5, 0.1]])}, [25], number=1),
    ]
    files = assemble(format_of("tags", {"classes": ("cat", "dog")}), tmp_path / "a", VIDEO, parts)
    assert [path.name for path in files] == ["a.json"]
    assert json.loads(files[0].read_text()) == [
        {"time": 0.0, "tags": [{"tag": "2", "score": 0.7}, {"tag": "cat", "score": 0.2}]},
        {"time": 1.0, "tags": [{"tag": "dog", "score": 0.5}, {"tag": "2", "score": 0.1}]},
    ]
    boxes = make_part(VIDEO, {"classes": Ragged.of([np.array([1, 0, 1])])}, [0])
    (path,) = assemble(format_of("tags"), tmp_path / "b", VIDEO, [boxes])
    assert json.loads(path.read_text()) == [{"time": 0.0, "tags": [{"tag": "1"}, {"tag": "0"}]}]


def test_a_job_without_windows_is_an_empty_list(tmp_path: Path) -> None:
    (path,) = assemble(format_of("tags"), tmp_path / "a", IMAGES, [])
    assert json.loads(path.read_text()) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(1)}, "format tags needs `tags` or `classes`, the part holds `x`: take a model whose card"),
        ({"tags": np.zeros((2, 1), int)}, r"output `tags` has shape \[2, 1\] for 1 windows"),
        ({"tags": np.zeros((1, 2), int), "scores": np.zeros((1, 3))}, r"a row of `tags` has shape \[2\]"),
        ({"tags": np.zeros((1, 2, 2), int)}, r"a row of `tags` has shape \[2, 2\]"),
    ],
)
def test_parts_that_hold_no_tags(arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        format_of("tags").encode(make_part(VIDEO, arrays, [0]))


def test_what_a_plan_cannot_give_is_refused_at_once() -> None:
    tags = Tensor("int32", ("W", "count"))
    format_of("tags").check({"tags": tags}, ["image"])
    with pytest.raises(PipelineError, match=r"`tags` is int32 \[W\]: format tags takes \[W, M\]"):
        format_of("tags").check({"tags": replace(tags, shape=("W",))}, ["image"])


def test_a_result_that_is_none_leaves_nothing_behind(tmp_path: Path) -> None:
    assembler = format_of("tags", csv=True).assemble(tmp_path / "a", IMAGES)
    with pytest.raises(OutputError, match="a result of tags has a line of another form"):
        assembler.add(make_part(IMAGES, {}, [0]).meta, {"rows": np.frombuffer(b'{"name": "a"}\n', np.uint8)}, {})
    assembler.abort()
    assert list(tmp_path.iterdir()) == []
