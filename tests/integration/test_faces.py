"""Faces of films and pictures: found, cut out, restored in batches over frames; equal for every fleet."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.media.medium import Input
from engines.models.catalogue import own_model
from schemas.pipeline import parse_pipeline
from schemas.settings import Settings
from tests.cases import Array, Fleets, arrays, check, fleets, frames_of, put, whole_and_killed, written
from tests.cli import rigflow
from tests.convolutions import convolutions, whole
from tests.faces import (
    DETECTOR,
    RESTORER,
    SIZE,
    centres,
    detector,
    drawn_faces,
    face,
    faces_film,
    psnr,
    restored,
    restorer,
    with_faces,
)
from tests.integration.a_runner import a_trial
from tests.integration.queues import eventually

STAGES = (
    ("decode", "resize"),
    ("upscale", "detect", "crop"),
    ("restore", "paste"),
    ("scale", "encode", "split", "collect"),
)
SIDE = 64
FOUND = f"""
[[stage]]
kind = "resize"
[[stage]]
kind = "infer"
name = "detect"
model = "detector"
keeps = ["pixels", "index"]
[[stage]]
kind = "crop"
size = [{SIDE}, {SIDE}]
border = [135, 133, 132]
keeps = ["pixels", "index"]
[[stage]]
kind = "infer"
name = "restore"
model = "restorer"
items = "crops"
max_batch = 8
max_delay_ms = 50.0
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def pipeline(folder: Path, stages: str) -> Path:
    put(folder, detector(), DETECTOR, "detector")
    put(folder, restorer(SIDE), RESTORER, "restorer")
    return written(folder, stages)


def faces_in(picture: Array) -> list[Array]:
    """The points of each face, as a detector's answer has them: by score, of equal ones the first."""
    return [points for which in (0, 1) if (points := centres(picture, which)) is not None]


async def test_crops_and_their_answers_are_those_of_each_frame(fleet: Fleets, tmp_path: Path) -> None:
    keeps = 'keeps = ["crops", "crop_matrix", "keypoints"]\n[[stage]]\nkind = "encode"\nformat = "npz"\n'
    path = pipeline(tmp_path, FOUND + keeps)
    film, still = faces_film(tmp_path), tmp_path / "still.png"
    Image.fromarray(drawn_faces({0: face(60, 50, 20, 30.0)})).save(still)
    inputs = [film, still]
    for outcome, given in zip(await fleet.answers(path, inputs, tmp_path / "out"), inputs, strict=True):
        found, frames = arrays(outcome), frames_of(given)
        points = [faces_in(frame) for frame in frames]
        assert found["crops_offsets"].tolist() == np.cumsum([0, *map(len, points)]).tolist()
        assert found["crops"].shape == (sum(map(len, points)), SIDE, SIDE, 3)
        all_points = np.array([place for frame in points for place in frame])
        np.testing.assert_allclose(found["keypoints"][..., :2], all_points, atol=1e-4)
        for crop, image in zip(found["crops"], found["image"], strict=True):
            assert np.abs(image - restored(restorer(SIDE), crop)).max() <= 0.51
    assert frames_of(still)[0].shape == (*SIZE, 3)


PASTED = FOUND + 'keeps = ["pixels", "index", "crop_matrix"]\n[[stage]]\nkind = "paste"\n'
TO_NPZ = '[[stage]]\nkind = "encode"\nformat = "npz"\n'


async def test_restored_faces_are_pasted_back(fleet: Fleets, tmp_path: Path) -> None:
    """As plain NumPy and SciPy do it; pixels outside of the crops are those of the frames, byte for byte."""
    path, film = pipeline(tmp_path, PASTED + TO_NPZ), faces_film(tmp_path)
    [outcome] = await fleet.answers(path, [film], tmp_path / "out")
    touched = 0
    for made, frame in zip(arrays(outcome)["image"], frames_of(film), strict=True):
        found = faces_in(frame)
        expected = with_faces(frame, found, restorer(SIDE), SIDE)
        changed = np.abs(expected - frame).max(-1) > 0
        touched += int(changed.sum())
        assert psnr(made, expected) > 50
        if found:
            assert psnr(made[changed], expected[changed]) > 50
        np.testing.assert_array_equal(
            made[~ndimage.binary_dilation(changed, iterations=2)],
            frame[~ndimage.binary_dilation(changed, iterations=2)],
        )
    assert touched > 10_000


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('items = "crops"', 'items = "faces"', "wants array `faces`"),
        ('items = "crops"', 'items = "pixels"', "`pixels` has no items"),
        ('items = "crops"', 'items = "crops"\nreads = { input = "crops" }', "neither reads nor each"),
        (f"size = [{SIDE}, {SIDE}]", "size = [32, 32]", "wants `input` as uint8 [n, 64, 64, 3]"),
        ('model = "restorer"', 'model = "detector"', "wants `images` as"),
    ],
)
def test_what_a_check_refuses(old: str, new: str, text: str, tmp_path: Path) -> None:
    stages = (FOUND + '[[stage]]\nkind = "encode"\nformat = "npz"\n').replace(old, new)
    assert text in check(pipeline(tmp_path, stages))


def test_killed_workers_change_nothing(tmp_path: Path) -> None:
    """The pipeline restore-faces itself, to H.264."""
    whole_and_killed(own_pipeline(tmp_path), [faces_film(tmp_path, frames=60)], tmp_path / "out", tmp_path / "cache")


