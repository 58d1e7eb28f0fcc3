"""The arithmetic of speech: bands of sound, runs of speech, words with times, and models that are folders."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.backends.ctranslate2 import CTranslate2
from engines.content import ModelFiles
from engines.device.host import Host
from engines.extras import install_extra
from engines.models.catalogue import load_model, own_model
from engines.speech.mel import features, filters, log_mel
from engines.speech.model import Aligned
from engines.speech.vad import Run, SpeechRules, packed, runs_of, windows_of
from engines.speech.words import Word, corrected, words_of
from schemas.errors import ExitCode, ModelMissing, PluginMissing
from schemas.settings import Settings
from tests.cli import rigflow

RATE = 16_000


def plain_log_mel(sound: np.ndarray, bands: int) -> np.ndarray:
    """The definition, in float64: a Fourier transform by its sum, triangles between points of Slaney's scale."""
    padded = np.pad(np.pad(sound.astype(np.float64), (0, 160)), 200, mode="reflect")
    places, window = np.arange(400), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(201), places) / 400)
    frames = [padded[start : start + 400] * window for start in range(0, len(padded) - 399, 160)][:-1]
    powers = np.abs(waves @ np.array(frames).T) ** 2
    mels = np.linspace(0, 45.245640471924965, bands + 2)
    hertz = np.array([mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27) for mel in mels])
    lines = np.arange(201) * 40.0
    weights = np.array(
        [
            np.interp(lines, hertz[band : band + 3], [0, 1, 0]) * 2 / (hertz[band + 2] - hertz[band])
            for band in range(bands)
        ]
    )
    logs = np.log10(np.maximum(weights @ powers, 1e-10))
    return (np.maximum(logs, logs.max() - 8) + 4) / 4


