"""A ZipVoice, a sound, its words and a consent become a model, which speaks as the published networks do."""

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import onnxruntime as ort
import pytest

from engines.content import ModelFiles
from engines.inference.onnxruntime import OnnxRuntimeSession
from engines.models.catalogue import load_model, models_folder, save_model
from engines.models.cloning import cloned
from engines.models.proposal import propose
from engines.models.store import find, new_files
from engines.speaking.bands import vocos_bands
from engines.speaking.phonemes import symbols_of
from engines.speaking.voice import Manner, speak
from schemas.errors import RigflowError
from schemas.model import ModelSpec
from schemas.speech import Consent
from tests.cli import rigflow
from tests.zipvoices import BANDS, FFT, HOP, RATE, SYMBOLS, WORDS, reference, write_wav, write_zipvoice

CONSENT = b"I, Ada, allow it. 2026-11-28"
GOOD = [SYMBOLS.index(letter) for letter in "good day."]
PROMPT = [SYMBOLS.index(letter) for letter in f"{WORDS}."]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def given(folder: Path, **meta: object) -> tuple[Path, Path, str, Path]:
    """A ZipVoice, a sound, its words and a consent."""
    (folder / "ada.txt").write_bytes(CONSENT)
    return (
        write_zipvoice(folder / "zipvoice", **meta),
        write_wav(folder / "ada.wav", reference()),
        WORDS,
        folder / "ada.txt",
    )


def added(zipvoice: Path, sound: Path, words: str, consent: Path) -> tuple[ModelSpec, OnnxRuntimeSession]:
    """The model as `rigflow model add` keeps it, and as a worker opens it."""
    with new_files() as new:
        found, fields = cloned(zipvoice, sound, words, consent, new)
        card = propose(found.path, found.content, found.name).changed(fields, "").card()
        kept = save_model(models_folder(), card.model_copy(update={"files": found.taken.files}), found.content)
    spec, content = load_model(kept)
    assert isinstance(content, ModelFiles)
    assert [(content.folder / file.sha256).read_bytes() for file in content.files] == [CONSENT]
    return spec, OnnxRuntimeSession(content, spec)


def three_sessions(folder: Path, sound: np.ndarray, speed: float, guidance: float) -> np.ndarray:
    """What the published networks make in 4 steps, the steps in NumPy; only the new words are faster at a speed."""
    level = np.sqrt(np.mean(sound.astype(np.float64) ** 2))
    frames = vocos_bands(sound * (0.1 / level), RATE, FFT, HOP, BANDS)[None] * np.float32(0.1)
    encoder, decoder, vocoder = (
        ort.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx", "vocos_24khz.onnx")
    )
    old, new = len(PROMPT), len(GOOD)
    fed = {
        "tokens": np.array([GOOD]),
        "prompt_tokens": np.array([PROMPT]),
        "prompt_features_len": np.array(frames.shape[1]),
        "speed": np.array((old + new) / (old + new / speed), np.float32),
    }
    [text] = encoder.run(None, fed)
    count = frames.shape[1]
    assert abs(text.shape[1] - count - count / old * new / speed) <= 1
    held = np.concatenate([frames, np.zeros((1, text.shape[1] - count, BANDS), np.float32)], axis=1)
    share = np.arange(5, dtype=np.float32) / 4
    times = (0.5 * share / (1 - 0.5 * share)).astype(np.float32)
    x = np.random.default_rng(5).standard_normal(held.shape).astype(np.float32)
    for now, then in itertools.pairwise(times):
        scale = np.array(guidance, np.float32)
        step = {"t": np.array(now), "x": x, "text_condition": text, "speech_condition": held, "guidance_scale": scale}
        x = x + decoder.run(None, step)[0] * (then - now)
    made = vocoder.run(None, {"mels": x[:, count:].transpose(0, 2, 1) * np.float32(10)})
    return inverse(made[0] * (made[1] + 1j * made[2])) * level / 0.1


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


