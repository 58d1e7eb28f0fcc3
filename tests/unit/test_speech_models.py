"""Voices of Piper and Kokoro become models of one form, which give the same sound."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder, save_model, travelling
from engines.models.proposal import propose
from engines.models.store import find, new_files
from engines.speaking.voice import Manner, speak
from schemas.errors import ModelError
from schemas.model import ModelSpec
from tests.cli import rigflow
from tests.voices import LETTERS, RATE, STEP, write_kokoro, write_piper

HELLO = [1, 0, *(number for letter in "hello" for number in (3 + LETTERS.index(letter), 0)), 2]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def added(path: Path) -> tuple[ModelSpec, OnnxRuntimeSession]:
    """The model as `rigflow model add` keeps it, and as a worker opens it."""
    with new_files() as new:
        found = find(path, new)
        card = propose(found.path, found.content, found.name).card()
        travelling(found.path, card, found.content)
        kept = save_model(models_folder(), card, found.content)
    spec, content = load_model(kept)
    return spec, OnnxRuntimeSession(content, spec)


def original(path: Path, **inputs: Any) -> np.ndarray:
    made = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, inputs)
    return np.asarray(made[0]).reshape(-1)


def test_a_voice_of_piper_gives_the_sound_of_its_own_graph(tmp_path: Path) -> None:
    path = write_piper(tmp_path)
    spec, session = added(path)
    speech = spec.speech
    assert speech is not None
    assert [tensor.name for tensor in spec.inputs] == ["symbols", "speed", "noise", "draw"]
    assert (speech.rate, speech.alphabet, speech.noise, speech.voices) == (RATE, "letters", (0.5, 0.25), ())
    assert (speech.begin, speech.after, speech.end) == ((1, 0), (0,), (2,))
    assert "^" not in speech.symbols
    sound = speak(session, speech.model_copy(update={"peak": False}), HELLO, Manner(speed=2, trim=False))
    scales = np.array([0, 1.25 / 2, 0], np.float32)
    given = {"input": np.array([HELLO]), "input_lengths": np.array([len(HELLO)]), "scales": scales}
    np.testing.assert_array_equal(sound, original(path, **given))
    assert len(sound) == round(len(HELLO) * STEP * 1.25 / 2)


def test_random_numbers_are_those_of_the_seed_and_the_sentence(tmp_path: Path) -> None:
    spec, session = added(write_piper(tmp_path))
    speech = spec.speech
    assert speech is not None

    def noise_of(seed: int, symbols: list[int] = HELLO, noise: tuple[float, float] = (1, 0)) -> np.ndarray:
        plain, noisy = (Manner(noise=each, seed=seed, trim=False) for each in ((0, 0), noise))
        unscaled = speech.model_copy(update={"peak": False})
        return (speak(session, unscaled, symbols, noisy) - speak(session, unscaled, symbols, plain)) * 10

    first = noise_of(0)
    np.testing.assert_array_equal(first, noise_of(0))
    assert abs(first.mean()) < 0.15
    assert 0.9 < first.std() < 1.1
    others = [noise_of(1), noise_of(0, [*HELLO[:-1], 3, 2]), noise_of(0, noise=(0, 1))]
    for other in others:
        assert abs(np.corrcoef(first, other[: len(first)])[0, 1]) < 0.1
    lagged = [abs(np.corrcoef(first[:-lag], first[lag:])[0, 1]) for lag in (1, 2, 3, 64, 512)]
    assert max(lagged) < 0.12


def test_speakers_of_piper_are_voices(tmp_path: Path) -> None:
    spec, session = added(write_piper(tmp_path, speakers=3))
    speech = spec.speech
    assert speech is not None
    assert (speech.voices, speech.blends) == (("s0", "s1", "s2"), False)
    plain = speech.model_copy(update={"peak": False})
    loud = [np.abs(speak(session, plain, HELLO, Manner(voice=np.eye(3)[n].tolist()))).max() for n in range(3)]
    assert loud[0] == pytest.approx(2 * loud[1], rel=1e-5)
    assert loud[0] == pytest.approx(3 * loud[2], rel=1e-5)


@pytest.mark.parametrize(("tokens", "dtype"), [("tokens", TensorProto.FLOAT), ("input_ids", TensorProto.INT32)])
def test_kokoro_takes_the_row_of_its_length_and_blends(tmp_path: Path, tokens: str, dtype: int) -> None:
    folder = tmp_path / "kokoro"
    folder.mkdir()
    path = write_kokoro(folder, tokens, dtype)
    spec, session = added(folder)
    speech = spec.speech
    assert speech is not None
    assert {tensor.name for tensor in spec.inputs} == {"symbols", "speed", "voice"}
    assert (speech.voices, speech.languages) == (("af_low", "am_high", "bf_mid"), ("en-us", "en-us", "en-gb-x-rp"))
    assert speech.blends
    assert not spec.files
    symbols = [0, 5, 6, 7, 0]
    for weights, level in (([1.0, 0, 0], 0.25), ([0, 1.0, 0], 0.75), ([0.5, 0.5, 0], 0.5)):
        sound = speak(session, speech, symbols, Manner(voice=weights, trim=False))
        style = np.full((1, 256), np.float32(level + 0.002))
        speed = np.ones(1, np.int32 if dtype == TensorProto.INT32 else np.float32)
        expected = original(path, **{tokens: np.array([symbols]), "style": style, "speed": speed})
        np.testing.assert_allclose(sound, expected, rtol=1e-5, atol=1e-7)
    long = speak(session, speech, [0, *[5] * 600, 0], Manner(voice=[1.0, 0, 0], trim=False))
    assert np.abs(long).max() == pytest.approx(0.3 * (0.25 + 0.509), rel=1e-3)


def test_voices_in_a_folder_and_symbols_of_a_tokenizer(tmp_path: Path) -> None:
    folder = tmp_path / "kokoro" / "onnx"
    folder.mkdir(parents=True)
    write_kokoro(folder).rename(folder / "model.onnx")
    vocabulary = json.loads((folder / "config.json").read_text())["vocab"]
    (folder / "config.json").unlink()
    (folder / "voices-v1.0.bin").unlink()
    (folder.parent / "voices").mkdir()
    np.full((510, 256), 0.5, np.float32).tofile(folder.parent / "voices" / "jf_a.bin")
    (folder.parent / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    spec, _ = added(folder.parent)
    assert spec.speech is not None
    assert (spec.name, spec.speech.voices, spec.speech.languages) == ("kokoro", ("jf_a",), ("ja",))
    assert len(spec.speech.symbols) == len(vocabulary)


def _broken(folder: Path) -> Iterator[tuple[str, str]]:
    """Break a model's files by turns: yields the file to add, and what the error says."""
    path = write_piper(folder)
    beside = path.with_name(f"{path.name}.json")
    good = beside.read_text()
    beside.unlink()
    yield path.name, "is a voice of Piper, and tones.onnx.json is not beside it: download both"
    for text, said in (
        ("{", "is not a json object"),
        ("{}", "is not the json of a voice of Piper"),
        (good.replace('"text"', '"pinyin"'), "phoneme_type pinyin is not known"),
        (good.replace('"text"', "[]"), "phoneme_type [] is not known"),
        (
            good.replace('"num_speakers": 1', '"num_speakers": Infinity'),
            "is not the json of a voice of Piper: Overflow",
        ),
        (good.replace('"sample_rate": 16000', '"sample_rate": 1'), "rate: "),
        (good.replace('"num_speakers": 1', '"num_speakers": 4'), "disagree about its speakers"),
        (good.replace('"num_speakers": 1', f'"num_speakers": {10**9}'), "1000000000 speakers are more than 10000"),
    ):
        beside.write_text(text)
        yield path.name, said
    write_kokoro(folder)
    voices = folder / "voices-v1.0.bin"
    voices.write_bytes(b"no archive")
    yield "kokoro-v1.0.onnx", "is no NumPy archive of voices"
    with voices.open("wb") as file:
        np.savez(file, af=np.zeros((3, 5), np.float32))
    yield "kokoro-v1.0.onnx", "voice af is float32 [3, 5], no rows of 256 numbers"
    voices.unlink()
    yield "kokoro-v1.0.onnx", "no voices*.bin, voices*.npz or folder voices is beside it"
    (folder / "config.json").write_text("{}")
    yield "kokoro-v1.0.onnx", "no config.json with its symbols, `vocab`, is beside it"


