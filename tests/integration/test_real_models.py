"""Real models, added by `rigflow model add` and nothing else, through a fleet: the answers of a plain script."""

import json
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests import plain_models
from tests.cases import Array, Fleets, check, drawn, film, fleets, frames_of, lines, to, written
from tests.cli import rigflow
from tests.clips import real_clip
from tests.weights import weights

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache")) as started:
        yield started


def added(
    monkeypatch: pytest.MonkeyPatch, home: Path, file: str, *options: str, labels: str = "", called: str = ""
) -> str:
    """Copy a real model, `called` otherwise or not, and its labels into a folder, add it, and give its name."""
    monkeypatch.setenv("HOME", str(home))
    folder = home / "download"
    folder.mkdir(parents=True)
    path = Path(shutil.copy(weights(file), folder / called))
    if labels:
        (folder / "labels.txt").write_text(labels)
    done = rigflow("model", "add", path, "--yes", *options, HOME=str(home))
    assert done.returncode == 0, done.stderr
    [name] = re.findall(r"^kept (.+)@", done.stdout, re.MULTILINE)  # a card that comes with rigflow has a name
    return str(name)


def pngs(folder: Path, pictures: dict[str, Array]) -> list[Path]:
    """A png of each picture, in the order of their names."""
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in sorted(pictures)]


