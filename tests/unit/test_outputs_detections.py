"""detections: boxes in pixels of the source, as lines, as COCO's json and as a table."""

import csv
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.part import Array
from engines.planned import Tensor
from engines.ragged import Ragged
from schemas.errors import OutputError, PipelineError
from schemas.media import Item
from tests.unit.outputs_parts import IMAGES, VIDEO, assemble, format_of, make_part

LABELS = {"classes": ("person", "Fahrräder, rot")}
BOXES = [
    np.array([[1.5, 2, 30.25, 40], [10, 10, 20, 20]], np.float32),
    np.empty((0, 4), np.float32),
    np.array([[0, 0, 64, 48]], np.float32),
]
SCORES = [np.array([0.9, 1 / 3], np.float32), np.empty(0, np.float32), np.array([0.5], np.float32)]
CLASSES = [np.array([1, 0], np.int32), np.empty(0, np.int32), np.array([7], np.int32)]


def found(start: int = 0, stop: int = 3, **more: Sequence[Array]) -> dict[str, Any]:
    arrays = {"boxes": BOXES, "scores": SCORES, "classes": CLASSES, **more}
    return {name: Ragged.of(rows[start:stop]) for name, rows in arrays.items()}


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def decoded(rle: dict[str, Any]) -> Array:
    """The mask `[H, W]` of COCO's runs, one pixel after the other."""
    height, width = rle["size"]
    pixels: list[int] = []
    for number, count in enumerate(rle["counts"]):
        pixels += [number % 2] * count
    return np.array(pixels).reshape(width, height).T


def test_a_line_a_frame_with_boxes_in_source_pixels(tmp_path: Path) -> None:
    sizes = np.array([[48, 64], [48, 64], [50, 60]], np.int32)
    parts = [
        make_part(VIDEO, {**found(0, 2), "source_size": sizes[:2]}, [0, 25]),
        make_part(VIDEO, {**found(2, 3), "source_size": sizes[2:]}, [50], number=1),
    ]
    (path,) = assemble(format_of("detections", LABELS), tmp_path / "clip.x", VIDEO, parts)
    assert path == tmp_path / "clip.x.jsonl"
    assert read_lines(path) == [
        {
            "time": 0.0,
            "width": 64,
            "height": 48,
            "boxes": [
                {"box": [1.5, 2.0, 30.25, 40.0], "score": 0.9, "class": 1, "label": "Fahrräder, rot"},
                {"box": [10.0, 10.0, 20.0, 20.0], "score": 0.333333, "class": 0, "label": "person"},
            ],
        },
        {"time": 1.0, "width": 64, "height": 48, "boxes": []},
        {"time": 2.0, "width": 60, "height": 50, "boxes": [
            {"box": [0.0, 0.0, 64.0, 48.0], "score": 0.5, "class": 7, "label": "7"}
        ]},
    ]  # fmt: skip


def test_images_are_named_and_failures_have_reasons_everywhere(tmp_path: Path) -> None:
    items = [Item(name="a.jpg"), Item(name="böse.png", error="not an image"), Item(name='"c".webp'), Item(name="d.png")]
    part = make_part(IMAGES, {**found(), "source_size": np.array([[48, 64]] * 3)}, [0, 0, 0], items=items)
    files = assemble(format_of("detections", LABELS, coco=True, csv=True), tmp_path / "set", IMAGES, [part])
    assert [path.name for path in files] == ["set.jsonl", "set.coco.json", "set.csv"]
    lines = read_lines(files[0])
    assert lines[1] == {"name": "böse.png", "error": "not an image"}
    assert [len(line.get("boxes", ())) for line in lines] == [2, 0, 0, 1]
    coco = json.loads(files[1].read_text())
    assert [category["name"] for category in coco["categories"]] == [*LABELS["classes"], "7"]
    assert [image["file_name"] for image in coco["images"]] == [
        "a.jpg",
        '"c".webp',
        "d.png",
    ]
    with files[2].open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows] == ["a.jpg", "a.jpg", "d.png"]


