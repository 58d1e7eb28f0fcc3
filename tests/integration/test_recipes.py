"""The commands of docs/recipes.md and docs/coming-from.md with small inputs, and real models that packages have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from onnx import helper, numpy_helper
from PIL import Image, ImageDraw

from engines.outputs.text import font
from tests import faces, speech, taggers, towers
from tests.cli import rigflow
from tests.clips import real_clip
from tests.language import language_folder
from tests.onnx_graphs import FLOAT, model_of, value
from tests.walks import DOCS, free_port, sections, walk
from tests.weights import checked, weights

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
OCR = ("ch_PP-OCRv4_det_infer", "ch_ppocr_mobile_v2.0_cls_infer", "ch_PP-OCRv4_rec_infer")
PAGES = [(DOCS / name).read_text() for name in ("recipes.md", "coming-from.md")]
SECTIONS = {text.splitlines()[0]: text for page in PAGES for text in sections(page)[1:]}


class Recipe(NamedTuple):
    """What the recipe's folder holds before, the models that it needs, and a file with what it must make."""

    inputs: dict[str, Callable[[Path], None]]
    models: tuple[str, ...]
    made: str
    holds: str = ""


def clip(name: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(real_clip(name).read_bytes()) and None


def spoken(path: Path) -> None:
    """A real recording, as mp3 or as the sound of a film."""
    with av.open(str(speech.recording("beckett"))) as source, av.open(str(path), "w") as made:
        stream = made.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=16000)
        for frame in source.decode(audio=0):
            frame.pts = None
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def copied(path: Path) -> None:
    shutil.copy(speech.recording("beckett"), path)


def frame(name: str, scale: float = 1.0) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with av.open(str(real_clip(name))) as container:
            picture = next(container.decode(video=0)).to_image()
        picture.resize((int(picture.width * scale), int(picture.height * scale))).save(path)

    return write


