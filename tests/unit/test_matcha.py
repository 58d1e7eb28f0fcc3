"""Matcha as sherpa-onnx publishes it becomes a model of the one form, and gives the same sound."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder, save_model, travelling
from engines.models.proposal import propose
from engines.models.store import find, new_files
from engines.speaking.phonemes import symbols_of
from engines.speaking.voice import Manner, speak
from schemas.errors import ModelError
from schemas.model import ModelSpec
from tests.cli import rigflow
from tests.voices import FFT, HOP, LETTERS, write_matcha

PAD = 0
HELLO = [PAD, *(number for letter in "hello" for number in (3 + LETTERS.index(letter), PAD))]


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


def two_sessions(folder: Path, vocoder: str, speed: float) -> np.ndarray:
    """The sound by the two published graphs and NumPy."""
    given = {
        "x": np.array([HELLO]),
        "x_length": np.array([len(HELLO)]),
        "noise_scale": np.zeros(1, np.float32),
        "length_scale": np.array([1 / speed], np.float32),
    }
    providers = ["CPUExecutionProvider"]
    [mel] = ort.InferenceSession(folder / "model-steps-3.onnx", providers=providers).run(None, given)
    made = ort.InferenceSession(folder / vocoder, providers=providers).run(None, {"mels": mel})
    return made[0].reshape(-1) if len(made) == 1 else inverse(made[0] * (made[1] + 1j * made[2]))


def inverse(spectrum: np.ndarray) -> np.ndarray:
    """torch.istft of `[1, bins, T]` with a window of Hann."""
    frames = np.fft.irfft(spectrum[0].T, FFT)
    window = np.hanning(FFT + 1)[:-1]
    sound, squares = np.zeros((2, FFT + HOP * (len(frames) - 1)))
    for number, frame in enumerate(frames):
        place = slice(number * HOP, number * HOP + FFT)
        sound[place] += frame * window
        squares[place] += window**2
    return (sound / np.maximum(squares, 1e-8))[FFT // 2 : -FFT // 2]


@pytest.mark.parametrize("vocoder", ["vocos-22khz-univ.onnx", "hifigan_v2.onnx"])
def test_the_sound_is_that_of_the_acoustic_model_and_the_vocoder(vocoder: str, tmp_path: Path) -> None:
    folder = tmp_path / "matcha-icefall-en_US-ljspeech"
    folder.mkdir()
    write_matcha(folder, vocoder)
    spec, session = added(folder)
    speech = spec.speech
    assert speech is not None
    assert (spec.name, spec.files) == ("matcha-icefall-en_US-ljspeech", ())
    assert [tensor.name for tensor in spec.inputs] == ["symbols", "speed", "noise", "draw"]
    assert (speech.rate, speech.alphabet, speech.language, speech.noise) == (22050, "ipa", "en-us", (0.667, 0.0))
    assert speech.symbols[" "] == (3 + LETTERS.index(" "),)
    assert not {"_", "^", "$"} & set(speech.symbols)
    letters = speech.model_copy(update={"alphabet": "letters"})
    assert symbols_of("hello", letters, "") == [HELLO]
    for speed in (1.0, 2.0):
        sound = speak(session, speech, HELLO, Manner(speed=speed, trim=False))
        np.testing.assert_allclose(sound, two_sessions(folder, vocoder, speed), rtol=1e-4, atol=2e-5)
    noisy = [speak(session, speech, HELLO, Manner(noise=(1, 0), seed=seed, trim=False)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy[0] - noisy[2]).max() > 1e-3


def test_symbols_that_mark_begin_and_end(tmp_path: Path) -> None:
    spec, _ = added(write_matcha(tmp_path, marked=True))
    assert spec.speech is not None
    assert (spec.speech.begin, spec.speech.after, spec.speech.end) == ((0, 1, 0), (0,), (2, 0))


def test_a_folder_that_is_not_whole_is_a_line(tmp_path: Path) -> None:
    cases = {
        "zh": ({"jieba": 1}, lambda _: None, "is a Matcha that reads by a lexicon"),
        "mixed": ({"voice": "zh en-us"}, lambda _: None, "is a Matcha that reads by a lexicon"),
        "many": ({"n_speakers": 4}, lambda _: None, "is a Matcha of 4 speakers: take one of one speaker"),
        "bare": ({"pad_id": "none"}, lambda _: None, "has no metadata of a Matcha of sherpa-onnx"),
        "slow": (
            {"sample_rate": 16000},
            lambda _: None,
            "is a vocoder of 22050 Hz, not 16000, as model-steps-3.onnx has",
        ),
        "mute": (
            {},
            lambda folder: (folder / "vocos-22khz-univ.onnx").unlink(),
            "and no vocoder is beside it: download",
        ),
        "two": (
            {},
            lambda folder: write_matcha(folder, "hifigan_v2.onnx"),
            "has several vocoders beside it: vocos-22khz",
        ),
        "blank": ({}, lambda folder: (folder / "tokens.txt").unlink(), "tokens.txt beside it cannot be read"),
        "empty": (
            {},
            lambda folder: (folder / "tokens.txt").write_text(""),
            "tokens.txt, symbols: dictionary should have at least 1 item",
        ),
        "other": (
            {},
            lambda folder: (folder / "vocos-22khz-univ.onnx").write_bytes((folder / "model-steps-3.onnx").read_bytes()),
            "is no vocoder of model-steps-3.onnx",
        ),
        "damaged": (
            {},
            lambda folder: (folder / "vocos-22khz-univ.onnx").write_bytes(b"no graph"),
            "vocos-22khz-univ.onnx",
        ),
    }
    for name, (meta, change, said) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        write_matcha(folder, **meta)
        change(folder)
        with pytest.raises(ModelError) as raised, new_files() as new:
            find(folder, new)
        assert said in str(raised.value), name
        assert "\n" not in str(raised.value)


def test_model_add_shows_it(tmp_path: Path) -> None:
    folder = tmp_path / "matcha-icefall-en_US-ljspeech"
    folder.mkdir()
    write_matcha(folder)
    done = rigflow("model", "add", folder, "--yes")
    assert done.returncode == 0, done.stderr
    assert "speaks: " in done.stdout
    assert "s of sound at 22050 Hz" in done.stdout


@pytest.mark.models
def test_the_sound_is_that_of_sherpa(tmp_path: Path) -> None:
    sherpa = pytest.importorskip("sherpa_onnx")
    write_matcha(tmp_path)
    matcha = sherpa.OfflineTtsMatchaModelConfig(
        acoustic_model=str(tmp_path / "model-steps-3.onnx"),
        vocoder=str(tmp_path / "vocos-22khz-univ.onnx"),
        lexicon="",
        tokens=str(tmp_path / "tokens.txt"),
        noise_scale=0.0,
    )
    tts = sherpa.OfflineTts(sherpa.OfflineTtsConfig(model=sherpa.OfflineTtsModelConfig(matcha=matcha, num_threads=1)))
    wanted = sherpa.GenerationConfig()
    wanted.phoneme_codepoints = [[ord(letter) for letter in "hello"]]
    wanted.silence_scale = 1.0
    expected = np.array(tts.generate("hello", wanted).samples, np.float32)
    spec, session = added(tmp_path / "model-steps-3.onnx")
    assert spec.speech is not None
    sound = speak(session, spec.speech, HELLO, Manner(trim=False))
    np.testing.assert_allclose(sound, expected, rtol=1e-4, atol=2e-5)