async def test_nanodet(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five frames a second of two clips, and frames of both in one album."""
    name = added(monkeypatch, tmp_path, "nanodet_g_416.onnx")
    run = plain_models.session(weights("nanodet_g_416.onnx"))
    clips = [real_clip(clip) for clip in ("bikes", "carphone_pristine")]
    album = {f"{clip.stem}{n}": rgb for clip in clips for n, rgb in plain_models.rgb_of(clip, {10, 60, 115}).items()}
    inputs = [*clips, *pngs(tmp_path, album)]
    pipeline = written(tmp_path, to("detections", f'model = "{name}"'), "fps = 5")
    *of_clips, of_album = [lines(each) for each in await fleet.answers(pipeline, inputs, tmp_path / "out")]
    for clip, rows in zip(clips, of_clips, strict=True):
        with av.open(str(clip)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        seen = [max(n for n, time in enumerate(times) if time - times[0] <= row["time"] + 1e-9) for row in rows]
        frames = plain_models.rgb_of(clip, set(seen))
        for number, row in zip(seen, rows, strict=True):
            check_boxes(row, plain_models.nanodet(run, frames[number]))
    for row, path in zip(of_album, inputs[2:], strict=True):
        check_boxes(row, plain_models.nanodet(run, frames_of(path)[0]))
    assert sum(len(row["boxes"]) for rows in (*of_clips, of_album) for row in rows) > 60


def check_boxes(row: dict[str, Any], expected: list[tuple[list[float], float, int]]) -> None:
    boxes = row["boxes"]
    assert [box["class"] for box in boxes] == [label for _, _, label in expected]
    for box, (corners, score, _) in zip(boxes, expected, strict=True):
        np.testing.assert_allclose(box["score"], score, atol=1e-4)
        np.testing.assert_allclose(box["box"], corners, atol=0.1)
        assert plain_models.overlap(np.array(box["box"]), np.array(corners)) > 0.99


async def test_efficientnet(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "\n".join(f"name of {number}" for number in range(1000))
    name = added(monkeypatch, tmp_path, "efficientnet-lite0.onnx", labels=names)
    run = plain_models.session(weights("efficientnet-lite0.onnx"))
    album = {clip: plain_models.rgb_of(real_clip(clip), {60})[60] for clip in ("bikes", "carphone_pristine")}
    album["wide"] = drawn((224, 500), 3)
    inputs = [*pngs(tmp_path, album), tmp_path / "photo.jpg"]
    Image.fromarray(album["bikes"]).save(inputs[-1], quality=85)
    pipeline = tmp_path / "tag-pipeline.toml"
    pipeline.write_text(
        files("pipelines").joinpath("definitions", "tag.toml").read_text().replace("wd-vit-tagger-v3", name)
    )
    [outcome] = await fleet.answers(pipeline, inputs, tmp_path / "out")
    for row, path in zip(json.loads(Path(f"{outcome.target}.json").read_text()), inputs, strict=True):
        expected = plain_models.efficientnet(run, np.asarray(Image.open(path).convert("RGB")))
        order = np.argsort(-expected, kind="stable")[:5]
        assert [tag["tag"] for tag in row["tags"]] == [f"name of {number}" for number in order]
        np.testing.assert_allclose([tag["score"] for tag in row["tags"]], expected[order], atol=1e-4)


async def test_animevideo(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the source's size, whatever that is: nothing in the file's name proposes tiles."""
    name = added(monkeypatch, tmp_path, "realesr-animevideov3-x4.onnx", called="larger.onnx")
    run = plain_models.session(weights("realesr-animevideov3-x4.onnx"))
    inputs = [
        film(tmp_path, frames=6, size=(30, 46)),
        *pngs(tmp_path, {"a": drawn((21, 33), 1), "b": drawn((40, 24), 2)}),
    ]
    of_film, of_album = await fleet.answers(written(tmp_path, to("image", f'model = "{name}"')), inputs, tmp_path / "o")
    for path in inputs[1:]:
        made = np.asarray(Image.open(of_album.target / path.name)).astype(int)
        expected = upscaled(run, frames_of(path)[0])
        assert np.abs(made - expected).max() <= 1
        assert (made != expected).mean() < 1e-3
    with av.open(f"{of_film.target}.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(120, 184, 3)] * 6
    for made, frame in zip(frames, frames_of(inputs[0]), strict=True):
        assert np.abs(made.astype(float) - upscaled(run, frame)).mean() < 8  # what 4:2:0 and x264 cost


def upscaled(run: Callable[[Array], list[Array]], rgb: Array) -> Array:
    (values,) = run((rgb / np.float32(255)).transpose(2, 0, 1)[None])
    return np.asarray(np.rint(np.clip(values[0], 0, 1) * 255)).transpose(1, 2, 0)


@pytest.mark.parametrize(("net", "side"), [("pnet", 0), ("rnet", 24), ("onet", 48)])
async def test_mtcnn(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str, side: int) -> None:
    """P-Net over pictures of any size, R-Net and O-Net over pictures that show a candidate each."""
    name = added(monkeypatch, tmp_path, f"mtcnn/{net}.onnx", "--set", "heads.0.threshold=0.01")
    run = plain_models.session(weights(f"mtcnn/{net}.onnx"))
    frame = plain_models.rgb_of(real_clip("carphone_pristine"), {10})[10]
    face = frame[10:90, 40:120]
    crop = np.asarray(Image.fromarray(face).resize((side or 40,) * 2, Image.Resampling.BOX))
    inputs = pngs(tmp_path, {"crop": crop, "other": drawn((side or 30, side or 64), 5)})
    pipeline = written(tmp_path, to("detections", f'model = "{name}"'))
    [outcome] = await fleet.answers(pipeline, inputs, tmp_path / "out")
    assert any(row["boxes"] for row in lines(outcome))
    for row, path in zip(lines(outcome), inputs, strict=True):
        rgb = frames_of(path)[0]
        outputs = run(((rgb - np.float32(127.5)) / np.float32(128)).swapaxes(0, 1)[None])  # columns before rows
        outputs = [each.swapaxes(1, 2) if each.ndim == 4 else each for each in outputs]
        (scores,) = (each[0, ..., 1].reshape(-1) for each in outputs if each.shape[-1] == 2)
        (shifts,) = (each[0].reshape(-1, 4) for each in outputs if each.shape[-1] == 4)
        best = int(scores.argmax())
        if scores[best] <= 0.01:
            assert row["boxes"] == []
            continue
        columns = (rgb.shape[1] - 12) // 2 + (rgb.shape[1] % 2) + 1  # of P-Net's map
        x, y = (0, 0) if side else (best % columns * 2, best // columns * 2)
        box = np.array([x, y, x, y]) + [0, 0, side or 12, side or 12] + shifts[best] * (side or 12)
        np.testing.assert_allclose(row["boxes"][0]["score"], scores[best], atol=1e-4)
        np.testing.assert_allclose(row["boxes"][0]["box"], np.clip(box, 0, rgb.shape[1::-1] * 2), atol=0.1)
        if net == "onet":
            (points,) = (each[0] for each in outputs if each.shape[-1] == 10)
            found = np.array(row["boxes"][0]["keypoints"])
            np.testing.assert_allclose(found[:, :2], np.clip(points.reshape(2, 5).T * side, 0, side), atol=0.1)


async def test_animevideov3_in_tiles(fleet: Fleets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card's overlap follows from the file's name; the plain script takes whole frames."""
    name = added(monkeypatch, tmp_path, "realesr-animevideov3-x4.onnx", "--set", "inputs.0.tile=[96,96]")
    card = tomllib.loads((tmp_path / ".local/share/rigflow/models" / f"{name}.toml").read_text())
    assert (card["inputs"][0]["tile"], card["inputs"][0]["overlap"]) == ([96, 96], 18)
    run = plain_models.session(weights("realesr-animevideov3-x4.onnx"))
    album = {"carphone": plain_models.rgb_of(real_clip("carphone_pristine"), {60})[60]}
    album["bikes"] = np.ascontiguousarray(plain_models.rgb_of(real_clip("bikes"), {60})[60][40:141, 60:203])
    inputs = pngs(tmp_path, album)
    [outcome] = await fleet.answers(written(tmp_path, to("image", f'model = "{name}"')), inputs, tmp_path / "out")
    for path in inputs:
        expected = upscaled(run, frames_of(path)[0])
        made = np.asarray(Image.open(outcome.target / path.name)).astype(int)
        assert np.abs(made - expected).max() <= 1, path.name
        assert (made != expected).mean() < 1e-4, path.name


def test_silero_is_kept_with_its_state_and_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline of sound runs it, one of pictures does not."""
    name = added(monkeypatch, tmp_path, "silero_vad.onnx")
    card = tomllib.loads((tmp_path / ".local/share/rigflow/models" / f"{name}.toml").read_text())
    inputs = {each["name"]: each for each in card["inputs"]}
    assert inputs["sr"]["value"] == 16000
    assert inputs["state"]["state"] == {"output": "stateN"}
    assert [inputs["input"][field] for field in ("rate", "samples", "context")] == [16000, 512, 64]
    text = to("npz", f'model = "{name}"')
    assert "takes sound, and the pipeline's media are decoded to pictures" in check(written(tmp_path, text))
    assert check(written(tmp_path, text, media='["audio"]')) == ""