def test_a_file_that_is_missing_or_damaged_is_a_line(tmp_path: Path) -> None:
    for name, said in _broken(tmp_path):
        with pytest.raises(ModelError) as raised, new_files() as new:
            find(tmp_path / name, new)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)


def test_other_random_nodes_are_refused(tmp_path: Path) -> None:
    path = write_piper(tmp_path)
    body = path.read_bytes().replace(b"RandomNormalLike", b"RandomUniformLik")
    path.write_bytes(body.replace(b"RandomUniformLik", b"RandomUniform\0\0\0", 0))
    with pytest.raises(ModelError, match="draws random numbers by RandomUniformLik"), new_files() as new:
        find(path, new)


def test_model_add_shows_and_tries_it(tmp_path: Path) -> None:
    path = write_piper(tmp_path)
    shutil.copy(path, tmp_path / "copy.onnx")
    done = rigflow("model", "add", path, "--set", "speech.language=de", "--yes")
    assert done.returncode == 0, done.stderr
    assert "speech.rate = 16000" in done.stdout
    assert f"speaks: 24 symbols became 0.6 s of sound at {RATE} Hz" in done.stdout
    assert 'language = "de"' in rigflow("model", "show", "tones").stdout
    failed = rigflow("model", "add", tmp_path / "copy.onnx", "--yes")
    assert failed.returncode != 0
    assert "copy.onnx.json is not beside it" in failed.stderr
