"""The pipeline tag: tags of pictures and videos, as a plain script finds them, equal for every fleet."""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cases import Fleets, drawn, film, fleets, frames_of, plainly, stills, whole_and_killed
from tests.cli import rigflow
from tests.taggers import NAMES, WD_TAGS, tagger, wd_folder, wd_rows, wd_scores, wd_tags

STAGES = (("decode",), ("infer",), ("encode", "split", "collect"))
Tags = list[dict[str, Any]]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def added(home: Path, model: Path, *options: str) -> Path:
    """Add a model without a question; the folder of models."""
    done = rigflow("model", "add", model, "--yes", *options, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "guess:" not in done.stdout, done.stdout
    return home / ".local/share/rigflow/models"


def pipeline(folder: Path, model: str, *changes: tuple[str, str]) -> Path:
    """rigflow's own, with this model."""
    text = files("pipelines").joinpath("definitions", "tag.toml").read_text()
    for old, new in (('model = "wd-vit-tagger-v3"', f'model = "{model}"'), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / "tag-pipeline.toml"
    path.write_text(text)
    return path


def pictures(folder: Path) -> list[Path]:
    """Pictures of all kinds: larger and smaller than the model's, wide and tall, gray, transparent, with a palette."""
    folder.mkdir()
    ramp = np.add.outer(np.arange(500), np.arange(700)).astype(np.uint8)
    made = {
        "wide": drawn((500, 700), 1),
        "tall": drawn((640, 301), 2),
        "small": drawn((31, 90), 3),
        "exact": drawn((448, 448), 4),
        "strip": drawn((1500, 40), 5),
        "gray": drawn((460, 200), 6)[..., 0],
        "transparent": np.dstack([drawn((500, 700), 7), ramp]),
        "gray-alpha": np.dstack([ramp, ramp.T[:500, :].repeat(2, 1)[:, :700]]),
    }
    for name, picture in made.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    Image.fromarray(made["transparent"]).save(folder / "lossless.webp", lossless=True, exact=True)
    Image.fromarray(made["transparent"]).save(folder / "lossy.webp", quality=80)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(made["wide"]).save(folder / "photo.jpg", quality=85, exif=turned)
    Image.fromarray(made["tall"]).save(folder / "odd.jpeg", quality=95)
    Image.fromarray(made["gray"]).save(folder / "grayscale.jpg")
    Image.fromarray(made["wide"]).quantize(64).save(folder / "palette.png", transparency=3)
    Image.fromarray(made["transparent"]).save(folder / "image.tiff")
    return sorted(folder.iterdir())


def check_tags(found: Tags, expected: dict[str, float]) -> None:
    assert [tag["score"] for tag in found] == sorted((tag["score"] for tag in found), reverse=True)
    assert {tag["tag"] for tag in found} == expected.keys()
    for tag in found:
        assert abs(tag["score"] - expected[tag["tag"]]) < 1e-4, tag


async def test_pictures_have_the_tags_of_a_plain_script(fleet: Fleets, tmp_path: Path) -> None:
    model = wd_folder(tmp_path / "wd")
    paths = pictures(tmp_path / "in")
    [album] = await fleet.answers(pipeline(added(tmp_path, model), "wd"), paths, tmp_path / "out")
    rows = json.loads(Path(f"{album.target}.json").read_text())
    scores = wd_scores(model, paths)
    assert [row["name"] for row in rows] == [path.name for path in paths]
    for row, each, path in zip(rows, scores, paths, strict=True):
        expected = wd_tags(each)
        check_tags(row["tags"], expected)
        text = (album.target / f"{path.stem}.txt").read_text().split(", ")
        assert set(text) == {name.replace("_", " ") if len(name) > 3 else name for name in expected} - {
            *(name for name, category in wd_rows(len(each)) if category == "9")
        }


async def test_frames_of_a_film_a_second_apart(fleet: Fleets, tmp_path: Path) -> None:
    model, clip = wd_folder(tmp_path / "wd"), film(tmp_path, frames=35)
    [outcome] = await fleet.answers(pipeline(added(tmp_path, model), "wd"), [clip], tmp_path / "out")
    frames = frames_of(clip)
    shown = [frames[number] for number in (0, 10, 20, 30)]
    paths = [tmp_path / f"{number}.png" for number in range(len(shown))]
    for path, frame in zip(paths, shown, strict=True):
        Image.fromarray(frame).save(path)
    rows = json.loads(Path(f"{outcome.target}.json").read_text())
    assert [row["time"] for row in rows][:4] == [0, 1, 2, 3]
    for row, scores in zip(rows[:4], wd_scores(model, paths), strict=True):
        check_tags(row["tags"], wd_tags(scores))


def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    """With a model as v1.4's, which takes one picture at a time."""
    model = wd_folder(tmp_path / "wd", batch=1)
    path = pipeline(added(tmp_path, model), "wd", ('["video", "image"]', '["video", "image"]\nsegment_s = 0.5'))
    inputs = [film(tmp_path, frames=120), *stills(tmp_path, [(100, 150)] * 3)]
    whole_and_killed(path, inputs, tmp_path / "out", tmp_path / "cache")
    rows = json.loads((tmp_path / "out/whole/images.tag.json").read_text())
    for row, scores in zip(rows, wd_scores(model, inputs[1:]), strict=True):
        check_tags(row["tags"], wd_tags(scores))


def test_deepdanbooru_by_its_list_of_tags(tmp_path: Path) -> None:
    """RGB 0 ... 1, letterboxed, its border repeated; the best rating, and all else from 0.5 on."""
    names = [*NAMES, *(f"tag_{number}" for number in range(40)), "rating:safe", "rating:questionable"]
    folder = tmp_path / "deepdanbooru"
    folder.mkdir()
    (folder / "danbooru.onnx").write_bytes(tagger(len(names), side=512, scale=1.0))
    (folder / "tags.txt").write_text("\n".join(names) + "\n")
    (folder / "tags-character.txt").write_text("hatsune_miku_(vocaloid)\nsaber_(fate)\n")
    added(tmp_path, folder)
    picture = drawn((256, 512), 3)  # no filter is needed: it is twice as wide as high, and as wide as the model's
    Image.fromarray(picture).save(path := tmp_path / "a.png")
    arguments = ("--model", "danbooru", "--workers", "1", "--out", tmp_path / "out")
    done = rigflow("run", "tag", path, *arguments, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    values = np.pad(picture, [(128, 128), (0, 0), (0, 0)], "edge").astype(np.float32) / 255
    scores = plainly((folder / "danbooru.onnx").read_bytes(), input=values[None])["predictions_sigmoid"][0]
    best = max(("rating:safe", "rating:questionable"), key=lambda name: scores[names.index(name)])
    expected = {name: float(score) for name, score in zip(names, scores, strict=True) if score > 0.5}
    expected = {name: score for name, score in expected.items() if not name.startswith("rating:")}
    [row] = json.loads((tmp_path / "out/a.tag.json").read_text())
    check_tags(row["tags"], expected | {best: float(scores[names.index(best)])})
    categories = {tag["tag"]: tag["category"] for tag in row["tags"]}
    assert {name for name, category in categories.items() if category == "character"} <= set(NAMES)
    assert categories[best] == "rating"


@pytest.mark.parametrize("tags", [600, pytest.param(WD_TAGS, marks=pytest.mark.slow)])
def test_other_thresholds(tmp_path: Path, tags: int) -> None:
    model = wd_folder(tmp_path / "wd-v3", tags)
    added(tmp_path, model)
    path = tmp_path / "a picture.png"
    Image.fromarray(drawn((700, 500), 1)).save(path)
    options = ("--set", "infer.head.thresholds.general=0.6", "--set", "encode.escape=true", "--workers", "1")
    done = rigflow("run", "tag", path, "--model", "wd-v3", *options, "--out", tmp_path / "out", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "out/a picture.tag.json").read_text())
    expected = wd_tags(wd_scores(model, [path])[0], general=0.6)
    assert len(expected) > tags / 100
    check_tags(row["tags"], expected)


def test_a_missing_tagger_is_one_line(tmp_path: Path) -> None:
    Image.fromarray(drawn((64, 64), 1)).save(path := tmp_path / "a.png")
    done = rigflow("run", "tag", path, "--out", tmp_path / "out", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model wd-vit-tagger-v3 is missing: download model.onnx and selected_tags.csv" in done.stderr
    assert "rigflow model add wd-vit-tagger-v3" in done.stderr