def test_coco_and_the_table_say_what_the_lines_say(tmp_path: Path) -> None:
    parts = [make_part(VIDEO, found(0, 2), [0, 25]), make_part(VIDEO, found(2, 3), [50], number=1)]
    files = assemble(format_of("detections", LABELS, coco=True, csv=True), tmp_path / "a", VIDEO, parts)
    coco = json.loads(files[1].read_text())
    assert coco["images"] == [
        {"id": number + 1, "file_name": "clip.mp4", "width": 64, "height": 48, "time": float(number)}
        for number in range(3)
    ]
    assert coco["categories"] == [
        {"id": 0, "name": "person"},
        {"id": 1, "name": "Fahrräder, rot"},
        {"id": 7, "name": "7"},
    ]
    assert [
        (row["id"], row["image_id"], row["category_id"], row["bbox"], row["area"]) for row in coco["annotations"]
    ] == [
        (1, 1, 1, [1.5, 2.0, 28.75, 38.0], 1092.5),
        (2, 1, 0, [10.0, 10.0, 10.0, 10.0], 100.0),
        (3, 3, 7, [0.0, 0.0, 64.0, 48.0], 3072.0),
    ]
    assert all(row["iscrowd"] == 0 for row in coco["annotations"])
    with files[2].open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert rows[0] == {
        "time": "0.0", "width": "64", "height": "48", "x1": "1.5", "y1": "2.0", "x2": "30.25", "y2": "40.0",
        "score": "0.9", "class": "1", "label": "Fahrräder, rot",
    }  # fmt: skip
    assert [row["time"] for row in rows] == ["0.0", "0.0", "2.0"]


def test_keypoints_corners_and_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    keypoints = [np.array([[[1, 2, 0.5], [3, 4, 0]]] * len(boxes), np.float32).reshape(-1, 2, 3) for boxes in BOXES]
    corners = [
        np.array([[[1, 2], [3, 4], [5, 6], [7, 8]]] * len(boxes), np.float32).reshape(-1, 4, 2) for boxes in BOXES
    ]
    masks = [rng.integers(0, 2, (len(boxes), 24, 32), np.uint8) for boxes in BOXES]
    arrays = found(keypoints=keypoints, corners=corners, masks=masks)
    files = assemble(format_of("detections", coco=True), tmp_path / "a", VIDEO, [make_part(VIDEO, arrays, range(3))])
    lines = read_lines(files[0])
    box = lines[0]["boxes"][0]
    assert box["keypoints"] == [[1.0, 2.0, 0.5], [3.0, 4.0, 0.0]]
    assert box["corners"] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]
    # of the whole picture, a mask at half of the size: each pixel of it is where Pillow's bilinear filter puts it
    whole = Image.fromarray(masks[2][0] * 255).resize((64, 48), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded(lines[2]["boxes"][0]["mask"]), np.asarray(whole) >= 128)
    small = decoded(lines[0]["boxes"][1]["mask"])
    assert small.shape == (48, 64)
    assert small[10:20, 10:20].any()
    assert small.sum() == small[10:20, 10:20].sum()
    first = json.loads(files[1].read_text())["annotations"][1]
    assert first["keypoints"] == [1.0, 2.0, 2, 3.0, 4.0, 0]
    assert first["num_keypoints"] == 1
    assert first["segmentation"] == lines[0]["boxes"][1]["mask"]
    assert first["area"] == small.sum()


@pytest.mark.parametrize("full", [False, True])
def test_runs_of_masks_that_touch_the_borders(tmp_path: Path, full: bool) -> None:
    mask = np.full((1, 4, 4), full, np.uint8)
    arrays = {"boxes": Ragged.of([BOXES[2]]), "masks": Ragged.of([mask])}
    (path,) = assemble(format_of("detections"), tmp_path / "a", VIDEO, [make_part(VIDEO, arrays, [0])])
    assert read_lines(path)[0]["boxes"][0]["mask"]["counts"] == ([0, 48 * 64] if full else [48 * 64])


