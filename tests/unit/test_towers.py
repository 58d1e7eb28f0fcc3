"""Models of pictures and texts: added from the layouts that people download, without a question; vectors of texts."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.content import ModelFiles
from engines.heads.view import View
from engines.inference.heads import Heads
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import own_model
from engines.models.identities import kept_spec
from engines.models.text import embed_texts, token_ids
from schemas.errors import ExitCode, ModelError, PluginMissing
from schemas.model_files import TextSpec
from tests.cli import rigflow
from tests.clip_tokens import clip_tokenizer
from tests.towers import (
    COLOURS,
    LENGTH,
    MERGES,
    SCALE,
    SIDE,
    SIGLIP_BIAS,
    SIGLIP_SCALE,
    WIDTH,
    WORDS,
    clip_folder,
    picture_vector,
    text_vector,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def added(folder: Path, *options: str) -> str:
    done = rigflow("model", "add", folder, *options, HOME=os.environ["HOME"])
    assert done.returncode == ExitCode.OK, done.stderr
    return done.stdout


@pytest.mark.parametrize("layout", ["split", "both", "siglip", "immich"])
def test_a_folder_is_added_without_a_question(tmp_path: Path, layout: str) -> None:
    out = added(clip_folder(tmp_path / "mine", layout))
    guesses = out.partition("\nguess: ")[2].partition("\n\n")[0]
    assert "inputs." not in guesses, "how pictures are made is certain"
    assert guesses == "" or layout in ("split", "immich"), "the scale of labels is in the graph of scores alone"
    spec, content = own_model("mine")
    [picture] = [tensor.picture for tensor in spec.inputs]
    assert picture is not None
    assert (picture.size, picture.fit, picture.resize, picture.antialias) == ((32, 32), "crop", "bicubic", True)
    assert [head.kind for head in spec.heads] == ["embed"]
    assert len(spec.outputs) == 1, "no stage reads the others"
    padded = "!" if layout in ("siglip", "immich") else ""
    pad = WORDS[padded or "<|endoftext|>"]
    scale, bias = (SIGLIP_SCALE, SIGLIP_BIAS) if layout == "siglip" else (SCALE, None)
    assert spec.text is not None
    assert (spec.text.graph, spec.text.tokenizer) == ("text_model.onnx", "tokenizer.json")
    assert (spec.text.length, spec.text.pad) == (LENGTH, pad)
    assert spec.text.scale == pytest.approx(scale, abs=1e-3)
    assert spec.text.bias == (None if bias is None else pytest.approx(bias, abs=1e-3))
    vectors = embed_texts(spec, content, ["a red picture", "BLUE", "", "red!"])
    mark = [] if layout == "immich" else ["!</w>"]
    expected = [["a</w>", "red</w>", "picture</w>"], ["blue</w>"], [], ["red</w>", *mark]]
    for made, tokens in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(made, text_vector(tokens, padded), atol=1e-5)


@pytest.mark.parametrize(("layout", "file"), [("split", "onnx/vision_model.onnx"), ("both", "model.onnx")])
def test_a_single_file_is_a_tower_of_pictures_alone(tmp_path: Path, layout: str, file: str) -> None:
    added(clip_folder(tmp_path / "mine", layout) / file)
    spec, content = own_model("mine")
    assert (spec.text, spec.files) == (None, ())
    assert [head.kind for head in spec.heads] == ["embed"]
    with pytest.raises(ModelError, match="model mine has no text tower: add a folder with"):
        embed_texts(spec, content, ["red"])


def test_the_identity_is_known_without_loading_the_model_and_changes_with_the_card(tmp_path: Path) -> None:
    added(clip_folder(tmp_path / "mine"))
    spec, _ = own_model("mine")
    for _ in range(2):
        known, content = kept_spec("mine", tmp_path / "cache")
        assert known == spec
    assert isinstance(content, ModelFiles)
    assert not content.graph, "the second time it was not loaded"
    assert len(embed_texts(known, content, ["red"])[0]) == WIDTH
    added(tmp_path / "mine", "--set", "text.pad=0")
    assert kept_spec("mine", tmp_path / "cache")[0] == own_model("mine")[0] != spec


def test_long_texts_are_cut_and_keep_their_end() -> None:
    text = TextSpec(graph="g", tokenizer="t", length=LENGTH, pad=5)
    ids, mask = token_ids(clip_tokenizer(MERGES), text, ["red " * 200, "red", ""])
    end, red = WORDS["<|endoftext|>"], WORDS["red</w>"]
    assert ids[0].tolist() == [WORDS["<|startoftext|>"], *[red] * (LENGTH - 2), end]
    assert ids[1].tolist() == [WORDS["<|startoftext|>"], red, end, *[5] * (LENGTH - 3)]
    assert mask.sum(axis=1).tolist() == [LENGTH, 3, 2]


def test_what_is_wrong_is_one_true_line(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "mine")
    added(folder)
    spec, content = own_model("mine")
    with pytest.raises(ModelError, match="model mine has no text tower: add a folder with"):
        embed_texts(spec.model_copy(update={"text": None}), content, ["red"])
    assert spec.text is not None
    for field, value, words in (
        ("tokenizer", "other.json", "text names other.json, which is no file of it: its files are: text_model.onnx"),
        ("output", "logits", "its graph of texts has no output logits: correct text.output"),
    ):
        wrong = spec.model_copy(update={"text": spec.text.model_copy(update={field: value})})
        with pytest.raises(ModelError, match=words):
            embed_texts(wrong, content, ["red"])
    done = rigflow("model", "add", folder, "--set", "text.graph=other.onnx", HOME=os.environ["HOME"])
    assert "text names other.onnx, which is no file of it" in done.stderr
    done = rigflow("model", "add", folder, "--set", "text.lenght=3", HOME=os.environ["HOME"])
    assert "did you mean length? there are graph, tokenizer, length" in done.stderr
    (folder / "tokenizer.json").write_text("{}")
    done = rigflow("model", "add", folder, HOME=os.environ["HOME"])
    assert "tokenizer.json cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_extra_a_model_is_added_and_words_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none" / "tokenizers").mkdir(parents=True)
    (tmp_path / "none/tokenizers/__init__.py").write_text("raise ImportError('no tokenizers')")
    folder = clip_folder(tmp_path / "mine")
    paths = f"{tmp_path / 'none'}:{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", paths)
    done = rigflow("model", "add", folder, HOME=os.environ["HOME"], PYTHONPATH=paths)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "its texts are not tried: searching by words needs the package tokenizers" in done.stdout
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PluginMissing, match="install the extra search: "):
        token_ids("{}", TextSpec(graph="g", tokenizer="t", length=LENGTH), ["red"])


def test_labels_make_a_model_that_names_pictures(tmp_path: Path) -> None:
    """Of CLIP the softmax of scaled cosines, of SigLIP a sigmoid with its bias; the vectors are in the graph."""
    (tmp_path / "labels.txt").write_text("red\n\ngreen\nblue\n")
    picture = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    for layout, scale, bias in (("both", SCALE, None), ("siglip", SIGLIP_SCALE, SIGLIP_BIAS)):
        added(clip_folder(tmp_path / layout, layout))
        options = ("--labels", tmp_path / "labels.txt", "--name", "colours", "--template", "a {}", "--template", "{} !")
        done = rigflow("model", "label", layout, *options, HOME=os.environ["HOME"])
        assert done.returncode == ExitCode.OK, done.stderr
        assert " 3 labels" in done.stdout
        spec, content = own_model("colours")
        assert (spec.text, len(spec.files)) == (None, 3), "workers need no tower of texts"
        outputs = OnnxRuntimeSession(content, spec).run({"pixel_values": picture[None]})
        size = (SIDE, SIDE)
        made = Heads(spec)(outputs, [View(size, size, size)], 1)
        pad = "!" if layout == "siglip" else ""
        texts = [
            [text_vector(["a</w>", f"{word}</w>"], pad), text_vector([f"{word}</w>", "!</w>"], pad)] for word in COLOURS
        ]
        means = np.array([np.mean(pair, axis=0) / np.linalg.norm(np.mean(pair, axis=0)) for pair in texts])
        cosines = means @ picture_vector(picture)
        logits = scale * cosines + (bias or 0)
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        if bias is not None:
            expected = 1 / (1 + np.exp(-logits))
        order = np.asarray(made["classes"])[0]
        assert order.tolist() == np.argsort(-logits).tolist()
        np.testing.assert_allclose(np.asarray(made["scores"])[0], expected[order], atol=2e-4)
        np.testing.assert_allclose(np.asarray(made["embedding"])[0], picture_vector(picture), atol=1e-5)


def test_what_cannot_have_labels_is_one_line(tmp_path: Path) -> None:
    added(clip_folder(tmp_path / "mine", "immich"))
    (tmp_path / "labels.txt").write_text("red\n")
    (tmp_path / "none.txt").write_text("\n")
    for labels, options, words in (
        ("labels.txt", ("--template", "a photo"), "the template a photo has no {}: write {} for the label"),
        ("none.txt", (), "there are 0 labels: give 1 to 100,000, a line each"),
        ("no.txt", (), "cannot read"),
        ("labels.txt", (), "the scale of its scores is not known: add it again with --set text.scale=..."),
    ):
        if not options and labels == "labels.txt":
            added(tmp_path / "mine", "--set", "text.scale=0")
        done = rigflow(
            "model", "label", "mine", "--labels", tmp_path / labels, "--name", "new", *options, HOME=os.environ["HOME"]
        )
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
