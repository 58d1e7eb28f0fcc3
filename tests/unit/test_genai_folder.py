"""Folders of ONNX Runtime GenAI: what is taken, what settings may say, and errors where the library is missing."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.backends.onnxruntime_genai import OnnxRuntimeGenAi
from engines.content import ModelFiles
from engines.device import open_device
from engines.inference.genai_folder import laid_out, limits_of, overlay_of
from engines.models.catalogue import load_model
from engines.models.folder_kinds import kind_of_folder, take_folder
from engines.models.store import kept_path, new_files
from schemas.errors import ModelError, ModelMissing, PluginMissing
from schemas.model import ModelSpec
from schemas.settings import Settings
from tests.cli import rigflow
from tests.language import CONTEXT, config, language_folder
from workers.definitions import find_models, find_pipeline


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return language_folder(tmp_path / "tiny")


def added(folder: Path, *arguments: str) -> str:
    done = rigflow("model", "add", folder, "--yes", *arguments, HOME=str(folder.parent / "home"))
    return done.stdout + done.stderr


def changed(folder: Path, path: str, value: Any) -> Path:
    """Change one entry of the settings."""
    settings: dict[str, Any] = json.loads(json.dumps(config()))
    *inner, last = path.split(".")
    place = settings
    for key in inner:
        place = place[key]
    place[last] = value
    (folder / "genai_config.json").write_text(json.dumps(settings))
    return folder


def kept(name: str = "tiny") -> tuple[ModelSpec, ModelFiles]:
    spec, content = load_model(kept_path(name))
    assert isinstance(content, ModelFiles)
    return spec, content


def test_a_folder_is_added_and_laid_out_again(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    said = added(folder)
    assert "takes chat_template.jinja" in said
    assert "leaves out notes.txt" in said
    assert "kept tiny@1" in said
    spec, content = kept()
    assert (spec.backend, spec.inputs[0].shape) == ("onnxruntime-genai", ("N", CONTEXT))
    place = tmp_path / "place"
    place.mkdir()
    laid_out(content, place)
    for path in folder.iterdir():
        assert path.name == "notes.txt" or (place / path.name).read_bytes() == path.read_bytes()


def test_the_memory_of_texts_is_bounded(folder: Path) -> None:
    assert "kept tiny" in added(folder, "--set", 'inputs.0.shape=["N",100]')
    spec, content = kept()
    a_text = 100 * 2 * 2 * 8 * 4  # tokens, keys and values, heads, width, bytes
    limits = limits_of(content, spec, 5 * a_text + 1)
    assert (limits.context, limits.slots, limits.slot_bytes) == (100, 5, a_text)
    assert overlay_of(limits)["search"]["max_length"] == 100
    assert limits_of(content, spec, 1 << 40).slots == 18
    assert limits_of(content, spec, 1 << 40, on_gpu=True).slots == 36
    with pytest.raises(
        ModelError, match=f"keeps {a_text} bytes of a text, and the setting kv_bytes is 9: raise it, or"
    ):
        limits_of(content, spec, 9)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.decoder.session_options.custom_ops_library", "evil.so", "names a library of its own"),
        ("model.decoder.filename", "../../secret.onnx", "names the file ../../secret.onnx, which it lacks"),
        ("model.decoder.filename", None, "names the file None, which it lacks"),
        (
            "model.vision",
            {"filename": "model.onnx"},
            "it has a part `vision`: rigflow runs models that take text alone",
        ),
        ("model.decoder.head_size", "8", "has no number model.decoder.head_size"),
        ("model.context_length", -1, "has no number model.context_length"),
        ("model", [], "describes no language model"),
    ],
)
def test_settings_that_cannot_be_used(folder: Path, path: str, value: Any, words: str) -> None:
    assert words in added(changed(folder, path, value))


def test_other_faults_of_a_folder(folder: Path) -> None:
    for context in (1, CONTEXT + 1):
        assert f"a context of 2 to {CONTEXT} tokens" in added(folder, "--set", f'inputs.0.shape=["N",{context}]')
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json: download the whole folder again" in added(folder)
    (folder / "genai_config.json").write_text("{")
    assert "its genai_config.json is no JSON" in added(folder)


def test_a_link_is_followed_within_the_folder_and_in_a_cache_alone(folder: Path, tmp_path: Path) -> None:
    """Whoever made the folder would choose what is read; Hugging Face's cache is links to its `blobs`."""
    revision, blobs = tmp_path / "models--a--tiny" / "snapshots" / "1", tmp_path / "models--a--tiny" / "blobs"
    revision.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        (blobs / f"hash-{path.name}").write_bytes(path.read_bytes())
        (revision / path.name).symlink_to(f"../../blobs/hash-{path.name}")
    kind = kind_of_folder(revision)
    assert kind is not None
    with new_files() as new:
        assert {file.name for file in take_folder(revision, kind, new).files} >= {"tokenizer.json"}
        secret = tmp_path / "secret.json"
        secret.write_text("{}")
        for name in ("vocab.json", kind.main):
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(secret)
            with pytest.raises(
                ModelError, match=f"{name} is a link to .*secret.json, which is not in its folder: copy"
            ):
                take_folder(folder, kind, new)


def test_what_is_missing_is_said_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="model chat-model is missing: get a folder of ONNX Runtime GenAI"):
        find_models(*find_pipeline("chat"))
    added(folder, "--name", "chat-model")
    find_models(*find_pipeline("chat"))
    find_models(*find_pipeline("complete"))
    spec, content = kept("chat-model")
    monkeypatch.setitem(sys.modules, "onnxruntime_genai", None)
    with pytest.raises(PluginMissing, match=r"needs the package onnxruntime_genai, .* install the extra llm: .*pip"):
        OnnxRuntimeGenAi(Settings()).open(content, spec, open_device("cpu", Settings(), tmp_path))