def own_pipeline(folder: Path) -> Path:
    """rigflow's own, with networks of the tests, in segments of half a second."""
    pipeline(folder, "")
    text = files("pipelines").joinpath("definitions", "restore-faces.toml").read_text()
    for old, new in (
        ('"face_detection_yunet_2023mar"', '"detector"'),
        ('"GFPGANv1.4"', '"restorer"'),
        ("[512, 512]", f"[{SIDE}, {SIDE}]"),
        ('media = ["video", "image"]', 'media = ["video", "image"]\nsegment_s = 0.5'),
    ):
        assert old in text
        text = text.replace(old, new)
    path = folder / "own.toml"
    path.write_text(text)
    return path


async def test_images_keep_their_transparency(fleet: Fleets, tmp_path: Path) -> None:
    """Of the pipeline itself; one image has no face, and stays as it is."""
    with_face, without = drawn_faces({0: face(70, 55, 16)}), drawn_faces({}, 3)
    alpha = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1])).astype(np.uint8)
    Image.fromarray(np.dstack([with_face, alpha])).save(tmp_path / "face.png")
    Image.fromarray(without).save(tmp_path / "none.png")
    inputs = [tmp_path / "face.png", tmp_path / "none.png"]
    [album] = await fleet.answers(own_pipeline(tmp_path), inputs, tmp_path / "out")
    np.testing.assert_array_equal(np.asarray(Image.open(album.target / "none.png")), without)
    made = np.asarray(Image.open(album.target / "face.png"))
    np.testing.assert_array_equal(made[..., 3], alpha)
    assert psnr(made[..., :3], with_faces(with_face, faces_in(with_face), restorer(SIDE), SIDE)) > 50


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    done = rigflow("run", "restore-faces", faces_film(tmp_path, frames=2), "--out", tmp_path, HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model face_detection_yunet_2023mar is missing: download face_detection_yunet_2023mar.onnx" in done.stderr
    assert "; --set detect.model=NAME runs another; model " in done.stderr
    assert " is missing too: download " in done.stderr


async def test_a_background_that_a_model_upscales(fleet: Fleets, tmp_path: Path) -> None:
    """A stage gives its pictures another name, because the next network makes pictures too."""
    put(tmp_path, convolutions(2), "[[inputs]]\nname = 'input'\n[[heads]]\nkind = 'image'\n", "upscaler")
    upscale = '[[stage]]\nkind = "infer"\nname = "upscale"\nmodel = "upscaler"\nkeeps = ["pixels", "index"]\n'
    stages = PASTED.replace('keeps = ["pixels", "index"', 'keeps = ["pixels", "index", "larger"')
    first = stages.index('[[stage]]\nkind = "infer"')
    stages = stages[:first] + upscale + 'gives = { image = "larger" }\n' + stages[first:] + TO_NPZ
    path, film = pipeline(tmp_path, stages), faces_film(tmp_path, frames=7)
    [outcome] = await fleet.answers(path, [film], tmp_path / "out")
    for made, frame in zip(arrays(outcome)["image"], frames_of(film), strict=True):
        larger = whole(convolutions(2), frame)
        assert psnr(made, with_faces(frame, faces_in(frame), restorer(SIDE), SIDE, larger)) > 50
    wrong = pipeline(tmp_path, stages.replace("image = ", "images = "))
    assert "stage `upscale` makes no array `images`" in check(wrong)


async def test_faces_of_three_hundred_frames_fill_batches(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third frame has one, every sixth two: a part has some four, and a batch eight.

    A batch that is not full waits while work is waiting here or at the broker, not for a time.
    """
    monkeypatch.setattr("workers.batch_wait.LEAST_S", 60.0)  # on a busy machine the next part is late
    monkeypatch.setattr("workers.batch_wait.MOST_S", 60.0)
    monkeypatch.setattr("workers.batching._READ_S", 60.0)
    monkeypatch.setattr("workers.intake.LATE_S", 3.0)  # and so is the broker's answer
    film = faces_film(tmp_path, frames=300, every=3)
    path = pipeline(
        tmp_path,
        FOUND.replace("max_delay_ms = 50.0", "max_delay_ms = 1.0") + '[[stage]]\nkind = "encode"\nformat = "npz"\n',
    )
    spec = parse_pipeline(path.read_text(), path.name)
    models = {name: own_model(name, tmp_path) for name in spec.model_names.values()}
    sessions = {name: OnnxRuntimeSession(body, card) for name, (card, body) in models.items()}
    async with a_trial(settings, spec, sessions) as trial:
        trial.runner.intake.pause()  # so that all segments wait at the broker when work begins
        await trial.publisher.publish(trial.ref("film"), "video", [Input(film, film.name)])
        trial.runner.intake.resume()
        stages = trial.runner.meter.stages
        await eventually(lambda: stages["p", "encode"].frames == 300)
        counts = stages["p", "restore"]
    faces = 100 + 50
    assert counts.rows == faces
    assert counts.room == 8 * counts.batches
    print(f"{counts.rows} rows in {counts.batches} batches of 8: {counts.rows / counts.room:.3f} full")
    # 19 are as few as hold them; batches that wait for a time alone are 27
    assert counts.batches <= 20, f"{counts.rows} rows in {counts.batches} batches of 8"