@pytest.mark.parametrize("bands", [80, 128])
def test_bands_of_sound_are_those_of_the_definition(bands: int) -> None:
    random = np.random.default_rng(2)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) * 0.5 + random.normal(0, 0.01, RATE)
    for sound in (tone, tone[:1], tone[:777], np.zeros(RATE // 2)):
        found = log_mel(sound.astype(np.float32), bands)
        assert found.dtype == np.float32
        assert found.shape == (bands, len(sound) // 160 + 1)
        assert np.abs(found - plain_log_mel(sound.astype(np.float32), bands)).max() < 2e-4
    assert filters(bands).shape == (bands, 201)


def test_features_have_zeros_behind_the_sound() -> None:
    made = features(np.ones(RATE, np.float32), 80)
    assert made.shape == (80, 3000)
    assert not made[:, 100:].any()
    assert made[:, :100].any(axis=0).all()
    assert features(np.zeros(31 * RATE, np.float32), 80).shape == (80, 3000)


def probabilities(*runs: tuple[float, int]) -> list[float]:
    return [value for value, count in runs for _ in range(count)]


def rules(longest_s: float = 30, pad: float = 0, silence: float = 2560) -> SpeechRules:
    return SpeechRules(0.5, 0.35, 0, silence, pad, longest_s * RATE)


@pytest.mark.parametrize(
    ("given", "rule", "runs"),
    [
        (probabilities((0.1, 10)), rules(), []),
        (probabilities((0.1, 2), (0.9, 8)), rules(), [(2, 10)]),
        (probabilities((0.9, 4), (0.1, 4), (0.9, 2)), rules(), [(0, 10)]),  # 4 windows of silence are too short
        (probabilities((0.9, 4), (0.1, 6), (0.9, 2)), rules(), [(0, 4), (10, 12)]),
        (probabilities((0.9, 4), (0.4, 6), (0.9, 2)), rules(), [(0, 12)]),  # not quiet enough
        (probabilities((0.9, 40)), rules(longest_s=11 * 512 / RATE), [(0, 11), (12, 23), (24, 35), (36, 40)]),
        # cut in the last silence that is long enough for it
        (probabilities((0.9, 6), (0.1, 5), (0.9, 20)), rules(20 * 512 / RATE, silence=9e9), [(0, 6), (11, 31)]),
    ],
)
def test_runs_of_speech(given: list[float], rule: SpeechRules, runs: list[tuple[int, int]]) -> None:
    found = runs_of(given, len(given) * 512, rule)
    assert found == [(start * 512, end * 512) for start, end in runs]


def test_runs_are_padded_and_share_short_silences() -> None:
    given = probabilities((0.1, 1), (0.9, 4), (0.1, 6), (0.9, 2), (0.1, 40), (0.9, 1), (0.1, 3))
    samples = len(given) * 512
    found = runs_of(given, samples, rules(pad=2000))
    assert found == [(0, 5 * 512 + 1536), (11 * 512 - 1536, 13 * 512 + 2000), (53 * 512 - 2000, samples)]


def test_windows_see_what_is_before_them() -> None:
    sound = np.arange(1, 1025, dtype=np.float32)
    made = windows_of(sound)
    assert made.shape == (3, 576)
    assert not made[0, :64].any()
    assert np.array_equal(made[1], sound[512 - 64 : 1024])
    assert np.array_equal(made[2, :64], sound[-64:])
    assert not made[2, 64:].any()


def test_runs_are_packed_in_order() -> None:
    runs = [Run(0, 10), Run(20, 25), Run(30, 36), Run(40, 60), Run(70, 71)]
    assert packed(runs, 20) == [runs[:2], runs[2:3], runs[3:4], runs[4:]]
    assert packed([], 20) == []


def test_words_have_the_times_of_their_tokens() -> None:
    """Tokens " a", "bc", ".", end at states 5, 10, 30, 31."""
    path = ((0, 5), (0, 9), (1, 10), (1, 29), (2, 30), (3, 31))
    words = words_of(Aligned((0.5, 1.0, 0.25), path), [(" abc", 2), (".", 1)])
    assert [(word.text, word.start, word.end, word.probability) for word in words] == [
        (" abc", pytest.approx(0.1), pytest.approx(0.6), 0.75),
        (".", pytest.approx(0.6), pytest.approx(0.62), 0.25),
    ]
    assert words_of(Aligned((), ()), []) == []


def test_punctuation_is_joined_to_words() -> None:
    texts = [" He", " said", ' "', "go", "!", '"', " (", "twice", ")", "."]
    words = [Word(text, number, number + 0.5, 1.0) for number, text in enumerate(texts)]
    joined = corrected(words, 10.0, 30.0, 10.0)
    assert [word.text for word in joined] == [" He", " said", ' "go!"', " (twice)."]
    assert [word.start for word in joined] == [10, 11, 13, 17]


def test_a_first_word_after_a_pause_is_shortened() -> None:
    words = [Word(" a", 0.0, 9.0, 1.0), Word(" b", 9.0, 9.3, 1.0), Word(" c", 9.3, 9.6, 1.0), Word(" d", 9.6, 9.9, 1.0)]
    [first, *_] = corrected(words, 0.0, 12.0, 0.0)
    assert first.start == pytest.approx(8.4)
    assert first.end == 9.0


def binary(kind: str = "WhisperSpec", width: int = 8, bands: int = 80, tokens: int = 51_865) -> bytes:
    """A model.bin of CTranslate2 with the variables that say what it is, and no weights of use."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    variables = {
        "encoder/conv1/weight": (width, bands, 3),
        "encoder/layer_0/ffn/linear_0/weight": (1,),
        "encoder/layer_1/ffn/linear_0/weight": (1,),
        "decoder/embeddings/weight": (tokens, width),
    }
    made = struct.pack("<I", 6) + text(kind) + struct.pack("<II", 3, len(variables))
    for name, shape in variables.items():
        made += text(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape) + struct.pack("<BI", 4, 2) + b"\0\0"
    return made + struct.pack("<I", 0)


def folder_of(path: Path, body: bytes, **files: str) -> Path:
    path.mkdir()
    (path / "model.bin").write_bytes(body)
    given = {"config.json": '{"lang_ids": []}', "tokenizer.json": "{}", "vocabulary.txt": "a"} | files
    for name, text in given.items():
        (path / name).write_text(text)
    return path


def test_a_folder_of_faster_whisper_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added, shown, listed, removed; its travelling card says what it takes and gives."""
    monkeypatch.setenv("HOME", str(tmp_path))
    given = folder_of(tmp_path / "faster-whisper-x", binary(bands=128, tokens=51_866), **{"README.md": "about"})
    added = rigflow("model", "add", given)
    assert added.returncode == ExitCode.OK, added.stderr
    for line in ('backend = "ctranslate2"', "takes model.bin", "takes vocabulary.txt", "leaves out README.md"):
        assert line in added.stdout
    spec, content = own_model("faster-whisper-x")
    assert (spec.backend, spec.precision) == ("ctranslate2", "int8_float32")
    assert [spec.inputs[0].shape, spec.outputs[1].shape] == [("N", 128, 3000), ("N", "count", 51_866)]
    assert isinstance(content, ModelFiles)
    assert content.graph == b'{"lang_ids": []}'
    assert {file.name for file in content.files} == {"model.bin", "tokenizer.json", "vocabulary.txt"}
    store = tmp_path / ".local/share/rigflow/models"
    assert load_model(store / "faster-whisper-x.json")[0].identity == spec.identity
    other = rigflow("model", "add", given, "--name", "half", "--set", "precision=float16")
    assert other.returncode == ExitCode.OK, other.stderr
    assert own_model("half")[0].identity != spec.identity
    assert "faster-whisper-x" in rigflow("model", "list").stdout
    assert 'precision = "float16"' in rigflow("model", "show", "half").stdout
    for name in ("half", "faster-whisper-x"):
        assert rigflow("model", "remove", name).returncode == ExitCode.OK
    assert not list(store.iterdir())


@pytest.mark.parametrize(
    ("body", "files", "words"),
    [
        (binary("TransformerSpec"), {}, "model.bin is a network of the kind TransformerSpec, not of Whisper"),
        (binary()[:60], {}, "model.bin is damaged"),
        (binary()[:-8], {}, "model.bin is damaged"),
        (b"PK\3\4 a zip", {}, "is no model of CTranslate2"),
        (b"", {}, "model.bin is damaged, or no model of CTranslate2"),
        (binary(), {"config.json": "[]"}, "config.json is not a json object"),
        (binary(), {"config.json": '{"alignment_heads": [[9999, -1]]}'}, "alignment_heads has [9999, -1], which the"),
        (binary(), {"config.json": '{"alignment_heads": "all"}'}, "alignment_heads has all, which the network lacks"),
    ],
)
def test_other_folders_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, files: dict[str, str], words: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    refused = rigflow("model", "add", folder_of(tmp_path / "folder", body, **files), "--yes")
    assert refused.returncode != ExitCode.OK
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    store = tmp_path / ".local/share/rigflow/models"
    assert not store.exists() or not list(store.iterdir())


def test_a_missing_whisper_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelMissing) as missing:
        own_model("faster-whisper-small")
    assert "huggingface.co/Systran/faster-whisper-small" in missing.value.hint
    assert "rigflow model add faster-whisper-small" in missing.value.hint


def test_a_worker_without_the_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert rigflow("model", "add", folder_of(tmp_path / "w", binary())).returncode == ExitCode.OK
    spec, content = own_model("w")
    settings = Settings()
    with pytest.raises(PluginMissing) as missing:
        CTranslate2(settings).open(content, spec, Host(settings))
    assert missing.value.what == "model w needs the package ctranslate2, which is not installed here"
    assert missing.value.hint == install_extra("stt")
    assert json.loads(content.graph) == {"lang_ids": []}  # type: ignore[union-attr]