def short(path: Path) -> None:
    """A film of five small pictures."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        for number in range(5):
            pixels = np.full((80, 96, 3), 40 * number, np.uint8)
            made.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        made.mux(stream.encode())


def faces_film(path: Path) -> None:
    faces.faces_film(path.parent).rename(path)


def slides(path: Path) -> None:
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 960, 540, "yuv420p"
        for text in ("Gradient descent", "42 of 50 runs"):
            page = Image.new("RGB", (960, 540), "white")
            ImageDraw.Draw(page).text((80, 120), text, font=font(44), fill="black")
            for _ in range(4):
                made.mux(stream.encode(av.VideoFrame.from_image(page)))
        made.mux(stream.encode())


def triton(path: Path) -> None:
    """A model as Triton has it in its repository, `y = x times a matrix`, and an input for it."""
    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "weights")
    node = helper.make_node("MatMul", ["x", "weights"], ["y"])
    graph = model_of([node], [value("x", FLOAT, ["N", 4])], [value("y", FLOAT, ["N", 3])], [weights])
    path.parent.joinpath("1").mkdir()
    (path.parent / "1" / "model.onnx").write_bytes(graph)
    path.write_text(
        'name: "net"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]\n'
    )


def mails(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": f"m{number}", "text": "q hello"}) + "\n" for number in range(3)))


RECIPES = {
    "Subtitles for a folder of films": Recipe(
        {"films/old/wedding.mp4": spoken}, ("faster-whisper-base",), "films/old/wedding.en.srt", "Fail better"
    ),
    "Search in twenty years of family videos": Recipe(
        {"family/2004/beach.mp4": clip("bikes")}, ("clip-vit-base-patch32",), "found.html", "family/2004/beach.mp4"
    ),
    "An old season, larger, at night": Recipe(
        {"season1/e01.mkv": short}, ("realesr-animevideov3",), "season1-large/e01.upscale.mp4"
    ),
    "People in front of the camera": Recipe(
        {"recordings/cam1.mp4": clip("bikes")}, ("yolox_s",), "found/cam1.people.csv", ",person"
    ),
    "Tags of pictures, for training captions": Recipe(
        {"pictures/a/0001.jpg": frame("bikes")}, ("wd-vit-tagger-v3",), "pictures/a/0001.txt"
    ),
    "A podcast archive as text": Recipe(
        {"podcasts/12.mp3": spoken}, ("faster-whisper-base",), "text/12.transcribe.tsv", "Fail better"
    ),
    "Faces of an old wedding film": Recipe(
        {"wedding.mp4": faces_film},
        ("face_detection_yunet_2023mar", "GFPGANv1.4"),
        "restored/wedding.restore-faces.mp4",
    ),
    "The text of recorded slides": Recipe(
        {"slides/talk.mp4": slides}, OCR, "slides-text/talk.ocr.txt", "Gradient descent"
    ),
    "The household's own OpenAI server": Recipe(
        {"memo.wav": copied}, ("faster-whisper-base", "chat-model"), "answer.txt", "Fail better"
    ),
    "Ten thousand mails by topic": Recipe(
        {"mails.jsonl": mails}, ("chat-model",), "answers/mails.topics.jsonl", '"m2", "text": "{'
    ),
    "Copies in a heap of pictures": Recipe(
        {"photos/0001.png": frame("bikes"), "photos/0002.png": frame("bikes", 0.5)},
        ("clip-vit-base-patch32",),
        "copies.html",
        "photos/0002.png",
    ),
    "Triton": Recipe(
        {
            "model_repository/net/config.pbtxt": triton,
            "x.npz": lambda path: np.savez(path, x=np.ones((2, 4), np.float32)),
        },
        ("net",),
        "answer.txt",
        "60.0",
    ),
    "Tdarr": Recipe({"series/e01.mkv": short, "incoming/e02.mkv": short}, (), "smaller/e01.to-hevc.mp4"),
    "Video2X": Recipe({"in.mp4": short}, ("realesr-animevideov3",), "large/in.upscale.mp4"),
    "FaceFusion and roop's scripts": Recipe(
        {"film.mp4": faces_film, "portraits/a.jpg": frame("carphone_pristine")},
        ("face_detection_yunet_2023mar", "GFPGANv1.4"),
        "restored/film.restore-faces.mp4",
    ),
}


def model(name: str, folder: Path) -> Path:
    """A file or folder for `rigflow model add`: real where a package has it, else small and with known answers."""
    path = folder / f"{name}.onnx"
    if name == "net":
        return folder.parent / "model_repository" / "net"
    if name == "faster-whisper-base":
        return speech.whisper(speech.BASE, folder)
    if name == "clip-vit-base-patch32":
        return towers.clip_folder(folder / name)
    if name == "wd-vit-tagger-v3":
        return taggers.wd_folder(folder / name)
    if name == "chat-model":
        return language_folder(folder / name)
    if name in OCR:
        return checked(speech.package("rapidocr_onnxruntime") / "models" / f"{name}.onnx")
    if name in ("yolox_s", "realesr-animevideov3"):
        return weights({"yolox_s": "nanodet_g_416.onnx"}.get(name, "realesr-animevideov3-x4.onnx"))
    path.write_bytes(faces.detector() if name.startswith("face") else faces.restorer(512))
    path.with_suffix(".toml").write_text(faces.DETECTOR if name.startswith("face") else faces.RESTORER)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that the commands run in, which is also their home."""
    (tmp_path / "models").mkdir()
    return tmp_path


def test_there_is_a_walk_of_each_recipe() -> None:
    assert RECIPES.keys() == SECTIONS.keys()


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe(title: str, folder: Path) -> None:
    recipe, text = RECIPES[title], SECTIONS[title]
    for name, write in recipe.inputs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name)
    for name in recipe.models:
        done = rigflow("model", "add", model(name, folder / "models"), "--name", name, "--yes", HOME=str(folder))
        assert done.returncode == 0, done.stderr
        assert name in text or "whisper" in name or "chat" in name
    broker, gateway = free_port(), free_port()
    rewrite = {
        r"^rigflow model add .*": "true",
        r"rigflow up( --settings night.toml)?": rf"rigflow up --port {broker}\1",
        "22:00-06:00": "mon-sun",
        ":4222": f":{broker}",
        r"^rigflow (topology|keys) (.*)": rf"rigflow \1 \2 --nats nats://127.0.0.1:{broker}",
        r"rigflow gateway": f"rigflow gateway --nats nats://127.0.0.1:{broker} --port {gateway}",
        r"http://(?:rig1|127\.0\.0\.1):8000(.*)": rf"http://127.0.0.1:{gateway}\1 > answer.txt",
        r"\$KEY": f"$(cat {folder}/*.out | grep -o '^rf_.*')",
        r'^grep -rn -i "parcel"': 'grep -rn -i "fail"',
        r"^grep -l .*": r"until \g<0>; do sleep 0.1; done",
    }
    said = walk(text, folder, rewrite)
    made = folder / recipe.made
    assert made.stat().st_size > 0, said
    assert recipe.holds in made.read_text(errors="replace"), made.read_text(errors="replace")
