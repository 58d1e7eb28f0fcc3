"""`rigflow model`: from a file or folder to a model that pipelines find, on the command line."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from cli.app import answer
from engines.extras import install_extra
from engines.models.catalogue import own_model
from schemas.errors import ExitCode, ModelError
from tests.answering import graph
from tests.compact import compact

SIDE = 160
CELLS = 400 + 100 + 25
Said = Callable[..., tuple[str, str]]


def detector() -> bytes:
    """Of the layout of YOLOv8, with two classes: a dog from (40, 80) to (80, 120) in each picture of 160 x 160."""
    rows = np.zeros((1, 6, CELLS), np.float32)
    rows[0, :, 7] = 60, 100, 40, 40, 0.1, 0.9
    return graph({"output0": rows})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the user's files; models and previews are kept beside it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RIGFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs `rigflow model ...`: its stdout and stderr."""

    def run(*arguments: object, code: int | None = ExitCode.OK) -> tuple[str, str]:
        """`code` None: any but success."""
        ended = answer(["model", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert ended == code if code is not None else ended != ExitCode.OK, err
        return out, err

    return run


def kept(folder: Path) -> list[str]:
    models = folder.parent / "home/.local/share/rigflow/models"
    return sorted(path.name for path in models.iterdir()) if models.exists() else []


def test_a_detector_is_looked_at_tried_and_kept(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    (here / "labels.txt").write_text("cat\ndog\n")
    Image.new("RGB", (320, 320), "gray").save(here / "street.png")
    out, _ = said("add", "dogs.onnx", "--picture", "street.png", "--show", "boxes.png")
    assert max(map(len, out.splitlines())) <= 80
    assert '  heads.0.decoder = "yolov8"\n' in out
    assert "certain: labels.txt" in out
    assert '  heads.0.labels = ["cat", "dog"]\n' in out
    assert "no file names the classes" not in out
    assert "1 box\n  dog 0.90 from 80, 160 to 160, 240\n" in out
    assert "kept dogs@1" in out
    assert kept(here) == ["dogs.onnx", "dogs.toml"]
    drawn = np.asarray(Image.open(here / "boxes.png")).astype(int)
    assert (drawn[200, 80] != 128).any(), "the left side of the box"
    assert (drawn[100, 100] == 128).all()
    listed, _ = said("list")
    assert [line.split()[:3] for line in listed.splitlines()[1:2]] == [["dogs", "1", "detect"]]
    assert "fingerprint" in listed
    shown, _ = said("show", "dogs")
    assert 'labels = ["cat", "dog"]' in shown
    assert f"# takes images uint8 [1, {SIDE}, {SIDE}, 3]" in shown
    tried, _ = said("test", "dogs", "street.png")
    assert "dog 0.90 from 80, 160 to 160, 240" in tried
    assert (here.parent / "cache/previews/dogs.png").is_file()
    said("remove", "dogs")
    assert kept(here) == []


def test_a_model_for_batches_of_one_size_is_refused_with_what_to_do(here: Path, said: Said) -> None:
    logits = np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10)
    (here / "four.onnx").write_bytes(graph({"logits": logits}, (4, 3, 32, 32)))
    _, err = said("add", "four.onnx", code=None)
    assert err.splitlines()[-1] == (
        "rigflow: model `four`, input `images`: uint8 [4, 32, 32, 3] has no free batch: "
        'export it with a first dimension that is free, or 1; or say batch = "none" in its card'
    )
    assert kept(here) == []


def test_every_line_of_the_card_is_one_that_set_takes_and_the_least_sure_are_last(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    out, _ = said("add", "dogs.onnx")
    assert "no file names the classes; labels.txt beside the model, with a line a class, would\n" in out
    card = out[: out.index("\n\n")].splitlines()[1:]
    sure = [line.partition(": ")[0] for line in card if not line.startswith("  ")]
    assert sure[-1].startswith("no file names the classes")
    assert sure[:-1] == sorted(sure[:-1], key=["certain", "likely", "guess"].index)
    fields = [line.strip().replace(" = ", "=") for line in card if line.startswith("  ")]
    assert 'heads.0.kind="detect"' in fields
    spec = own_model("dogs")[0]
    said("remove", "dogs")
    said("add", "dogs.onnx", *(word for field in fields for word in ("--set", field)))
    assert own_model("dogs")[0] == spec


def test_what_is_shown_is_a_card_that_makes_the_same_model(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    said("add", "dogs.onnx")
    spec = own_model("dogs")[0]
    (here / "again.toml").write_text(said("show", "dogs")[0])
    said("remove", "dogs")
    said("add", "dogs.onnx", "--card", "again.toml")
    assert own_model("dogs")[0] == spec


def test_fields_given_by_hand_go_before_the_card_and_the_card_before_what_is_found(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    card = '[[inputs]]\nname = "images"\ncolours = "bgr"\nmean = [1.0, 2.0, 3.0]\n'
    (here / "dogs.toml").write_text(card)
    said("add", "dogs.onnx", "--set", "inputs.0.mean=[4, 5, 6]", "--set", "heads.0.threshold=0.95", "--name", "hounds")
    shown, _ = said("show", "hounds")
    assert 'colours = "bgr"' in shown
    assert "mean = [4.0, 5.0, 6.0]" in shown
    assert "\n# own kernels: none for its form\n" in shown
    assert "  0 boxes\n" in said("test", "hounds")[0]


def test_a_model_with_a_card_of_rigflow_needs_no_question(
    here: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("cli.model._agreed", lambda name, _: asked.append(name) or True)
    (here / "realesr-animevideov3-x4.onnx").write_bytes(compact(16, 64, 96))
    Image.new("RGB", (96, 64), "gray").save(here / "gray.png")
    out, _ = said("add", "realesr-animevideov3-x4.onnx", "--picture", "gray.png")
    assert "certain: rigflow's card realesr-animevideov3.toml" in out
    assert "kept realesr-animevideov3@1" in out
    assert not asked
    shown, _ = said("show", "realesr-animevideov3")
    assert "tile = [64, 96]\n" in shown
    assert "licence BSD-3-Clause" in shown
    assert "takes input uint8 [n, 64, 96, 3]" in shown
    (here / "other.onnx").write_bytes(compact(16, 64, 96))
    said("add", "other.onnx", "--picture", "gray.png")
    assert asked == ["other"]


def test_a_dry_run_keeps_nothing(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    out, _ = said("add", "dogs.onnx", "--dry-run")
    assert "1 box" in out
    assert kept(here) == []


def test_a_model_without_heads_is_kept_too(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    out, _ = said("add", "dogs.onnx", "--set", "heads=[]")
    assert f"output0: float32 [6, {CELLS}], from 0 to 100" in out


def test_outputs_that_no_head_reads_are_described_whatever_they_are_called(here: Path, said: Said) -> None:
    outputs = {"boxes": np.full((1, 3, 4), 0.5), "scores": np.full((1, 3), 0.25), "classes": np.ones((1, 3))}
    (here / "m.onnx").write_bytes(graph(outputs))
    out, _ = said("add", "m.onnx", "--set", "heads=[]")
    for name, row in (("boxes", "[3, 4], from 0.5"), ("scores", "[3], from 0.25"), ("classes", "[3], from 1 to 1")):
        assert f"  {name}: float32 {row}" in out


def with_data_outside(folder: Path) -> None:
    model = onnx.load_from_string(detector())
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=1000
    )


def test_a_folder_is_one_model_with_its_weights_and_its_name(here: Path, said: Said) -> None:
    folder = here / "hounds" / "onnx"
    folder.mkdir(parents=True)
    with_data_outside(folder)
    (folder.parent / "config.json").write_text('{"id2label": {"0": "cat", "1": "dog"}}')
    out, _ = said("add", here / "hounds")
    assert "kept hounds@1" in out
    assert "config.json: id2label has 2" in " ".join(out.split())
    assert "takes model.onnx_data, 12.6 kB: weights\ntakes config.json, " in out
    assert [name for name in kept(here) if len(name) < 64] == ["hounds.onnx", "hounds.toml"]
    assert "1 box\n  dog 0.90" in said("test", "hounds")[0]


def two(here: Path) -> None:
    (here / "a.onnx").write_bytes(detector())
    (here / "b.onnx").write_bytes(detector())


FILES: Mapping[str, Callable[[Path], object]] = {
    "nothing": lambda here: None,
    "two": two,
    "text": lambda here: (here / "m.txt").write_text("x"),
    "no model": lambda here: (here / "m.onnx").write_bytes(b"x"),
    "half of ncnn": lambda here: (here / "m.param").write_text("7767517\n"),
    "torch": lambda here: (here / "m.pth").write_bytes(b"x"),
    "pipe": lambda here: os.mkfifo(here / "m.onnx"),
    "pipe of torch": lambda here: os.mkfifo(here / "m.safetensors"),
    "empty": lambda here: (here / "m.onnx").touch(),
    "pointer": lambda here: (here / "model.onnx").write_bytes(POINTER),
    "page": lambda here: (here / "m.onnx").write_text("\n<!DOCTYPE html><html>Access denied</html>"),
    "pointer of weights": lambda here: with_pointer(here, "m.onnx.data"),
    "pointer of words": lambda here: with_pointer(here, "tokenizer.json"),
}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"


def with_pointer(here: Path, name: str) -> None:
    onnx.save(
        onnx.load_from_string(detector()),
        here / "m.onnx",
        save_as_external_data=True,
        location="m.onnx.data",
        size_threshold=0,
    )
    (here / name).write_bytes(POINTER)


@pytest.mark.parametrize(
    ("files", "given", "words"),
    [
        ("nothing", ".", ". has no model: give an .onnx file of a network or a voice, "),
        ("nothing", "m.onnx", "m.onnx: no such file: check the path"),
        ("two", ".", ". has several models: a.onnx, b.onnx: give the file of the one that you mean"),
        ("text", "m.txt", "m.txt is no model that rigflow reads"),
        ("no model", "m.onnx", "m.onnx"),
        ("half of ncnn", "m.param", "cannot read m.bin: No such file or directory: a network has both"),
        ("torch", "m.pth", "m.pth"),
        ("pipe", "m.onnx", "m.onnx is no regular file: copy its content to a file"),
        ("pipe of torch", "m.safetensors", "m.safetensors is no regular file"),
        ("empty", "m.onnx", "m.onnx is empty: download it again"),
        ("pointer", ".", "model.onnx is a pointer of Git LFS, not the file itself: fetch it by `git lfs pull`"),
        ("page", "m.onnx", "m.onnx is a web page: download the file itself"),
        ("pointer of weights", "m.onnx", "m.onnx.data is a pointer of Git LFS"),
        ("pointer of words", ".", "tokenizer.json is a pointer of Git LFS"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(here: Path, said: Said, files: str, given: str, words: str) -> None:
    FILES[files](here)
    _, err = said("add", given, code=ExitCode.USAGE)
    assert err.count("\n") == 1
    assert words in err
    if files == "torch" and importlib.util.find_spec("spandrel") is None:
        assert "needs torch and spandrel" in err
        assert err.endswith(f"{install_extra('convert')}\n")
    assert kept(here) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "inputs.0.mean"), "--set inputs.0.mean: no FIELD=VALUE"),
        (("--set", "inputs.0.nothing=1"), "inputs.0.nothing: unknown field: there are name, dtype, shape, "),
        (("--set", "inputs.0.colors=bgr"), "inputs.0.colors: unknown field: did you mean colours? there are name, "),
        (("--set", "verson=2"), "verson: unknown field: did you mean version? there are name, version, "),
        (("--set", "heads.0.decoder=yolov99"), "there is no decoder yolov99"),
        (("--set", "heads.0.kind=nothing"), "there is no head nothing"),
        (("--set", "backend=nothing"), "there is no backend nothing: there are ctranslate2, "),
        (("--set", "backend=ctranslate2"), "is one file, and backend ctranslate2 needs a folder: add its folder"),
        (("--set", "inputs=3"), "inputs: should be a valid list"),
        (("--set", "inputs=[1]"), "inputs.0: should be a valid dictionary"),
        (("--set", "heads.0.threshold=nan"), "heads.0.options.threshold.float: should be a finite number"),
        (("--set", "heads.0.threshold=2020-01-01"), "heads.0.options.threshold: input was not a valid JSON value"),
        (("--set", f'heads.0.labels=["{"x" * 257}", "b"]'), "takes UTF-8 text of at most 256 characters"),
        (("--set", f'heads.0.labels=["{"x" * 5_000_000}", "b"]'), "takes UTF-8 text of at most 256 characters"),
        (("--name", "fingerprint"), "rigflow has a model fingerprint of its own"),
        (("--name", "../evil"), "name: takes letters"),
        (("--card", "missing.toml"), "cannot read model card missing.toml"),
        (("--picture", "m.onnx"), "rigflow: m.onnx is no picture of a format that rigflow reads: give a png"),
        (("--show", "picture.nothing"), "cannot write picture.nothing: no picture has such a suffix"),
        (("--show", "m.onnx/boxes.png"), "cannot write m.onnx/boxes.png: a file is where its folder would be"),
    ],
)
def test_wrong_words_are_refused_in_a_line(here: Path, said: Said, arguments: tuple[str, str], words: str) -> None:
    (here / "m.onnx").write_bytes(detector())
    _, err = said("add", "m.onnx", *arguments, code=None)
    assert words in err
    assert err.count("\n") == 1
    assert kept(here) == []


@pytest.mark.parametrize("card", ['inputs = [{ colours = "bgr" }]', "inputs = [1]"])
def test_an_input_of_a_card_without_a_name_is_said_to_have_none(here: Path, said: Said, card: str) -> None:
    (here / "m.onnx").write_bytes(detector())
    (here / "m.toml").write_text(card)
    _, err = said("add", "m.onnx", code=ExitCode.USAGE)
    assert err == "rigflow: model card m.toml: inputs.0 has no name: the model has `images`\n"


def test_a_card_with_an_unknown_field_is_not_printed(here: Path, said: Said) -> None:
    (here / "m.onnx").write_bytes(detector())
    out, _ = said("add", "m.onnx", "--set", "inputs.0.colors=bgr", code=None)
    assert out == ""


def test_a_model_file_that_is_not_there(said: Said) -> None:
    _, err = said("add", "/no/such", code=None)
    assert err == "rigflow: /no/such: no such file: check the path\n"


def test_a_model_with_a_similar_name_is_named(here: Path, said: Said) -> None:
    (here / "m.onnx").write_bytes(detector())
    said("add", "m.onnx", "--name", "nanodet_g_416")
    _, err = said("show", "nanodet_g_461", code=ExitCode.USAGE)
    assert "there is no model nanodet_g_461: did you mean nanodet_g_416? `rigflow model list` lists" in err
    with pytest.raises(ModelError, match="model nanodet_g_461 is missing: nanodet_g_416 is there; `rigflow model add"):
        own_model("nanodet_g_461")
    with pytest.raises(ModelError, match="model other is missing: nanodet_g_416 is there; `rigflow model add FILE`"):
        own_model("other")


@pytest.mark.parametrize("command", ["show", "test", "remove"])
def test_a_model_that_is_not_there(here: Path, said: Said, command: str) -> None:
    for name in ("nothing", "../files/m"):
        _, err = said(command, name, code=ExitCode.USAGE)
        assert f"there is no model {name}: `rigflow model list` lists the models" in err


def test_models_that_come_with_rigflow_are_shown_and_stay(here: Path, said: Said) -> None:
    out, _ = said("show", "fingerprint")
    assert 'name = "fingerprint"' in out
    _, err = said("remove", "fingerprint", code=ExitCode.USAGE)
    assert "fingerprint is no model of yours" in err


def test_a_model_in_place_of_another_one_is_reported(here: Path, said: Said) -> None:
    (here / "dogs.onnx").write_bytes(detector())
    assert said("add", "dogs.onnx")[0].splitlines()[-1].startswith("kept dogs@1  ")
    toml = here.parent / "home/.local/share/rigflow/models/dogs.toml"
    before = toml.stat().st_ino
    last = said("add", "dogs.onnx")[0].splitlines()[-1]
    assert last.startswith("dogs@1  ")
    assert last.endswith(" is there already, and equal")
    assert toml.stat().st_ino == before, "it is not written again"
    other = ("add", "dogs.onnx", "--set", "heads.0.threshold=0.6")
    last = said(*other)[0].splitlines()[-1]
    assert last.startswith("kept dogs@1  ")
    assert last.endswith(", in place of another one of this name")
    assert json.loads(said(*other, "--json")[0])[0]["replaced"] is False
    assert json.loads(said("add", "dogs.onnx", "--json")[0])[0]["replaced"] is True


def test_of_two_kinds_of_files_the_last_model_is_the_one_that_is_kept(here: Path, said: Said) -> None:
    folder = here.parent / "home/.local/share/rigflow/models"
    (here / "dogs.onnx").write_bytes(detector())
    said("add", "dogs.onnx")
    (folder / "dogs.onnx").rename(folder / "dogs.json")  # as the model of a folder has it
    assert said("add", "dogs.onnx")[0].splitlines()[-1].endswith(" is there already, and equal")
    said("add", "dogs.onnx", "--set", "heads.0.threshold=0.6")
    assert kept(here) == ["dogs.onnx", "dogs.toml"]