def test_the_sound_is_that_of_the_published_networks(tmp_path: Path) -> None:
    folder, sound, words, consent = given(tmp_path)
    spec, session = added(folder, sound, words, consent)
    speech = spec.speech
    assert speech is not None
    assert [tensor.name for tensor in spec.inputs] == ["symbols", "speed", "steps", "guidance", "draw"]
    assert (spec.name, speech.rate, speech.alphabet, speech.steps, speech.guidance) == (
        "zipvoice-ada",
        RATE,
        "letters",
        16,
        1.0,
    )
    assert speech.consent == Consent(file="ada.txt", sha256=hashlib.sha256(CONSENT).hexdigest())
    assert symbols_of("Good day.", speech, "") == [GOOD]
    for speed, guidance in ((1.0, 1.0), (2.0, 0.5)):
        made = speak(session, speech, GOOD, Manner(speed=speed, steps=4, guidance=guidance, trim=False))
        wanted = three_sessions(folder, reference(), speed, guidance)
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    # in 3 steps the random numbers are heard
    seeds = [speak(session, speech, GOOD, Manner(steps=3, seed=seed, trim=False)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert np.abs(seeds[0] - seeds[2]).max() > 1e-3


def test_the_bands_are_those_of_the_definition() -> None:
    sound = reference(0.2)
    padded = np.concatenate([sound[FFT // 2 : 0 : -1], sound, sound[-2 : -FFT // 2 - 2 : -1]]).astype(np.float64)
    turns = np.exp(-2j * np.pi * np.outer(np.arange(FFT // 2 + 1), np.arange(FFT)) / FFT)
    window = np.sin(np.pi * np.arange(FFT) / FFT) ** 2
    found = vocos_bands(sound, RATE, FFT, HOP, BANDS)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12000 / 700), BANDS + 2) / 2595) - 1)
    hertz = np.arange(FFT // 2 + 1) * RATE / FFT
    for frame in (0, 7, len(found) - 1):
        magnitudes = np.abs(turns @ (padded[frame * HOP : frame * HOP + FFT] * window))
        for band in (0, 1, 50, 99):
            weights = np.interp(hertz, edges[band : band + 3], [0, 1, 0])
            assert found[frame, band] == pytest.approx(np.log(max(1e-7, weights @ magnitudes)), abs=1e-5)
    assert len(found) == round(len(sound) / HOP)


def test_a_folder_of_zipvoice_itself_and_in_8_bits(tmp_path: Path) -> None:
    folder, *rest = given(tmp_path)
    for name in ("text_encoder_int8.onnx", "fm_decoder_int8.onnx"):
        folder.joinpath("encoder.onnx" if "text" in name else "decoder.onnx").rename(folder / name)
    distilled = folder.rename(tmp_path / "zipvoice_distill")
    spec, _ = added(distilled / "fm_decoder_int8.onnx", *rest)
    assert spec.speech is not None
    assert (spec.name, spec.speech.steps, spec.speech.guidance) == ("zipvoice_distill-ada", 8, 3.0)


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "silent": (lambda at: _wav(at, np.zeros(48000)), "ada.wav is silent, or nearly so"),
    "empty": (lambda at: _wav(at, np.zeros(0)), "ada.wav"),
    "short": (lambda at: _wav(at, reference(0.5)), "s of sound without the silence at its ends: give at least 1 s"),
    "long": (lambda at: _wav(at, reference(31)), "ada.wav has 31.0 s of sound, more than 30: cut it"),
    "numbers": (lambda at: _wav(at, np.full(48000, np.nan)), "ada.wav is silent, or nearly so"),
    "damaged": (lambda at: at.joinpath("ada.wav").write_bytes(b"RIFFnoise"), "ada.wav"),
    "missing": (lambda at: at.joinpath("ada.wav").unlink(), "ada.wav: no such file"),
    "blank": (lambda at: at.joinpath("ada.txt").write_bytes(b""), "ada.txt is empty: write in it who allows what"),
    "spaces": (lambda at: at.joinpath("ada.txt").write_bytes(b" \n"), "ada.txt is empty: write in it who allows what"),
    "gone": (lambda at: at.joinpath("ada.txt").unlink(), "cannot read the consent"),
    "deaf": (
        lambda at: at.joinpath("zipvoice", "vocos_24khz.onnx").unlink(),
        "is a ZipVoice, and no vocoder is beside it: download vocos_24khz.onnx",
    ),
    "wordless": (lambda at: at.joinpath("zipvoice", "tokens.txt").unlink(), "tokens.txt beside it cannot be read"),
    "other": (
        lambda at: at.joinpath("zipvoice", "decoder.onnx").write_bytes((at / "zipvoice/encoder.onnx").read_bytes()),
        "decoder.onnx does not take t, x, text_condition, speech_condition, guidance_scale",
    ),
    "torn": (lambda at: at.joinpath("zipvoice", "decoder.onnx").write_bytes(b"no graph"), "decoder.onnx"),
}


def _wav(folder: Path, sound: np.ndarray) -> None:
    write_wav(folder / "ada.wav", sound)


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_used_is_a_line(name: str, tmp_path: Path) -> None:
    things = given(tmp_path)
    change, said = CASES[name]
    change(tmp_path)
    with pytest.raises(RigflowError) as raised, new_files() as new:
        cloned(*things, new)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    folder, sound, words, consent = given(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    needs = "a cloned voice needs --sound, --consent and for a ZipVoice --text, see docs/speak.md"
    for things, said in (
        ((folder, sound, words, None), f"only with the consent of the person whose voice it is: {needs}"),
        ((folder, None, words, consent), f"there is no sound: {needs}"),
        ((folder, sound, " ", consent), f"there is no text of what the sound says: {needs}"),
        ((folder, sound, "...", consent), "--text has nothing that the model can read"),
        ((folder, sound, "a" * 3000, consent), "--text has 3000 characters, more than 2000"),
        ((other, sound, words, consent), "is not a folder of ZipVoice or Pocket TTS, and only with one are voices"),
    ):
        with pytest.raises(RigflowError) as raised, new_files() as new:
            cloned(*things, new)
        assert said in str(raised.value)
    with pytest.raises(RigflowError) as raised, new_files() as new:
        find(folder, new)
    assert f"is a ZipVoice, which speaks with the voice of a sound that is given: {needs}" in str(raised.value)


def test_commands_clone_a_voice_and_files_name_its_consent(tmp_path: Path) -> None:
    folder, sound, words, consent = given(tmp_path)
    bare = rigflow("model", "add", folder, "--yes")
    assert bare.returncode != 0
    assert "is a ZipVoice, which speaks with the voice of a sound that is given" in bare.stderr
    refused = rigflow("model", "add", folder, "--sound", sound, "--text", words, "--yes")
    assert "a voice is cloned only with the consent of the person whose voice it is" in refused.stderr
    made = rigflow(
        "model", "add", folder, "--sound", sound, "--text", words, "--consent", consent, "--name", "ada", "--yes"
    )
    assert made.returncode == 0, made.stderr
    assert "the consent, ada.txt" in made.stdout
    assert "s of sound at 24000 Hz" in made.stdout
    (tmp_path / "story.txt").write_text("Good day. It is late.")
    named = f"synthetic speech, cloned voice ada, consent ada.txt sha256 {hashlib.sha256(CONSENT).hexdigest()}"
    options = ("--set", "speak.steps=2", "--set", "encode.note=mine", "--out", tmp_path / "out")
    told = rigflow("run", "speak", tmp_path / "story.txt", "--model", "ada", *options)
    assert told.returncode == 0, told.stderr
    assert named in " ".join((told.stdout + told.stderr).split())
    with av.open(str(tmp_path / "out" / "story.speak.wav")) as container:
        assert container.metadata["comment"].startswith(f"{named}; mine; rigflow, pipeline revision ")


@pytest.mark.models
def test_the_sound_is_that_of_sherpa(tmp_path: Path) -> None:
    """But for the level: sherpa-onnx leaves sound as loud as the raised voice, ZipVoice lowers it again."""
    sherpa = pytest.importorskip("sherpa_onnx")
    espeak = pytest.importorskip("espeakng_loader")
    folder, sound, _, consent = given(tmp_path)
    spec, session = added(folder, sound, "hello", consent)
    (folder / "lexicon.txt").write_text("hello h e l l o\nmorning m o r n i n g\n")
    files = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder")}
    zipvoice = sherpa.OfflineTtsZipvoiceModelConfig(
        **files,
        tokens=str(folder / "tokens.txt"),
        lexicon=str(folder / "lexicon.txt"),
        data_dir=espeak.get_data_path(),
        vocoder=str(folder / "vocos_24khz.onnx"),
    )
    config = sherpa.OfflineTtsModelConfig(zipvoice=zipvoice, num_threads=1)
    tts = sherpa.OfflineTts(sherpa.OfflineTtsConfig(model=config))
    wanted = sherpa.GenerationConfig()
    wanted.reference_audio, wanted.reference_sample_rate = reference(), RATE
    wanted.reference_text, wanted.num_steps, wanted.silence_scale = "hello.", 4, 1.0
    expected = np.array(tts.generate("morning.", wanted).samples, np.float32)
    assert spec.speech is not None
    symbols = [SYMBOLS.index(letter) for letter in "morning."]
    made = speak(session, spec.speech, symbols, Manner(steps=4, guidance=1.0, trim=False))
    lowered = np.sqrt(np.mean(reference().astype(np.float64) ** 2)) / 0.1
    np.testing.assert_allclose(made / lowered, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
