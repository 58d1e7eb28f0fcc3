"""Models of pictures and texts: added from the layouts that people download, without a question; vectors of texts."""

import os
from pathlib import Path

import numpy as np
import pytest

from engines.content import ModelFiles
from engines.models.catalogue import own_model
from engines.models.identities import kept_spec
from engines.models.text import embed_texts, token_ids
from schemas.errors import ExitCode, ModelError, UsageError
from schemas.model import TextSpec
from tests.cli import rigflow
from tests.clip_tokens import clip_tokenizer
from tests.towers import LENGTH, MERGES, SCALE, SIGLIP_BIAS, SIGLIP_SCALE, WIDTH, WORDS, clip_folder, text_vector


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
    assert [output.name for output in spec.outputs] == ["image_embeds"]
    pad = WORDS["!"] if layout == "siglip" else WORDS["<|endoftext|>"]
    scale, bias = (SIGLIP_SCALE, SIGLIP_BIAS) if layout == "siglip" else (SCALE, None)
    assert spec.text is not None
    assert (spec.text.graph, spec.text.tokenizer) == ("text_model.onnx", "tokenizer.json")
    assert (spec.text.length, spec.text.pad) == (LENGTH, pad)
    assert spec.text.scale == pytest.approx(scale, abs=1e-3)
    assert spec.text.bias == (None if bias is None else pytest.approx(bias, abs=1e-3))
    vectors = embed_texts(spec, content, ["a red picture", "BLUE", ""])
    padded = "!" if layout == "siglip" else ""
    expected = [["a</w>", "red</w>", "picture</w>"], ["blue</w>"], []]
    for made, tokens in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(made, text_vector(tokens, padded), atol=1e-5)


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
    assert "use length; there are graph, tokenizer, length" in done.stderr
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
    spec, content = own_model("mine")
    with pytest.raises(UsageError, match=r"pip install 'rigflow\[search\]'"):
        embed_texts(spec, content, ["red"])


def test_labels_make_a_model_that_names_pictures(tmp_path: Path) -> None:
    """Of CLIP the softmax of scaled cosines, of SigLIP a sigmoid with its bias."""
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    for layout in ("both", "siglip"):
        added(clip_folder(tmp_path / layout, layout))
        options = ("--labels", tmp_path / "labels.txt", "--name", f"{layout}-colours", "--template", "a picture of {}")
        done = rigflow("model", "label", layout, *options, HOME=os.environ["HOME"])
        assert done.returncode == ExitCode.OK, done.stderr
        spec, _ = own_model(f"{layout}-colours")
        assert spec.text is None
        assert {head.kind for head in spec.heads} == {"embed", "classify"}
        assert spec.heads[1].options["activation"] == ("softmax" if layout == "both" else "sigmoid")