def test_boxes_alone_are_enough_and_a_fixed_number_of_them_is_fine(tmp_path: Path) -> None:
    boxes = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    media = VIDEO.model_copy(update={"width": 0, "height": 0})
    (path,) = assemble(format_of("detections"), tmp_path / "a", media, [make_part(media, {"boxes": boxes}, [0, 1])])
    assert [[box["box"] for box in line["boxes"]] for line in read_lines(path)] == boxes.tolist()
    assert read_lines(path)[0]["width"] is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(1)}, "format detections needs `boxes`, the part holds `x`: take a model whose card has a head"),
        ({"boxes": np.zeros((2, 3, 4))}, r"output `boxes` has shape \[2, 3, 4\] for 1 windows"),
        ({"boxes": np.zeros((1, 3, 4)), "source_size": np.zeros(2)}, r"`source_size` has shape \[2\] for 1 windows"),
        ({"boxes": np.zeros((1, 3, 5))}, r"a row of `boxes` has shape \[3, 5\]"),
        ({"boxes": np.zeros((1, 3, 4)), "scores": np.zeros((1, 2))}, "`scores` has 2 rows for 3 boxes"),
    ],
)
def test_parts_that_hold_no_boxes(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        format_of("detections").encode(make_part(VIDEO, arrays, [0]))


@pytest.mark.parametrize("name", ["detections", "annotated"])
def test_more_boxes_than_a_picture_can_have(name: str) -> None:
    """A model without a head may give millions: lines of them fill the memory, and drawing them takes minutes."""
    arrays = {
        "boxes": Ragged.of([np.zeros((20_001, 4), np.float32)]),
        "pixels": np.zeros((1, 48, 64, 3), np.uint8),
        "index": np.zeros((1, 1), np.int32),
    }
    with pytest.raises(PipelineError, match="a picture has 20001 boxes"):
        format_of(name).encode(make_part(VIDEO, arrays, [0]))


def test_what_a_plan_cannot_give_is_refused_at_once() -> None:
    boxes = Tensor("float32", ("W", "count", 4))
    format_of("detections").check({"boxes": boxes}, ["video"])
    wrong = {"boxes": boxes, "keypoints": Tensor("float32", ("W", "count", 17, 2))}
    with pytest.raises(PipelineError, match=r"`keypoints` is float32 \[W, count, 17, 2\]: .* takes \[W, M, any, 3\]"):
        format_of("detections").check(wrong, ["video"])
    with pytest.raises(PipelineError, match="needs `boxes`"):
        format_of("detections").check({}, ["video"])


def test_a_result_that_is_none_leaves_nothing_behind(tmp_path: Path) -> None:
    assembler = format_of("detections", coco=True).assemble(tmp_path / "a", VIDEO)
    with pytest.raises(OutputError, match="a result of detections has a line of another form"):
        assembler.add(make_part(VIDEO, {}, [0]).meta, {"rows": np.frombuffer(b'{"time": 0}\n', np.uint8)}, {})
    assembler.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_film_of_masks_takes_little_memory(tmp_path: Path) -> None:
    # one long string where the runs of a large mask would be: numbers take tracemalloc a minute
    box = {"box": [0, 0, 9, 9], "mask": {"size": "x" * 100_000, "counts": []}}
    line = json.dumps({"time": 0.0, "width": 1000, "height": 1000, "boxes": [box]}).encode() + b"\n"
    assembler = format_of("detections", coco=True, csv=True).assemble(tmp_path / "a", VIDEO)
    tracemalloc.start()
    for number in range(150):
        assembler.add(make_part(VIDEO, {}, [number]).meta, {"rows": np.frombuffer(line, np.uint8)}, {})
    files = assembler.close()
    assert tracemalloc.get_traced_memory()[1] < 10 << 20 < files[1].stat().st_size
    tracemalloc.stop()
    assert len(json.loads(files[1].read_text())["annotations"]) == 150
    assert sorted(tmp_path.iterdir()) == sorted(files)


def moving(frames: int) -> list[dict[str, Any]]:
    """One part a frame: a person that walks, one that is only seen twice, and a box too unsure to begin a track."""
    parts = []
    for number in range(frames):
        boxes = [[4 + number, 4, 24 + number, 44], [40, 30, 48, 44], [2, 40, 12, 47]]
        rows = [0, 2] if number not in (2, 3) else [0, 1, 2]
        parts.append(
            {
                "boxes": Ragged.of([np.array(boxes, np.float32)[rows]]),
                "scores": Ragged.of([np.array([0.9, 0.8, 0.2], np.float32)[rows]]),
                "classes": Ragged.of([np.array([0, 1, 0], np.int32)[rows]]),
            }
        )
    return parts


def test_numbers_of_tracks_are_in_every_file_and_the_rest_is_unchanged(tmp_path: Path) -> None:
    parts = [make_part(VIDEO, arrays, [number], number) for number, arrays in enumerate(moving(6))]
    files = [
        assemble(format_of("detections", LABELS, coco=True, csv=True, **options), tmp_path / name, VIDEO, parts)
        for name, options in (("plain", {}), ("tracked", {"track": True, "mot": True}))
    ]
    assert [path.name for path in files[1]] == [f"tracked.{end}" for end in ("jsonl", "coco.json", "csv", "mot.txt")]
    rows = read_lines(files[1][0])
    numbers = [[box.pop("track") for box in row["boxes"]] for row in rows]
    assert numbers == [[1, None], [1, None], [1, None, None], [1, 2, None], [1, None], [1, None]]
    assert rows == read_lines(files[0][0])
    found = [json.loads(each[1].read_text())["annotations"] for each in files]
    assert [row.pop("track_id", None) for row in found[1]] == [number for each in numbers for number in each]
    assert found[0] == found[1]
    with files[1][2].open(newline="") as table:
        assert [row["track"] for row in csv.DictReader(table)] == [str(n or "") for each in numbers for n in each]
    table = [line.split(",") for line in files[1][3].read_text().splitlines()]
    assert [(int(row[0]), int(row[1])) for row in table] == [(1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (5, 1), (6, 1)]
    assert table[1][2:] == ["5.0", "4.0", "20.0", "40.0", "0.9", "-1", "-1", "-1"]


def test_parts_of_any_size_give_the_same_tracks_and_images_have_none(tmp_path: Path) -> None:
    apart = [make_part(VIDEO, arrays, [number], number) for number, arrays in enumerate(moving(6))]
    joined = {name: Ragged.of([each[name].row(0) for each in moving(6)]) for name in moving(1)[0]}
    output = format_of("detections", LABELS, track=True)
    made = [assemble(output, tmp_path / f"{len(parts)}", VIDEO, parts)[0].read_bytes() for parts in (
        apart, [make_part(VIDEO, joined, range(6))]
    )]  # fmt: skip
    assert made[0] == made[1]
    (path,) = assemble(output, tmp_path / "a", IMAGES, [make_part(IMAGES, found(0, 1), [0], items=[Item(name="a")])])
    assert "track" not in path.read_text()


def test_a_table_of_tracks_needs_tracks_and_forged_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="mot = true needs track = true"):
        format_of("detections", mot=True)
    for box in (
        '"box": [1, 2, 3]',
        '"box": [1, 2, 3, 4], "class": 1e999',
        '"box": [1, 2, 3, 4], "class": 99999999999999999999',
    ):
        assembler = format_of("detections", track=True).assemble(tmp_path / "a", VIDEO)
        line = f'{{"time": 0, "width": 1, "height": 1, "boxes": [{{{box}}}]}}\n'.encode()
        with pytest.raises(OutputError, match="a result of detections has a line of another form"):
            assembler.add(make_part(VIDEO, {}, [0]).meta, {"rows": np.frombuffer(line, np.uint8)}, {})
        assembler.abort()
    assert list(tmp_path.iterdir()) == []
